import { within } from '../../token-registry/index.ts'
import { LedgerUnavailable } from '../errors.ts'
import type { StoredEntry } from '../ledger.ts'
import { Copies, type CopyOptions } from './copies.ts'
import type { Sink } from './sink.ts'

/** Gives entries to all sinks, and knows when those that are required have them. */
export class AllCopies {
  readonly #copies: readonly Copies[]
  /** Until those that are required have an entry. */
  readonly #required = new WeakMap<StoredEntry, Promise<void>>()

  constructor (sinks: readonly Sink[], options: CopyOptions) {
    this.#copies = sinks.map(sink => new Copies(sink, options))
  }

  add (entries: readonly StoredEntry[]): void {
    const required: Array<Promise<void>> = []
    for (const copies of this.#copies) {
      const copied = copies.add(entries)
      copied.catch(nothing) // what is left out is counted
      if (copies.required) required.push(copied)
    }
    if (required.length === 0) return
    const all = Promise.all(required).then(nothing)
    all.catch(nothing) // told to who waits
    for (const entry of entries) this.#required.set(entry, all)
  }

  /**
   * Waits for those that are required; for nothing where there are none.
   *
   * @param late by the clock of the process, ms
   * @throws {LedgerUnavailable} where they do not have it by then
   */
  has (entry: StoredEntry, late: number): PromiseLike<void> | undefined {
    const copied = this.#required.get(entry)
    return copied && within(copied, Math.max(1, late - performance.now()), () => new LedgerUnavailable('a copy that is required was not written in time'))
  }

  /** ms that those that are required lag behind */
  get lag (): number {
    return Math.max(0, ...this.#copies.filter(({ required }) => required).map(({ lag }) => lag))
  }

  get figures () {
    const sum = (name: 'dropped' | 'waiting' | 'failures'): number => this.#copies.reduce((total, { figures }) => total + figures[name], 0)
    return { copiesWaiting: sum('waiting'), copiesDropped: sum('dropped'), copiesFailed: sum('failures') }
  }

  async close (): Promise<void> {
    await Promise.all(this.#copies.map(async copies => await copies.close()))
  }
}

function nothing (): void {}
