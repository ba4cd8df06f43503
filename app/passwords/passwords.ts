import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import * as argon2 from '@node-rs/argon2'
import bcrypt from 'bcryptjs'
import { sourcePath } from '../source-path.ts'
import { PasswordRefused } from './errors.ts'
import { Turns } from './turns.ts'

export interface Verified {
  readonly matches: boolean
  /** The password is right, and its hash is of an older kind: make a new one while the password is at hand. */
  readonly needsRehash: boolean
}

export interface Passwords {
  /**
   * Whether a new password may be used: 8 to 128 characters (code points), none of the most common ones. Not for sign-ins: older
   * rules allowed others.
   *
   * @throws {PasswordRefused} 400
   */
  check (password: string): void
  /** The argon2id hash of a password, in PHC format. @throws {PasswordsBusy} 503 */
  hash (password: string): Promise<string>
  /**
   * Whether a password is the one that was hashed.
   *
   * Costs one argon2 verification whether the hash is null (no such user, no password), unknown, right or wrong. A bcrypt hash costs
   * its own verification more until its owner has signed in once: right, the caller hashes anew; wrong, the argon2 verification
   * follows.
   *
   * @throws {PasswordsBusy} 503
   */
  verify (hash: string | null, password: string): Promise<Verified>
}

// 19 MiB, 2 passes, 1 lane: the first choice of the OWASP cheat sheet on password storage.
const parameters = { memoryCost: 19_456, timeCost: 2, parallelism: 1 }
const bcryptHash = /^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$/

/**
 * Hashes and checks passwords.
 *
 * @param places how many hashes are computed at once. They share libuv's 4 threads with files and DNS, which get the last one
 * @param queueLength how many more wait; at 15 ms each, the default is about a second of one core
 */
export async function createPasswords ({ places = Math.min(availableParallelism(), 3), queueLength = 100 } = {}): Promise<Passwords> {
  const common = new Set((await readFile(sourcePath('app/passwords/common-passwords.txt'), 'utf8')).split('\n'))
  const nobodys = await argon2.hash(randomBytes(16), parameters)
  const turns = new Turns(places, queueLength)

  return {
    check (password) {
      const text = normalised(password)
      const { length } = [...text]
      if (length < 8) throw new PasswordRefused('has fewer than 8 characters')
      if (length > 128) throw new PasswordRefused('has more than 128 characters')
      if (common.has(text.toLowerCase())) throw new PasswordRefused('is one of the most common')
    },

    async hash (password) {
      return await turns.run(() => argon2.hash(normalised(password), parameters))
    },

    async verify (hash, password) {
      return await turns.run(async () => {
        if (hash !== null && isCurrent(hash)) return { matches: await argon2.verify(hash, normalised(password)), needsRehash: false }
        const matches = hash !== null && await verifyOlder(hash, password)
        if (!matches) await argon2.verify(nobodys, normalised(password))
        return { matches, needsRehash: matches }
      })
    }
  }
}

/** One of the two forms that NIST SP 800-63B (5.1.1.2) names, so that every keyboard's way to write a character gives the same bytes. */
function normalised (password: string): string {
  return password.normalize('NFKC')
}

async function verifyOlder (hash: string, password: string): Promise<boolean> {
  // As it is: what made these hashes is not known to have normalised.
  if (bcryptHash.test(hash)) return await bcrypt.compare(password, hash)
  return parsed(hash) !== null && await argon2.verify(hash, normalised(password))
}

function isCurrent (hash: string): boolean {
  const options = parsed(hash)
  return options !== null && hash.startsWith('$argon2id$v=19$') &&
    options.memoryCost >= parameters.memoryCost && options.timeCost >= parameters.timeCost
}

function parsed (hash: string): argon2.ParsedHashOptions | null {
  try {
    return argon2.parseOptions(hash)
  } catch {
    return null
  }
}
