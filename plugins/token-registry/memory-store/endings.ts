import type { EndCause, Ending } from '../record.ts'
import type { Entry } from './entry.ts'

/** How a session ended. Those that end together share one. */
export interface Ended {
  readonly cause: EndCause
  readonly at: number
  /** Until when it is remembered, ms since the epoch. */
  readonly until: number
}

export type EndedEntry = Entry & { ended: Ended }

const FORGOTTEN_AT_ONCE = 1000

/** The sessions that ended in the recent past, and which operation ended them: a queue, the first to end first, bounded by time and number. */
export class Endings {
  readonly #now: () => number
  readonly #keep: number
  readonly #max: number
  readonly #forget: (entry: EndedEntry) => void
  readonly #byOp = new Map<string, EndedEntry[]>()
  #queue: EndedEntry[] = []
  #first = 0
  #forgetting: NodeJS.Immediate | undefined

  /**
   * @param keep ms that an ending is remembered, unless there are too many
   * @param max endings remembered at most; for a moment, while others get their turn, twice as many
   * @param forget is told each that is no longer
   */
  constructor (now: () => number, keep: number, max: number, forget: (entry: EndedEntry) => void) {
    this.#now = now
    this.#keep = keep
    this.#max = max
    this.#forget = forget
  }

  /** What an operation ended: its repetition gets the same answer. */
  of (op: string): readonly EndedEntry[] {
    return this.#byOp.get(op) ?? []
  }

  /** @param at when it was, where that is only noticed now */
  ended (cause: EndCause, at = this.#now()): Ended {
    return { cause, at, until: this.#now() + this.#keep }
  }

  /** Remembers what an operation ended. */
  add (entries: readonly EndedEntry[], op: string): void {
    const before = this.#byOp.get(op)
    if (before === undefined) this.#byOp.set(op, [...entries])
    else before.push(...entries)
    for (const entry of entries) this.addExpired(entry)
  }

  /** Remembers what no operation ended, which none repeats. */
  addExpired (entry: EndedEntry): void {
    this.#queue.push(entry)
    if (this.#excess > 0) this.#forgetSoon()
    if (this.#excess > this.#max) this.#forgetFirst()
  }

  /** Forgets what is past, an ending a step. */
  * sweep (): Generator<true, undefined> {
    for (let entry = this.#queue[this.#first]; entry !== undefined && this.isPast(entry); entry = this.#queue[this.#first]) {
      this.#forgetFirst()
      yield true
    }
  }

  /** Whether an ending is not to be told any more. */
  isPast (entry: EndedEntry): boolean {
    return entry.ended.until < this.#now()
  }

  clear (): void {
    clearImmediate(this.#forgetting)
    this.#forgetting = undefined
    this.#byOp.clear()
    this.#queue = []
    this.#first = 0
  }

  /** How many there are too many. */
  get #excess (): number {
    return this.#queue.length - this.#first - this.#max
  }

  /** A slice at a time: whoever ends sessions does not wait for what ended long ago. */
  #forgetSoon (): void {
    this.#forgetting ??= setImmediate(() => {
      this.#forgetting = undefined
      for (let slice = Math.min(this.#excess, FORGOTTEN_AT_ONCE); slice > 0; slice--) this.#forgetFirst()
      if (this.#excess > 0) this.#forgetSoon()
    }).unref()
  }

  #forgetFirst (): void {
    const entry = this.#queue[this.#first++] as EndedEntry // those who call have seen that there is one
    this.#byOp.delete(entry.ended.cause.op)
    this.#forget(entry)
    // The part that is done with is cut off when it is the larger one.
    if (this.#first * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#first)
      this.#first = 0
    }
  }
}

export function isEnded (entry: Entry): entry is EndedEntry {
  return entry.ended !== null
}

export function endingOf ({ id, subject: { tenant, sub }, ended: { cause, at } }: EndedEntry): Ending {
  return { id, tenant, sub, ...cause, at }
}
