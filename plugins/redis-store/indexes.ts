import type { SessionQuery, SessionRecord } from '../token-registry/index.ts'
import type { Connection } from './connection.ts'
import { grouped } from './grouped.ts'
import type { Keys } from './keys.ts'
import { enlist } from './scripts/enlist.ts'

export type IndexName = 'ip' | 'client'

/**
 * Indexes by address and client, across subjects: in a Cluster in other slots than the sessions. So an entry is written before its session, and taken off after it;
 * a search looks at the session itself. What lives is never missing, what has ended never shown.
 */
export class Indexes {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #names: readonly IndexName[]
  readonly #keepEndings: number

  constructor (connection: Connection, keys: Keys, names: readonly IndexName[], keepEndings: number) {
    this.#connection = connection
    this.#keys = keys
    this.#names = names
    this.#keepEndings = keepEndings
  }

  /** The index that has all that a query finds; null where there is none. */
  keyOf ({ client, ipAddress }: Pick<SessionQuery, 'client' | 'ipAddress'>): string | null {
    const values = { ip: ipAddress, client }
    for (const name of this.#names) {
      const value = values[name]
      if (value !== undefined) return this.#keys.index(name, value)
    }
    return null
  }

  /** Before they are stored. */
  async add (sessions: readonly SessionRecord[]): Promise<void> {
    await Promise.all(this.#entriesOf(sessions).map(async ([key, own]) => {
      const args = own.flatMap(({ session: { id, expiresAt } }) => [expiresAt, id])
      await this.#connection.ask('insert', client => enlist.run(client, [key], [this.#keys.prefix, '', this.#keepEndings, ...args]))
    }))
  }

  /** In the background: what stays is taken off when it is seen, or when it would have expired. */
  removeSoon (sessions: readonly SessionRecord[]): void {
    for (const [key, own] of this.#entriesOf(sessions)) {
      this.#connection.ask('end', client => client.zrem(key, ...own.map(({ session }) => session.id))).catch(() => {})
    }
  }

  /** What stands in which index. */
  #entriesOf (sessions: readonly SessionRecord[]): Array<[key: string, own: Array<{ key: string, session: SessionRecord }>]> {
    return grouped(sessions.flatMap(session => this.#keysOf(session).map(key => ({ key, session }))), ({ key }) => key)
  }

  #keysOf ({ use, client, meta: { ipAddress } }: Pick<SessionRecord, 'use' | 'client' | 'meta'>): string[] {
    const values = { ip: ipAddress, client }
    return use === 'once' ? [] : this.#names.flatMap(name => typeof values[name] === 'string' ? [this.#keys.index(name, values[name])] : [])
  }
}
