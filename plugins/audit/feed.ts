import type { Ledger, StoredEntry } from './ledger.ts'

/** Entries that are remembered, so that the ledger is asked once for all who follow closely. */
const REMEMBERED = 1000
/** Entries that are given at once. */
const PAGE = 500
/** ms after which it looks for what other instances appended. */
const LOOK = 500

/** New entries as they come, of whichever instance. */
export class Feed {
  readonly #ledger: Ledger
  readonly #failed: (error: unknown) => void
  /** Those who wait for news. */
  readonly #waiting = new Set<() => void>()
  readonly #closing = new AbortController()
  /** The newest ones, without a gap up to `#next`. */
  #recent: readonly StoredEntry[] = []
  /** From where on nothing is known; null while nobody follows. */
  #next: number | null = null
  #looking: Promise<void> | null = null
  #again = false
  #timer: NodeJS.Timeout | undefined
  #followers = 0
  /** What was given last: those who follow side by side get the same page. */
  #page: { from: number, recent: readonly StoredEntry[], entries: readonly StoredEntry[] } | null = null

  constructor (ledger: Ledger, failed: (error: unknown) => void) {
    this.#ledger = ledger
    this.#failed = failed
  }

  /** Is told that this process has appended. */
  grown (): void {
    if (this.#followers > 0) this.#look()
  }

  /**
   * Entries from a `seq` on, in order, each once, a page at a time, until the signal or the end of the feed. What is not read yet waits in the ledger.
   *
   * @param idle ms after which an empty page comes, as a sign of life
   */
  async * follow (from: number, idle: number, signal: AbortSignal): AsyncGenerator<readonly StoredEntry[]> {
    const stop = AbortSignal.any([signal, this.#closing.signal])
    if (this.#followers++ === 0) this.#look()
    try {
      for (let next = from, due = performance.now() + idle; !stop.aborted;) {
        const known = this.#next
        const page = await this.#from(next)
        const last = page.at(-1)
        // What came while it was asked for would not be told again.
        if (last === undefined && (stop.aborted || known !== this.#next || await this.#hears(due - performance.now(), stop))) continue
        if (last !== undefined) next = last.seq + 1
        yield page
        due = performance.now() + idle
      }
    } finally {
      if (--this.#followers === 0) this.#rest()
    }
  }

  /** Ends what follows. */
  async close (): Promise<void> {
    this.#closing.abort()
    this.#rest()
    await this.#looking
  }

  async #from (seq: number): Promise<readonly StoredEntry[]> {
    const [first] = this.#recent
    if (first !== undefined && seq >= first.seq) {
      if (this.#page?.from !== seq || this.#page.recent !== this.#recent) {
        this.#page = { from: seq, recent: this.#recent, entries: this.#recent.filter(entry => entry.seq >= seq).slice(0, PAGE) }
      }
      return this.#page.entries
    }
    if (this.#next !== null && seq >= this.#next) return []
    const page = await this.#ledger.entries(seq, seq + PAGE)
    // Where the contents of all of these were dropped, those after them come.
    return page.length > 0 ? page : await this.#ledger.find({}, { limit: PAGE, order: 'oldest', after: seq - 1 })
  }

  /** @returns whether there may be something new; false after a time without */
  async #hears (ms: number, stop: AbortSignal): Promise<boolean> {
    return await new Promise(resolve => {
      const hear = (): void => done(true)
      const timer = setTimeout(() => done(false), ms)
      const done = (heard: boolean): void => {
        clearTimeout(timer)
        this.#waiting.delete(hear)
        stop.removeEventListener('abort', hear)
        resolve(heard)
      }
      this.#waiting.add(hear)
      stop.addEventListener('abort', hear)
    })
  }

  #tell (): void {
    for (const hear of this.#waiting) hear()
  }

  #look (): void {
    this.#again = true
    this.#looking ??= this.#lookAll().catch(this.#failed).finally(() => {
      this.#looking = null
      if (this.#followers > 0 && !this.#closing.signal.aborted) this.#timer = setTimeout(() => this.#look(), LOOK)
    })
  }

  async #lookAll (): Promise<void> {
    clearTimeout(this.#timer)
    while (this.#again) {
      this.#again = false
      if (this.#next === null) {
        const { size } = await this.#ledger.head()
        if (this.#followers === 0) return
        this.#next = size
        this.#tell() // who found nothing may have asked before these came
      }
      const page = await this.#ledger.entries(this.#next, this.#next + PAGE)
      const last = page.at(-1)
      if (last === undefined || this.#next === null) continue // it may rest since
      this.#recent = [...this.#recent, ...page].slice(-REMEMBERED)
      this.#next = last.seq + 1
      this.#again ||= page.length === PAGE
      this.#tell()
    }
  }

  #rest (): void {
    clearTimeout(this.#timer)
    this.#recent = []
    this.#page = null
    this.#next = null
  }
}
