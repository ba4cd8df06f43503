import { randomBytes } from 'node:crypto'
import { link, mkdir, open, unlink, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import createError from '@fastify/error'
import type { OperatorOptions } from 'fastify-token-registry'
import type { JwtKey } from 'fastify-token-registry/session-jwt'
import type { Config } from './config.ts'

/** A file with a generated key is not one to trust. */
export const KeyFileInvalid = createError<[string, string]>('APP_KEY_FILE_INVALID', '%s %s', 500)

/** What the server signs with. */
export interface Keys {
  /** The first signs, all verify. */
  readonly tokenSecrets: readonly string[]
  readonly jwtKey: JwtKey
  /** Who reads metrics and the details of health; without any, nobody does. */
  readonly operators: OperatorOptions
  /** The variables that would replace what was generated. */
  readonly generated: readonly string[]
}

/**
 * The keys that the configuration gives; those that it lacks are made once and kept in its data directory.
 *
 * Servers that start at the same time on one directory get the same keys.
 *
 * @throws {KeyFileInvalid} where a kept key was cut short, changed, or can be read by others
 */
export async function loadKeys ({ dataDir, tokenSecrets, jwtKey, metrics, production }: Pick<Config, 'dataDir' | 'tokenSecrets' | 'jwtKey' | 'metrics' | 'production'>): Promise<Keys> {
  return {
    tokenSecrets: await loadTokenSecrets({ dataDir, tokenSecrets }),
    jwtKey: jwtKey ?? { secret: await keptKey(keyFile({ dataDir }, 'jwt-secret')) },
    operators: await loadOperators({ dataDir, metrics, production }),
    generated: [...tokenSecrets === null ? ['TOKEN_SECRET'] : [], ...jwtKey === null ? ['JWT_SECRET'] : []]
  }
}

async function loadOperators ({ dataDir, metrics: { tokens, allow, port }, production }: Pick<Config, 'dataDir' | 'metrics' | 'production'>): Promise<OperatorOptions> {
  if (tokens === null && allow === null && port === null && !production) return { token: await keptKey(keyFile({ dataDir }, 'metrics-token')) }
  return { ...tokens !== null && { token: tokens }, ...allow !== null && { allow } }
}

/** The first of these keys alone, likewise. */
export async function loadTokenSecrets ({ dataDir, tokenSecrets }: Pick<Config, 'dataDir' | 'tokenSecrets'>): Promise<readonly string[]> {
  return tokenSecrets ?? [await keptKey(keyFile({ dataDir }, 'token-secret'))]
}

/** Where a generated key is kept. */
export function keyFile ({ dataDir }: Pick<Config, 'dataDir'>, name: 'token-secret' | 'jwt-secret' | 'metrics-token'): string {
  return join(dataDir, `${name}.key`)
}

async function keptKey (file: string): Promise<string> {
  const kept = await readKey(file)
  if (kept !== null) return kept

  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  const draft = `${file}.${randomBytes(8).toString('hex')}`
  await writeKey(draft)
  try {
    // A link appears whole or not at all, and never in the place of another: who comes second takes the first one's key.
    await link(draft, file)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  } finally {
    await unlink(draft)
  }
  return await readKey(file) ?? refuse(file, 'was removed while the server started')
}

async function writeKey (file: string): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    await handle.writeFile(`${randomBytes(32).toString('base64url')}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function readKey (file: string): Promise<string | null> {
  let handle: FileHandle
  try {
    handle = await open(file, 'r')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
  try {
    const { mode } = await handle.stat()
    if ((mode & 0o077) !== 0) refuse(file, 'can be read by other users: take their rights away (chmod 600), and remove it to have a new one made if others may have seen it')
    const [, key] = /^([\w-]{43})\n$/.exec(await handle.readFile('utf8')) ?? []
    return key ?? refuse(file, 'does not hold a whole key: restore it, or remove it to have a new one made, which signs everyone out')
  } finally {
    await handle.close()
  }
}

function refuse (file: string, why: string): never {
  throw new KeyFileInvalid(file, why)
}

function codeOf (error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}
