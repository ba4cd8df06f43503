import { TokenValidation, type Documents } from '../token-registry/index.ts'
import type { Connection } from './connection.ts'
import type { Keys } from './keys.ts'
import type { Runner } from './runner.ts'
import { replace, replaceAnyway } from './scripts/documents.ts'

/** Bytes of a text, in UTF-8. */
const MAX = 65_536

/** Small texts, one key each, which ends by itself. Nobody watches them: what another process wrote is read, not told. */
export class RedisDocuments implements Documents {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #runner: Runner

  constructor (connection: Connection, keys: Keys, runner: Runner) {
    this.#connection = connection
    this.#keys = keys
    this.#runner = runner
  }

  async read (purpose: string, key: string): Promise<string | null> {
    return await this.#connection.ask('read', client => client.get(this.#keys.document(purpose, key)))
  }

  /** @throws `FST_TOKEN_VALIDATION` for a text that is longer than 64 KiB, or no Unicode: it would come back as another */
  async write (purpose: string, key: string, before: string | null, after: string | null, expiresAt: number): Promise<boolean> {
    if (after !== null && (Buffer.byteLength(after) > MAX || !after.isWellFormed())) throw new TokenValidation('a document is well-formed text of at most 64 KiB')
    const args = [written(before), written(after), expiresAt]
    return await this.#runner.run('write', after === null ? replaceAnyway : replace, '', [this.#keys.document(purpose, key)], args) === 1
  }
}

/** As the script takes it. */
export function written (text: string | null): string {
  return text === null ? '' : `=${text}`
}
