import { setTimeout as pause } from 'node:timers/promises'
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
  /** By the clock of the process, ms. */
  readonly since: number
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
  #turn: Promise<void> = Promise.resolve()
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
    const [first] = this.#waiting
    return { waiting: this.#waiting.size, lag: first === undefined ? 0 : performance.now() - first.since, refused: this.#refused, size: this.#size }
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
      this.#groups.add(this.#wait({ draft, patient, done: resolve, giveUp: reject }))
    })
  }

  /** Resolves when nothing waits. */
  async flush (): Promise<void> {
    await this.#groups.flush()
  }

  /**
   * Stores an entry after those that wait, and does something in the same step.
   *
   * @throws {LedgerUnavailable} where it was given up after `timeout`, and may have been done all the same
   */
  recordDeed (draft: Draft, deed: Deed): Promise<StoredEntry> {
    if (this.#closing.signal.aborted) return Promise.reject(new LedgerUnavailable('it is closed'))
    return new Promise((resolve, reject) => {
      const waiting = this.#wait({ draft, patient: false, done: resolve, giveUp: reject })
      this.#groups.flush().then(async () => await this.#write({ group: [waiting], batch: null }, () => {}, deed))
    })
  }

  /**
   * Stores what waits, for as long as `timeout`; what waits then is given up.
   *
   * @returns how many that were
   */
  async close (): Promise<number> {
    await Promise.race([this.#groups.flush().then(async () => await this.#turn), pause(this.#options.timeout, undefined, { signal: this.#closing.signal }).catch(() => {})])
    clearTimeout(this.#timer)
    this.#closing.abort()
    const left = [...this.#waiting]
    for (const waiting of left) {
      this.#settle(waiting)
      waiting.giveUp(new LedgerUnavailable('it is closed'))
    }
    return left.length
  }

  #wait ({ patient, ...rest }: Pick<Waiting, 'draft' | 'done' | 'giveUp'> & { patient: boolean }): Waiting {
    const since = performance.now()
    const waiting = { ...rest, since, due: patient ? Infinity : since + this.#options.timeout }
    this.#waiting.add(waiting)
    if (!patient) {
      this.#impatient.add(waiting)
      this.#timer ??= setTimeout(() => this.#giveUpLate(), this.#options.timeout)
    }
    return waiting
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

  /** One after the other, each until it is done or given up, so that what was stored is told in order. */
  async #write (prepared: Prepared, sent: () => void, deed: Deed = {}): Promise<void> {
    this.#turn = this.#turn.then(async () => await this.#writeNow(prepared, sent, deed))
    await this.#turn
  }

  async #writeNow ({ group, batch: prepared }: Prepared, sent: () => void, deed: Deed): Promise<void> {
    // Where an answer was lost, what it may have stored lies here.
    let lost: Stretch | null = null
    for (let [left, wait] = [group, PAUSE.first]; ; wait = Math.min(wait * 2, PAUSE.longest)) {
      left = left.filter(waiting => this.#waiting.has(waiting))
      if (left.length === 0) return
      let batch = left.length === group.length && wait === PAUSE.first ? prepared : null
      try {
        batch ??= await this.#sealed(left)
        const entries = await this.#append(batch, lost, deed, sent)
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
    let found = false
    for (const waiting of group) {
      const fault = await this.#keys.of(holdersOf(waiting.draft)).then(() => null, (error: unknown) => error)
      if (!(fault instanceof KeyCorrupt)) continue
      found = true
      this.#refused++
      this.#settle(waiting)
      waiting.giveUp(fault)
    }
    return found
  }

  /** @returns the entries, in the order of the batch */
  async #append (batch: Batch, lost: Stretch | null, deed: Deed, sent: () => void): Promise<readonly StoredEntry[]> {
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
