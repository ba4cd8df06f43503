import type { EndAllQuery, EndCause, Subject } from '../token-registry/index.ts'
import type { Connection } from './connection.ts'
import type { Keys } from './keys.ts'
import type { Placed } from './places.ts'
import { causeArguments, groupsOf } from './record.ts'
import { REPEATABLE, SLICE, type Runner } from './runner.ts'
import { addPending, condemn, endSlice, noteTold, takePending } from './scripts/end.ts'

/** ms for which what was set aside waits for somebody to end it */
const ASIDE = 7 * 86_400_000
/** ms after which what is not done counts as abandoned */
export const ABANDONED = 30_000
/** Slices that are under way at once, so that none waits for the network. */
const SLICES_AHEAD = 4

/** When, the ids that it ended, their records, those that had expired; the ids and groups of those that a tenant may count. */
type EndSliceReply = [string, string[], string[], string[], string[], string[]]

/** What is not done. */
interface Pending extends Subject {
  except: string[]
  cause: EndCause
  /** When it began. */
  at: number
}

/** Is told what a slice ended, and found. `values`: records, where they are wanted. `placed`: those whose places are free now. */
type Slice = (slice: { tag: string, at: number, ids: string[], values: string[], expired: string[], placed: Placed[], cause: EndCause }) => void

/**
 * Ends everything of a subject: its indexes are moved aside in one step, and what they list is ended in slices. Who begins is on a list until all is done,
 * so that another process can go on where one has died.
 */
export class EndAll {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #runner: Runner
  readonly #now: () => number

  constructor (connection: Connection, keys: Keys, runner: Runner, now: () => number) {
    this.#connection = connection
    this.#keys = keys
    this.#runner = runner
    this.#now = now
  }

  /**
   * @param wanted whether the records are
   * @returns how many sessions were ended; by a repetition the same again
   */
  async run ({ tenant, sub, except = [] }: EndAllQuery, cause: EndCause, wanted: boolean, told: Slice): Promise<number> {
    const pending: Pending = { tenant, sub, except: [...except], cause, at: this.#now() }
    const member = JSON.stringify(pending)
    await this.#runner.run('endAll', addPending, '', [this.#keys.pending], [pending.at, member, ASIDE])
    return await this.#finish(pending, member, { wanted, begins: true }, told)
  }

  /** Goes on with what others began some time ago. */
  async sweep (told: Slice): Promise<void> {
    for (;;) {
      const member = await this.#runner.run<string | null>('sweep', takePending, '', [this.#keys.pending], [ABANDONED])
      if (member === null) return
      const pending: Pending = JSON.parse(member)
      // What was set aside has been forgotten by then, and what lives was issued since.
      if (pending.at < this.#now() - ASIDE + REPEATABLE) await this.#connection.ask('sweep', client => client.zrem(this.#keys.pending, member))
      else await this.#finish(pending, member, { wanted: true, begins: false }, told)
    }
  }

  /** @param how `begins`: else it goes on with what another began, and tells only what that one had not told */
  async #finish (pending: Pending, member: string, how: { wanted: boolean, begins: boolean }, told: Slice): Promise<number> {
    const { tenant, except, cause } = pending
    const tag = this.#keys.tagOfSubject(pending)
    const own = this.#keys.subject(pending, cause.op)
    const { sessions, once, sessionsAside, onceAside, done, underWay } = own
    const [sessionCount, onceCount, others] = await this.#runner.run<[number, number, string[]]>('endAll', condemn, tag,
      [sessions, once, sessionsAside, onceAside, done, underWay], [ASIDE, JSON.stringify(cause.op), how.begins ? 1 : 0, ...except])

    const endAside = async (aside: string, done: string, size: number, firstBit: 0 | 1): Promise<number> => {
      let count = 0
      const endFrom = async (first: number): Promise<void> => {
        const bit = 2 * (first / SLICE) + firstBit
        const args = [...causeArguments(cause), first, first + SLICE - 1, bit, how.wanted ? 1 : 0, how.begins ? 1 : 0, ...except]
        const [at, ids, values, expired, placedIds, groups] = await this.#runner.run<EndSliceReply>('endAll', endSlice, tag, [aside, done], args)
        count += ids.length
        const placed = placedIds.map((id, index) => ({ id, tenant, groups: groupsOf(groups[index] as string) })) // as many as ids
        told({ tag, at: Number(at), ids, values, expired, placed, cause })
        this.#runner.run('endAll', noteTold, tag, [done], [bit]).catch(() => {}) // should this process die now, another tells it again
      }
      const firsts = Array.from({ length: Math.ceil(size / SLICE) }, (_, index) => index * SLICE).values()
      await Promise.all(Array.from({ length: SLICES_AHEAD }, async () => { for (const first of firsts) await endFrom(first) }))
      return count
    }
    const endBoth = async (of: typeof own, sessions: number, once: number): Promise<number> => {
      const ended = await endAside(of.sessionsAside, of.done, sessions, 0)
      await endAside(of.onceAside, of.done, once, 1)
      return ended
    }
    let ended = await endBoth(own, sessionCount, onceCount)
    // What others have set aside and not ended yet was there when this was called.
    for (const other of others) {
      const theirs = this.#keys.subject(pending, JSON.parse(other))
      const [sessions, once] = await this.#connection.ask('endAll', async client => await Promise.all([client.zcard(theirs.sessionsAside), client.zcard(theirs.onceAside)]))
      ended += await endBoth(theirs, sessions, once)
    }

    await this.#connection.ask('endAll', async client => {
      const forgotten = [sessionsAside, onceAside, done].map(async key => await client.pexpire(key, REPEATABLE))
      await Promise.all([...forgotten, client.zrem(underWay, JSON.stringify(cause.op)), client.zrem(this.#keys.pending, member)])
    })
    return ended
  }
}
