import type { SessionRecord } from '../token-registry/index.ts'
import type { Connection } from './connection.ts'
import type { Keys } from './keys.ts'
import type { Runner } from './runner.ts'
import { claim, release } from './scripts/insert.ts'

/** ms for which word of where a session will be is believed before it is there */
const BELIEVED = 30_000

type ClaimReply = ['ok' | 'exists'] | ['held', string, string]

/**
 * In a Cluster the id of an adopted token comes from the token, and leads to another slot than its subject's, where its session is kept.
 * Before that is stored, word of where it will be is left in the slot of the id, where the next who brings the same token finds it.
 */
export class Claims {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #runner: Runner
  readonly #now: () => number
  readonly #keepEndings: number

  constructor (connection: Connection, keys: Keys, runner: Runner, now: () => number, keepEndings: number) {
    this.#connection = connection
    this.#keys = keys
    this.#runner = runner
    this.#now = now
    this.#keepEndings = keepEndings
  }

  /**
   * Leaves word of records of one subject.
   *
   * @param home the hash tag of the subject
   * @returns an id that is taken, where one is: then no word is left
   */
  async add (records: readonly SessionRecord[], home: string, op: string): Promise<string | undefined> {
    const claims = await Promise.all(records.map(async record => await this.#add(record, home, op)))
    const taken = records.find((_, index) => claims[index] === false)
    if (taken !== undefined) await this.takeBack(records, home, op)
    return taken?.id
  }

  /** What this operation left, and no other's. */
  async takeBack (records: readonly SessionRecord[], home: string, op: string): Promise<void> {
    await Promise.all(records.map(async ({ id }) => await this.#release(id, home, JSON.stringify(op))))
  }

  async #add (record: SessionRecord, home: string, op: string): Promise<boolean> {
    const { id, expiresAt } = record
    const until = expiresAt + this.#keepEndings + BELIEVED
    const reply = await this.#runner.run<ClaimReply>('insert', claim, this.#keys.tagOfId(id), this.#keysOf(id), [id, home, JSON.stringify(op), until])
    if (reply[0] !== 'held') return reply[0] === 'ok'
    const [, theirs, at] = reply
    const isKept = await this.#connection.ask('insert', client => client.exists(this.#keys.session(id, theirs))) > 0
    if (isKept || Number(at) > this.#now() - BELIEVED) return false
    // Who left it has died.
    await this.#release(id, theirs, at)
    return await this.#add(record, home, op)
  }

  async #release (id: string, home: string, sign: string): Promise<void> {
    await this.#runner.run('insert', release, this.#keys.tagOfId(id), this.#keysOf(id), [id, home, sign])
  }

  #keysOf (id: string): string[] {
    return [this.#keys.session(id), this.#keys.pointer(id)]
  }
}
