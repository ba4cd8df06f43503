import { setImmediate } from 'node:timers/promises'
import { Checkpoints, type CheckpointsOptions } from './checkpoints.ts'
import { displaced, Fault, type Tampering } from './fault.ts'
import { HASH, leafHash } from './merkle.ts'
import type { EntryRecord, HashesRecord, LogRecord } from './records.ts'
import { Roots, TILE } from './roots.ts'

export type LogVerdict =
  | { ok: true, size: number, /** base64 */ root: string, /** up to which trusted keys signed it: what comes after anybody may have written; 0 where nobody did */ signed: number, /** that agree */ checkpoints: number, /** entries whose contents were dropped */ pruned: number }
  | { ok: false, /** the first that is wrong, as near as can be told */ index: number | null, what: Tampering, message: string }

export interface VerifyLogOptions extends CheckpointsOptions {
  /** Contents before this `seq` may be missing; their hashes are needed. */
  since?: number
  /** Checkpoints that were kept elsewhere: only against these truncation, and a rewrite of everything, show. */
  outside?: readonly string[]
  /** Is told up to where it has looked, now and then. */
  onProgress?: (seq: number) => void
}

/** Records after which others get their turn: some milliseconds. */
const SLICE = 1024
/** Entries that wait for the hashes that were stored of them; more are out of order. */
const MOST = 2 * TILE
/** Entries by which is told what was done where one is out of place: itself, and two after it. */
const TELLING = 3

/**
 * Walks a log, in flat memory.
 *
 * @returns what is wrong first; never rejects for what is in the log
 * @throws {TypeError} where one of `vkeys` is none; what `records` throws
 * @example
 * const lines = createInterface({ input: createReadStream('log.ndjson') })
 * const verdict = await verifyLog(recordsOf(lines), { vkeys: ['example.com/audit+1a2b3c4d+AV…'] })
 */
export async function verifyLog (records: AsyncIterable<LogRecord>, options: VerifyLogOptions): Promise<LogVerdict> {
  const walk = new Walk(options)
  let looked = 0
  try {
    for (const note of options.outside ?? []) walk.takeCheckpoint(note, true)
    for await (const record of records) {
      walk.take(record)
      if (++looked % SLICE > 0) continue
      options.onProgress?.(walk.size)
      await setImmediate()
    }
    const verdict = walk.end()
    options.onProgress?.(walk.size)
    return verdict
  } catch (error) {
    if (error instanceof Fault) return { ok: false, index: error.index, what: error.what, message: error.message }
    throw error
  }
}

/** An entry where it lies. */
interface Lying {
  seq: number
  /** What it says itself; undefined where it is no entry. */
  own: number | undefined
  hash: Buffer
  /** Up to where it says that contents were pruned. */
  pruned: number
}

class Walk {
  readonly #roots = new Roots()
  readonly #checkpoints: Checkpoints
  readonly #since: number
  /** Entries that are not in the tree yet: they wait for their hashes. */
  #lying: Lying[] = []
  /** Of so many, from 0 on, there are only hashes. */
  #bare = 0
  /** Up to where entries say that contents were pruned. */
  #prunedSaid = 0
  /** Up to where what is here agrees with the hashes that were stored of it. */
  #recorded = 0

  constructor ({ since = 0, ...options }: VerifyLogOptions) {
    this.#checkpoints = new Checkpoints(this.#roots, options)
    this.#since = since
  }

  get size (): number {
    return this.#roots.size
  }

  take (record: LogRecord): void {
    switch (record.kind) {
      case 'entry': return this.#takeEntry(record)
      case 'hashes': return this.#takeHashes(record)
      case 'checkpoint': return this.takeCheckpoint(record.note, false)
    }
  }

  takeCheckpoint (note: string, outside: boolean): void {
    this.#checkpoints.take(note, outside, this.#recorded)
  }

  end (): LogVerdict {
    this.#settle(true)
    const { ahead, agreed, count } = this.#checkpoints
    if (ahead !== null) throw new Fault('truncated', this.size, `the log has ${this.size} entries, where ${ahead} were signed`)
    const pruned = this.#bare > this.#since ? this.#bare : 0
    if (pruned > this.#prunedSaid) throw new Fault('deleted', this.#prunedSaid, `contents before ${pruned} are gone, and no entry says that they were pruned`)
    return { ok: true, size: this.size, root: this.#roots.root().toString('base64'), signed: agreed, checkpoints: count, pruned }
  }

  #takeEntry ({ seq, leaf, value }: EntryRecord): void {
    const [first] = this.#lying
    if (first !== undefined && (tileOf(seq) > tileOf(first.seq) || this.#lying.length === MOST)) this.#settle()
    this.#lying.push({ seq, hash: leafHash(leaf), ...saidBy(leaf, value) })
  }

  /** Compares what is here with what was stored of it; where only hashes are here, contents were dropped, or are not to be looked at. */
  #takeHashes ({ from, hashes }: HashesRecord): void {
    if (!Number.isSafeInteger(from) || from < 0 || hashes.length % HASH > 0) throw new Fault('unreadable', null, 'hashes are of 32 bytes each, and from an entry on')
    const here = new Map(this.#lying.toReversed().map(lying => [lying.seq, lying])) // of two the first
    const end = from + hashes.length / HASH
    for (let seq = from; seq < end; seq++) {
      const stored = hashes.subarray((seq - from) * HASH, (seq - from + 1) * HASH)
      const lying = here.get(seq)
      const known = lying?.hash ?? this.#roots.hashAt(seq)
      if (known === undefined) this.#takeBare(seq, stored)
      else if (Buffer.compare(known, stored) !== 0) {
        // Another entry, and not this one altered, or out of order before it: what follows tells what was done.
        const misplaced = lying !== undefined && (this.#lying[seq - this.size] !== lying || this.#isAnother(lying, from, hashes))
        if (misplaced) return this.#settle()
        throw this.#edited(seq, stored)
      }
    }
    if (from <= this.#recorded) this.#recorded = Math.max(this.#recorded, end)
    this.#settle()
  }

  /** Only its hash is there: right from the first entry to where contents were pruned, or from where they are to be looked at. */
  #takeBare (seq: number, hash: Uint8Array): void {
    if (seq < this.size) throw new Fault('unreadable', seq, `hashes of ${seq} come too late`)
    if (seq !== this.size || seq !== this.#bare) {
      this.#settle()
      throw new Fault('deleted', this.size, `entry ${this.size} is not there`)
    }
    this.#bare++
    this.#append(hash)
  }

  #isAnother ({ seq, own, hash }: Lying, from: number, hashes: Uint8Array): boolean {
    if (own === undefined || own === seq) return false
    const place = (own - from) * HASH
    const stored = place >= 0 && place < hashes.length ? hashes.subarray(place, place + HASH) : this.#roots.hashAt(own)
    return stored === undefined || hash.equals(stored)
  }

  #edited (seq: number, stored: Uint8Array): Fault {
    const moved = this.#lying.some(lying => (lying.seq === seq || lying.seq === seq + 1) && lying.hash.equals(stored))
    return moved ? new Fault('inserted', seq, `entry ${seq} was put in`) : new Fault('edited', seq, `entry ${seq} is not what was recorded`)
  }

  /** Appends what lies here, as far as it lies in order. @param ended nothing comes after it that could tell more */
  #settle (ended = false): void {
    const lying = this.#lying
    let place = 0
    for (; place < lying.length; place++) {
      const entry = lying[place] as Lying // within its length
      if (entry.seq !== this.size || entry.own !== entry.seq) {
        if (!ended && lying.length - place < TELLING) break
        throw this.#outOfPlace(entry, lying[place + 1], lying[place + 2])
      }
      // Before a checkpoint is compared with the one that may be forged.
      if (lying[place + 1]?.seq === entry.seq) throw new Fault('inserted', entry.seq, `entry ${entry.seq} is there twice`)
      this.#prunedSaid = Math.max(this.#prunedSaid, entry.pruned)
      this.#append(entry.hash)
    }
    this.#lying = lying.slice(place)
  }

  #outOfPlace ({ seq, own }: Lying, then: Lying | undefined, after: Lying | undefined): Fault {
    const expected = this.size
    if (own === undefined) return new Fault('unreadable', seq, `entry ${seq} is no entry`)
    // Where the places are those that are expected, the entries themselves say which they are.
    const what = seq === expected ? displaced(expected, own, then?.own, after?.own) : displaced(expected, seq, then?.seq, after?.seq)
    return new Fault(what, expected, `where entry ${expected} should be lies ${seq === expected ? own : seq}`)
  }

  #append (hash: Uint8Array): void {
    this.#roots.append(hash)
    this.#checkpoints.reached(this.size, this.#recorded)
  }
}

function tileOf (seq: number): number {
  return Math.floor(seq / TILE)
}

interface Leaf {
  seq?: unknown
  type?: unknown
  outcome?: unknown
  data?: { before?: unknown } | null
}

function saidBy (leaf: string, value: unknown): Pick<Lying, 'own' | 'pruned'> {
  const { seq, type, outcome, data } = parsedLeaf(leaf, value)
  const own = isSeq(seq) ? seq : undefined
  const before = type === 'audit.prune' && outcome === 'success' ? data?.before : undefined
  // Only what was before it can have been pruned.
  return { own, pruned: own !== undefined && isSeq(before) && before <= own ? before : 0 }
}

function parsedLeaf (leaf: string, value: unknown): Leaf {
  try {
    // Text that is not well-formed has the hash of another one.
    const parsed: unknown = leaf.isWellFormed() ? value ?? JSON.parse(leaf) : null
    return typeof parsed === 'object' && parsed !== null ? parsed : {}
  } catch {
    return {}
  }
}

function isSeq (value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}
