import { AsyncResource } from 'node:async_hooks'
import type { SessionRecord, Subject } from './record.ts'
import type { SessionUse } from './store.ts'
import { subjectKey } from './token.ts'

/** ms between two writes of the last use of a session that has no idle timeout, and at most for any other */
const LONGEST = 60_000
/** Likewise where limits end sessions by last use. */
const LONGEST_COMPARED = 5000
/** ms for which first uses are gathered where no idle timeout may be about to end the session, and at most between two looks at what is due */
const GATHER = 1000
/** Sessions of one interval that are remembered; beyond that, the first is written and forgotten sooner than need be. */
const MAX = 100_000

/** The last use of a session, and the one that was written, by the store's clock. */
interface Use {
  at: number
  written: number
  /** When a later use is to be written, by the monotonic clock. */
  due: number
  /** Its key, where uses are compared. */
  subject: string | null
}

/**
 * Writes last uses in the background: the first one after a quiet time at once, since the idle timeout may be about to end the session, and the
 * newest of those that follow every min(60 s, idleTimeout / 10): 5 s where uses are compared. One write is under way at a time, and what comes meanwhile is gathered.
 */
export class LastUse {
  readonly #write: (uses: readonly SessionUse[]) => Promise<void>
  /** In no request's trace: whose use comes first must not stand for all. */
  readonly #apart = AsyncResource.bind(async () => await this.#tick())
  /** By interval, so that in each lane the first to be due comes first. */
  readonly #lanes = new Map<number, Map<string, Use>>()
  #unwritten = new Map<string, number>()
  #writing: Promise<void> | null = null
  #timer: NodeJS.Timeout | undefined
  #firesAt = Infinity
  /** By subject and id, where uses are compared. */
  readonly #subjects = new Map<string, Map<string, Use>>()
  #compares = false

  /** @param write does not reject */
  constructor (write: (uses: readonly SessionUse[]) => Promise<void>) {
    this.#write = write
  }

  /** From now on, `usesOf` knows. */
  compare (): void {
    this.#compares = true
  }

  /** Last uses of a subject's sessions that the store may not know: where uses are compared. */
  usesOf (subject: Subject): SessionUse[] {
    return Array.from(this.#subjects.get(subjectKey(subject)) ?? [], ([id, { at }]) => ({ id, at }))
  }

  /** @param at ms since the epoch, by the store's clock */
  note (session: Pick<SessionRecord, 'id' | 'tenant' | 'sub' | 'idleTimeout'>, at: number): void {
    const { id, idleTimeout } = session
    const interval = Math.min(this.#compares ? LONGEST_COMPARED : LONGEST, (idleTimeout ?? Infinity) / 10)
    const lane = this.#lanes.get(interval) ?? new Map<string, Use>()
    const use = lane.get(id)
    if (use !== undefined && at - use.written < interval) {
      use.at = Math.max(use.at, at)
      return
    }
    // In its place in the order.
    if (use !== undefined) this.#take(lane, id, use)
    if (lane.size === 0) this.#lanes.set(interval, lane)
    const [first] = lane
    if (first !== undefined && lane.size === MAX) this.#take(lane, ...first)
    this.#put(lane, id, { at, interval, subject: this.#compares ? subjectKey(session) : null })
    this.#wakeIn(idleTimeout === null ? GATHER : 0)
  }

  /** Writes everything that waits. */
  async flush (): Promise<void> {
    clearTimeout(this.#timer)
    this.#firesAt = Infinity
    for (const lane of this.#lanes.values()) for (const [id, use] of lane) this.#take(lane, id, use)
    this.#lanes.clear()
    await this.#writeAll()
  }

  #put (lane: Map<string, Use>, id: string, { at, interval, subject }: Pick<Use, 'at' | 'subject'> & { interval: number }): void {
    const use = { at, written: at, due: performance.now() + interval, subject }
    lane.set(id, use)
    this.#unwritten.set(id, at)
    if (subject === null) return
    const uses = this.#subjects.get(subject)
    if (uses === undefined) this.#subjects.set(subject, new Map([[id, use]]))
    else uses.set(id, use)
  }

  /** @returns whether the session was used since it was written */
  #take (lane: Map<string, Use>, id: string, use: Use): boolean {
    const { at, written, subject } = use
    lane.delete(id)
    if (at > written) this.#unwritten.set(id, at)
    if (subject !== null) this.#forget(subject, id, use)
    return at > written
  }

  /** In another lane there may be a later one. */
  #forget (subject: string, id: string, use: Use): void {
    const uses = this.#subjects.get(subject)
    if (uses === undefined || uses.get(id) !== use) return
    uses.delete(id)
    if (uses.size === 0) this.#subjects.delete(subject)
  }

  #wakeIn (delay: number): void {
    const at = performance.now() + delay
    if (at >= this.#firesAt) return
    clearTimeout(this.#timer)
    this.#firesAt = at
    this.#timer = setTimeout(this.#apart, delay).unref()
  }

  async #tick (): Promise<void> {
    this.#firesAt = Infinity
    const next = this.#gatherDue(performance.now())
    if (next < Infinity) this.#wakeIn(next)
    await this.#writeAll()
  }

  /** @returns ms until it is worth another look */
  #gatherDue (now: number): number {
    let next = Infinity
    for (const [interval, lane] of this.#lanes) {
      for (const [id, use] of lane) {
        if (use.due > now) {
          next = Math.min(next, Math.max(use.due - now, Math.min(interval, GATHER)))
          break
        }
        if (this.#take(lane, id, use)) this.#put(lane, id, { ...use, interval })
      }
      if (lane.size === 0) this.#lanes.delete(interval)
    }
    return next
  }

  async #writeAll (): Promise<void> {
    if (this.#unwritten.size > 0) this.#writing ??= this.#writeInTurn()
    await this.#writing
  }

  async #writeInTurn (): Promise<void> {
    do {
      const uses = Array.from(this.#unwritten, ([id, at]) => ({ id, at }))
      this.#unwritten = new Map()
      await this.#write(uses)
    } while (this.#unwritten.size > 0)
    this.#writing = null
  }
}
