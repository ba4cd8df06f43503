import { setTimeout as pause } from 'node:timers/promises'
import { within } from '../token-registry/index.ts'
import { Batch, type Deed, type Stretch } from './batch.ts'
import type { Draft } from './entry.ts'
import { KeyCorrupt, LedgerUnavailable } from './errors.ts'
import { Groups, type Gathering } from './gathering.ts'
import type { Head, Ledger, StoredEntry } from './ledger.ts'
import type { HolderKeys } from './privacy/keys.ts'
import { holdersOf } from './privacy/sealing.ts'
import type { TreeAppender } from './tree/index.ts'

/** ms before the second attempt; twice as long before each further one, half of it at random. */
const PAUSE = { first: 50, longest: 2000 }

export interface LogOptions {
  gathering: Gathering
  /** Entries that may wait. */
  maxQueue: number
  /** ms that who cannot wait for ever waits */
  timeout: number
  /** Is told what was stored, in order, and what the log is since. */
  stored: (entries: readonly StoredEntry[], head: Head) => void
  /** Is told why entries wait. */
  failed: (error: unknown) => void
}

/** An entry that waits to be stored. */
interface Waiting {
  readonly draft: Draft
  /** By the clock of the process, ms; Infinity where it waits until the log is closed. */
  readonly due: number
  done: (entry: StoredEntry) => void
  giveUp: (error: unknown) => void
}

/** A group that is about to be written: sealed already, where that was possible. */
interface Prepared {
  group: readonly Waiting[]
  batch: Batch | null
}

/** Appends entries in groups, each in one atomic step of the ledger. */
export class AuditLog {
  readonly #ledger: Ledger
  readonly #keys: HolderKeys
  readonly #options: LogOptions
  readonly #groups: Groups<Waiting, Prepared>
  readonly #closing = new AbortController()
  readonly #waiting = new Set<Waiting>()
  /** Those that have a deadline: the first one first. */
  readonly #impatient = new Set<Waiting>()
  #timer: NodeJS.Timeout | undefined
  /** How often keys had been destroyed before any was read that is remembered. */
  #erasures = 0
  /** Entries that the log has at least. */
  #size = 0
  #tree: TreeAppender | null = null
  #appending: Promise<unknown> = Promise.resolve()
  #refused = 0

  constructor (ledger: Ledger, keys: HolderKeys, options: LogOptions) {
    this.#ledger = ledger
    this.#keys = keys
    this.#options = options
    this.#groups = new Groups(options.gathering, async group => await this.#prepare(group), async (prepared, sent) => await this.#write(prepared, sent))
  }

  /** To be called before all else. */
  async open (): Promise<void> {
    const { erasures, size } = await this.#ledger.head()
    this.#erasures = erasures
    this.#size = size
  }

  get figures () {
    return { waiting: this.#waiting.size, refused: this.#refused, size: this.#size }
  }

  /**
   * Stores an entry.
   *
   * @param options `patient`: waits until the log is closed, else for `timeout`; `urgent`: however many wait
   * @throws {LedgerUnavailable} where it was given up, and may have been stored all the same; at once where too many wait
   */
  record (draft: Draft, { patient, urgent = false }: { patient: boolean, urgent?: boolean }): Promise<StoredEntry> {
    const closed = this.#closing.signal.aborted
    if (closed || (this.#waiting.size >= this.#options.maxQueue && !urgent)) {
      this.#refused++
      return Promise.reject(new LedgerUnavailable(closed ? 'it is closed' : `${this.#waiting.size} entries wait`))
    }
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { draft, due: patient ? Infinity : performance.now() + this.#options.timeout, done: resolve, giveUp: reject }
      this.#waiting.add(waiting)
      this.#groups.add(waiting)
      if (patient) return
      this.#impatient.add(waiting)
      this.#timer ??= setTimeout(() => this.#giveUpLate(), this.#options.timeout)
    })
  }

  /** Resolves when nothing waits. */
  async flush (): Promise<void> {
    await this.#groups.flush()
  }

  /** Stores an entry after those that wait, and does something in the same step. */
  async recordDeed (draft: Draft, deed: Deed): Promise<StoredEntry> {
    await within(this.#groups.flush(), this.#options.timeout, () => new LedgerUnavailable('entries before it wait'))
    const [entry] = await this.#append(await Batch.seal([draft], this.#keys, this.#erasures), null, deed)
    return entry as StoredEntry // one was given
  }

  /**
   * Stores what waits, for as long as `timeout`; what waits then is given up.
   *
   * @returns how many that were
   */
  async close (): Promise<number> {
    await Promise.race([this.#groups.flush(), pause(this.#options.timeout, undefined, { signal: this.#closing.signal }).catch(() => {})])
    clearTimeout(this.#timer)
    this.#closing.abort()
    const left = [...this.#waiting]
    for (const waiting of left) {
      this.#settle(waiting)
      waiting.giveUp(new LedgerUnavailable('it is closed'))
    }
    return left.length
  }

  #giveUpLate (): void {
    const now = performance.now()
    this.#timer = undefined
    for (const waiting of this.#impatient) {
      if (waiting.due > now) {
        this.#timer = setTimeout(() => this.#giveUpLate(), Math.ceil(waiting.due - now))
        break
      }
      this.#settle(waiting)
      waiting.giveUp(new LedgerUnavailable(`it did not answer within ${this.#options.timeout} ms`))
    }
    // Now and then: what nobody waits for any more must not pile up.
    if (this.#groups.size > 2 * this.#waiting.size) this.#groups.drop(waiting => !this.#waiting.has(waiting))
  }

  #settle (waiting: Waiting): void {
    this.#waiting.delete(waiting)
    this.#impatient.delete(waiting)
  }

  async #prepare (group: readonly Waiting[]): Promise<Prepared> {
    const left = group.filter(waiting => this.#waiting.has(waiting))
    // Without keys it is tried again when it is its turn.
    return { group: left, batch: await this.#sealed(left).catch(() => null) }
  }

  async #sealed (group: readonly Waiting[]): Promise<Batch> {
    return await Batch.seal(group.map(({ draft }) => draft), this.#keys, this.#erasures)
  }

  async #write ({ group, batch: prepared }: Prepared, sent: () => void): Promise<void> {
    // Where an answer was lost, what it may have stored lies here.
    let lost: Stretch | null = null
    for (let [left, wait] = [group, PAUSE.first]; ; wait = Math.min(wait * 2, PAUSE.longest)) {
      left = left.filter(waiting => this.#waiting.has(waiting))
      if (left.length === 0) return
      let batch = left.length === group.length && wait === PAUSE.first ? prepared : null
      try {
        batch ??= await this.#sealed(left)
        const entries = await this.#append(batch, lost, {}, sent)
        for (const [index, waiting] of left.entries()) {
          this.#settle(waiting)
          waiting.done(entries[index] as StoredEntry) // one for each
        }
        return
      } catch (error) {
        if (wait === PAUSE.first) this.#options.failed(error)
        lost = batch?.planned ?? lost
        if (error instanceof KeyCorrupt && await this.#giveUpCorrupt(left)) continue
      }
      await pause(wait * (0.5 + Math.random() / 2), undefined, { signal: this.#closing.signal }).catch(() => {})
    }
  }

  /** Those whose keys cannot be opened must not keep others waiting. @returns whether there were some */
  async #giveUpCorrupt (group: readonly Waiting[]): Promise<boolean> {
    const faults = await Promise.all(group.map(async ({ draft }) => await this.#keys.of(holdersOf(draft)).then(() => null, (error: unknown) => error)))
    const corrupt = group.filter((_, index) => faults[index] instanceof KeyCorrupt)
    for (const waiting of corrupt) {
      this.#settle(waiting)
      this.#refused++
      waiting.giveUp(faults[group.indexOf(waiting)])
    }
    return corrupt.length > 0
  }

  /** One after the other, so that what was stored is told in order. @returns the entries, in the order of the batch */
  #append (batch: Batch, lost: Stretch | null, deed: Deed, sent?: () => void): Promise<readonly StoredEntry[]> {
    const appending = this.#appending.then(async () => await this.#appendNow(batch, lost, deed, sent))
    this.#appending = appending.catch(() => {})
    return appending
  }

  async #appendNow (batch: Batch, lost: Stretch | null, deed: Deed, sent = (): void => {}): Promise<readonly StoredEntry[]> {
    const appended = await this.#ledger.append(async turn => {
      setImmediate(sent)
      return await batch.plan(turn, lost, this.#tree, deed)
    })
    // Where an earlier step stored them, nobody has been told.
    const { entries, head } = appended ?? { entries: batch.entries, head: await this.#ledger.head() }
    this.#tree = batch.tree
    this.#size = Math.max(this.#size, head.size)
    if (head.erasures !== this.#erasures) {
      this.#erasures = head.erasures
      this.#keys.forget()
    }
    this.#options.stored(entries, head)
    return batch.entries
  }
}
