import { randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import * as argon2 from '@node-rs/argon2'
import * as bcrypt from '@node-rs/bcrypt'
import { normalised } from './policy.ts'
import { Turns } from './turns.ts'

export interface Verified {
  readonly matches: boolean
  /** The password is right, and its hash is of an older kind: make a new one while the password is at hand. */
  readonly needsRehash: boolean
}

export interface Passwords {
  /** The argon2id hash of a password, in PHC format. @throws {PasswordsBusy} 503 */
  hash (password: string): Promise<string>
  /**
   * Whether a password is the one that was hashed.
   *
   * Costs one argon2 verification whether the hash is null (no such user, no password), unknown, right or wrong. A hash of an older
   * kind, until its owner has signed in once, costs its own verification beside that one.
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
  const nobodys = await argon2.hash(randomBytes(16), parameters)
  const turns = new Turns(places, queueLength)

  async function verifyArgon2 (hash: string, password: string): Promise<boolean> {
    return await turns.run(() => argon2.verify(hash, normalised(password)))
  }

  async function verifyOlder (hash: string | null, password: string): Promise<boolean> {
    if (hash === null) return false
    // As it is: what made these hashes is not known to have normalised.
    if (bcryptHash.test(hash)) return await turns.run(() => bcrypt.verify(password, hash))
    return parsed(hash) !== null && await verifyArgon2(hash, password)
  }

  return {
    async hash (password) {
      return await turns.run(() => argon2.hash(normalised(password), parameters))
    },

    async verify (hash, password) {
      if (hash !== null && isCurrent(hash)) return { matches: await verifyArgon2(hash, password), needsRehash: false }
      // At the same time, so that only what an older hash takes beyond this tells it from no hash.
      const [matches] = await Promise.all([verifyOlder(hash, password), verifyArgon2(nobodys, password)])
      return { matches, needsRehash: matches }
    }
  }
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
