import TinyQueue from 'tinyqueue'
import type { Counted } from '../limits.ts'
import { deadlineOf } from '../record.ts'
import type { Entry } from './entry.ts'

/** Sessions that are looked at one by one; where there are more, those that come first are known. */
const FEW = 64

/** When something was true of a session: from then on it can only have moved to later. */
interface Moment {
  at: number
  entry: Entry
}

const sequenceOf = ({ sequence }: Entry): number => sequence
const lastUseOf = ({ lastUsedAt }: Entry): number => lastUsedAt
const earlierFirst = (a: Moment, b: Moment): number => a.at - b.at || a.entry.sequence - b.entry.sequence

/** The sessions that a limit counts. */
export class Ledger implements Counted<Entry> {
  readonly #entries = new Set<Entry>()
  #byDeadline: Earliest | null = null
  #byIssue: Earliest | null = null
  #byUse: Earliest | null = null

  get size (): number {
    return this.#entries.size
  }

  has (entry: Entry): boolean {
    return this.#entries.has(entry)
  }

  add (entry: Entry): void {
    this.#entries.add(entry)
    this.changed(entry)
  }

  /** To be told where the deadline of one that is counted may have come nearer. */
  changed (entry: Entry): void {
    this.#byDeadline?.add(entry, this.size)
    this.#byIssue?.add(entry, this.size)
    this.#byUse?.add(entry, this.size)
  }

  delete (entry: Entry): void {
    this.#entries.delete(entry)
  }

  /** @param lives takes a session that does not off this ledger */
  settle (lives: (entry: Entry) => boolean, now: number): void {
    if (this.size <= FEW) {
      for (const entry of this.#entries) lives(entry)
      return
    }
    this.#byDeadline ??= new Earliest(deadlineOf)
    for (let first = this.#byDeadline.first(this.#entries); first !== undefined && deadlineOf(first) <= now; first = this.#byDeadline.first(this.#entries)) lives(first)
  }

  oldest (count: number, leftOut: { has (entry: Entry): boolean }): Entry[] {
    if (this.size > FEW) return (this.#byIssue ??= new Earliest(sequenceOf)).take(count, this.#entries, leftOut)
    return [...this.#entries].filter(entry => !leftOut.has(entry)).sort((a, b) => a.sequence - b.sequence).slice(0, count)
  }

  leastRecentlyUsed (count: number, leftOut: { has (entry: Entry): boolean }): Entry[] {
    if (this.size > FEW) return (this.#byUse ??= new Earliest(lastUseOf)).take(count, this.#entries, leftOut)
    return [...this.#entries].filter(entry => !leftOut.has(entry)).sort((a, b) => a.lastUsedAt - b.lastUsedAt || a.sequence - b.sequence).slice(0, count)
  }
}

/**
 * Which sessions come first by a time that only grows. What is noted of each is a time that it had: the first is put where it belongs now, until it stays
 * the first. Empty until it is asked.
 */
class Earliest {
  readonly #timeOf: (entry: Entry) => number
  #queue: TinyQueue<Moment> | null = null

  constructor (timeOf: (entry: Entry) => number) {
    this.#timeOf = timeOf
  }

  /** @param count how many sessions there are: where most of what is noted is of others, it is noted anew when it is asked for */
  add (entry: Entry, count: number): void {
    if (this.#queue !== null && this.#queue.length > 2 * count + FEW) this.#queue = null
    this.#queue?.push({ at: this.#timeOf(entry), entry })
  }

  first (entries: ReadonlySet<Entry>): Entry | undefined {
    const queue = this.#of(entries)
    let first = queue.peek()
    while (first !== undefined && !(entries.has(first.entry) && this.#timeOf(first.entry) === first.at)) {
      queue.pop()
      const { entry } = first
      const at = this.#timeOf(entry)
      if (entries.has(entry) && at > first.at) queue.push({ at, entry })
      first = queue.peek()
    }
    return first?.entry
  }

  take (count: number, entries: ReadonlySet<Entry>, leftOut: { has (entry: Entry): boolean }): Entry[] {
    const queue = this.#of(entries)
    const taken = new Set<Entry>()
    const found: Entry[] = []
    for (let entry = this.first(entries); entry !== undefined && found.length < count; entry = this.first(entries)) {
      queue.pop()
      if (!leftOut.has(entry) && !taken.has(entry)) found.push(entry)
      taken.add(entry)
    }
    for (const entry of taken) this.add(entry, entries.size)
    return found
  }

  #of (entries: ReadonlySet<Entry>): TinyQueue<Moment> {
    this.#queue ??= new TinyQueue(Array.from(entries, entry => ({ at: this.#timeOf(entry), entry })), earlierFirst)
    return this.#queue
  }
}
