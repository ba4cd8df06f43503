import type { Confirmed } from './confirmed.ts'
import type { Client, Connection } from './connection.ts'
import { grouped, sliced } from './grouped.ts'
import type { Keys } from './keys.ts'
import { condemn, end, endSlice } from './scripts/end.ts'
import { enforce, insert } from './scripts/insert.ts'
import { mark } from './scripts/mark.ts'
import { places } from './scripts/places.ts'
import { rotate } from './scripts/rotate.ts'
import type { Script } from './scripts/script.ts'

/** ms for which the answer of an operation is kept for its repetition */
export const REPEATABLE = 3_600_000
/** Sessions that one script is given: about a millisecond, where each of them ends. */
export const SLICE = 80

/** What ends or replaces tokens, or counts them: with `durability: 'replicas'` it counts when replicas have it. */
const confirmable = new Set([condemn, end, endSlice, enforce, insert, mark, places, rotate])

type Arguments = ReadonlyArray<string | number>

/** Runs scripts on sessions, in the slot where they are. */
export class Runner {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #keepEndings: number
  readonly #confirmed: Confirmed | null

  /** @param keepEndings ms */
  constructor (connection: Connection, keys: Keys, keepEndings: number, confirmed: Confirmed | null) {
    this.#connection = connection
    this.#keys = keys
    this.#keepEndings = keepEndings
    this.#confirmed = confirmed
  }

  /** @throws {StoreUnavailable | StoreTimeout | StoreUnconfirmed} */
  async run<Reply> (operation: string, script: Script, tag: string, keys: readonly string[], args: Arguments): Promise<Reply> {
    const run = async (client: Client, fence: string): Promise<unknown> =>
      await script.run(client, keys, [this.#keys.prefix, tag, `${this.#keepEndings}${this.#connection.publishes ? 'p' : ''} ${fence}`, ...args])
    const reply = this.#confirmed !== null && confirmable.has(script)
      ? await this.#confirmed.run(tag, run)
      : await this.#connection.ask(operation, client => run(client, ''))
    return reply as Reply // what each script returns stands beside it
  }

  /** Runs a script on sessions of one slot. */
  async runOn<Reply> (operation: string, script: Script, tag: string, ids: readonly string[], args: Arguments = ids): Promise<Reply> {
    return await this.run(operation, script, tag, ids.map(id => this.#keys.session(id, tag)), args)
  }

  /** Runs a script on one session, where it is. Before its own arguments it gets the id. */
  async runOnId<Reply extends unknown[]> (operation: string, script: Script, id: string, args: Arguments): Promise<Reply> {
    const runAt = async (tag: string): Promise<Reply | ['moved', string]> => await this.runOn(operation, script, tag, [id], [id, ...args])
    const reply = await runAt(this.#keys.tagOfId(id))
    return (reply[0] === 'moved' ? await runAt(reply[1] as string) : reply) as Reply // there it is not said again
  }

  /**
   * Runs something on sessions in slices that share a slot, then on those that it found elsewhere.
   *
   * @param run gives ids that are elsewhere, and the hash tags of where
   */
  async runOnAll (ids: readonly string[], run: (tag: string, ids: readonly string[]) => Promise<[moved: string[], homes: string[]]>): Promise<void> {
    const tags = new Map(ids.map(id => [id, this.#keys.tagOfId(id)]))
    while (tags.size > 0) {
      const slices = grouped([...tags], ([, tag]) => tag).flatMap(([tag, own]) => sliced(own, SLICE).map(slice => [tag, slice.map(([id]) => id)] as const))
      tags.clear()
      await Promise.all(slices.map(async slice => {
        const [moved, homes] = await run(...slice)
        for (const [index, id] of moved.entries()) tags.set(id, homes[index] as string) // as many as have moved
      }))
    }
  }
}
