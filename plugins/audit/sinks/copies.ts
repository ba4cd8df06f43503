import { setTimeout as pause } from 'node:timers/promises'
import { within } from '../../token-registry/index.ts'
import { LedgerUnavailable } from '../errors.ts'
import type { StoredEntry } from '../ledger.ts'
import type { Sink } from './sink.ts'

/** ms before a group is written again; twice as long before each further attempt, half of it at random. */
const PAUSE = { first: 100, longest: 5000 }
/** Entries that a sink is given at once. */
const GROUP = 500

export interface CopyOptions {
  /** ms that one write may take */
  timeout: number
  /** Entries that may wait for one sink. */
  maxQueue: number
  failed: (error: unknown, sink: string) => void
}

/** Brings entries to a sink, in their order and behind the back of those who record them. What is too much for it is left out, and counted. */
export class Copies {
  readonly #sink: Sink
  readonly #options: CopyOptions
  readonly #closing = new AbortController()
  #queue: StoredEntry[] = []
  /** Who waits, by the last of their entries. */
  readonly #waiting = new Map<StoredEntry, () => void>()
  #writing: Promise<void> | null = null
  /** When the sink last took something, or had nothing to take. */
  #tookAt = performance.now()
  readonly figures = { written: 0, dropped: 0, failures: 0, waiting: 0 }

  constructor (sink: Sink, options: CopyOptions) {
    this.#sink = sink
    this.#options = options
  }

  /** Whether who has to wait for the ledger waits for it too. */
  get required (): boolean {
    return this.#sink.required === true
  }

  /** ms since the sink last took something, where copies wait for it */
  get lag (): number {
    return this.#queue.length === 0 ? 0 : performance.now() - this.#tookAt
  }

  /**
   * @returns when the sink has them
   * @throws {LedgerUnavailable} where some were left out
   */
  add (entries: readonly StoredEntry[]): Promise<void> {
    if (this.#queue.length === 0) this.#tookAt = performance.now()
    const taken = entries.slice(0, Math.max(0, this.#options.maxQueue - this.#queue.length))
    this.#queue.push(...taken)
    this.figures.dropped += entries.length - taken.length
    this.figures.waiting = this.#queue.length
    if (this.#queue.length > 0) this.#writing ??= this.#writeAll()
    const last = taken.at(-1)
    if (taken.length < entries.length) return Promise.reject(new LedgerUnavailable(`${this.#queue.length} copies wait for the sink ${this.#sink.name}`))
    return last === undefined ? Promise.resolve() : new Promise(resolve => this.#waiting.set(last, resolve))
  }

  /** Writes what waits, once. A sink that cannot be closed keeps nobody from going. */
  async close (): Promise<void> {
    this.#closing.abort()
    await this.#writing
    try {
      await this.#soon(this.#sink.close())
    } catch (error) {
      this.#options.failed(error, this.#sink.name)
    }
  }

  async #writeAll (): Promise<void> {
    let wait = PAUSE.first
    while (this.#queue.length > 0) {
      const group = this.#queue.slice(0, GROUP)
      try {
        await this.#soon(this.#sink.write(group))
        this.#queue = this.#queue.slice(group.length)
        this.#tookAt = performance.now()
        for (const entry of group) {
          this.#waiting.get(entry)?.()
          this.#waiting.delete(entry)
        }
        this.figures.written += group.length
        wait = PAUSE.first
      } catch (error) {
        this.figures.failures++
        this.#options.failed(error, this.#sink.name)
        if (this.#closing.signal.aborted) break
        await pause(wait * (0.5 + Math.random() / 2), undefined, { signal: this.#closing.signal }).catch(() => {})
        wait = Math.min(wait * 2, PAUSE.longest)
      }
      this.figures.waiting = this.#queue.length
    }
    this.#writing = null
  }

  async #soon (work: Promise<void>): Promise<void> {
    await within(Promise.resolve(work), this.#options.timeout, () => new Error(`the sink ${this.#sink.name} did not answer`))
  }
}
