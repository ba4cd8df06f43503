import { setImmediate } from 'node:timers/promises'
import { HASH, leafHash } from './merkle.ts'
import { openNote, readCheckpoint } from './note.ts'
import type { EntryRecord, HashesRecord, LogRecord } from './records.ts'
import { Roots, TILE } from './roots.ts'

/** What is wrong with a log. */
export type Tampering = 'edited' | 'deleted' | 'swapped' | 'inserted' | 'truncated' | 'forked' | 're-signed' | 'unreadable'

export type LogVerdict =
  | { ok: true, size: number, /** base64 */ root: string, /** that agree */ checkpoints: number, /** entries whose contents were dropped */ pruned: number }
  | { ok: false, /** the first that is wrong, as near as can be told */ index: number | null, what: Tampering, message: string }

export interface VerifyLogOptions {
  /** Public keys of the log that are trusted. */
  vkeys: readonly string[]
  /** Which log it has to be. */
  origin?: string
  /** Contents before this `seq` are not looked at; their hashes are needed. */
  since?: number
  /** Checkpoints that were kept elsewhere: only against these truncation, and a rewrite of everything, show. */
  outside?: readonly string[]
  /** Is told up to where it has looked, now and then. */
  onProgress?: (seq: number) => void
}

/** Entries after which others get their turn. */
const SLICE = 4096

/**
 * Walks a log, in flat memory.
 *
 * @returns what is wrong first; never rejects for what is in the log
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
    return walk.end()
  } catch (error) {
    if (error instanceof Fault) return { ok: false, index: error.index, what: error.what, message: error.message }
    throw error
  }
}

class Fault extends Error {
  readonly what: Tampering
  readonly index: number | null

  constructor (what: Tampering, index: number | null, message: string) {
    super(message)
    this.what = what
    this.index = index
  }
}

/** An entry where it lies. */
interface Lying {
  seq: number
  /** What it says itself. */
  own: number | null
  hash: Buffer
  /** Up to where it says that contents were pruned. */
  pruned: number
}

interface Expected {
  note: string
  root: Buffer
  outside: boolean
}

class Walk {
  readonly #options: VerifyLogOptions
  readonly #roots = new Roots()
  /** Entries of the tile that is under way. */
  #lying: Lying[] = []
  /** Checkpoints of sizes that are not reached yet. */
  readonly #expected = new Map<number, Expected[]>()
  /** Size of the last checkpoint that agreed. */
  #agreed = 0
  #checkpoints = 0
  /** From 0 on there are only hashes of these. */
  #pruned = 0
  /** Up to where entries say that contents were pruned. */
  #prunedSaid = 0
  /** Up to where what is here agrees with the hashes that were stored of it. */
  #hashedTo = 0

  constructor (options: VerifyLogOptions) {
    this.#options = options
  }

  get size (): number {
    return this.#roots.size
  }

  take (record: LogRecord): void {
    switch (record.kind) {
      case 'entry': return this.#takeEntry(record)
      case 'hashes': return this.#takeHashes(record)
      case 'checkpoint':
        this.#settle()
        return this.takeCheckpoint(record.note, false)
    }
  }

  takeCheckpoint (note: string, outside: boolean): void {
    const body = readCheckpoint(note)
    const which = `the checkpoint ${outside ? 'that was kept elsewhere' : 'in the log'}`
    if (body === null) throw new Fault('unreadable', null, `${which} is none`)
    const { origin, size, root } = body
    if (openNote(note, this.#options.vkeys) === null) throw new Fault('re-signed', this.#agreed, `${which} of size ${size} is not signed by a trusted key`)
    if (this.#options.origin !== undefined && origin !== this.#options.origin) throw new Fault('forked', null, `${which} is of another log, ${origin}`)
    const expected: Expected = { note, root, outside }
    if (size <= this.size) this.#compare(size, expected)
    else this.#expected.set(size, [...this.#expected.get(size) ?? [], expected])
  }

  end (): LogVerdict {
    this.#settle()
    const [ahead] = [...this.#expected.keys()].sort((a, b) => a - b)
    if (ahead !== undefined) throw new Fault('truncated', this.size, `the log has ${this.size} entries, where ${ahead} were signed`)
    if (this.#pruned > this.#prunedSaid) throw new Fault('deleted', this.#prunedSaid, `contents before ${this.#pruned} are gone, and no entry says that they were pruned`)
    this.#options.onProgress?.(this.size)
    return { ok: true, size: this.size, root: this.#roots.root().toString('base64'), checkpoints: this.#checkpoints, pruned: this.#pruned }
  }

  #takeEntry ({ seq, leaf }: EntryRecord): void {
    const [first] = this.#lying
    if (first !== undefined && Math.floor(seq / TILE) > Math.floor(first.seq / TILE)) this.#settle()
    const { seq: own = null, type, data } = parsed(leaf)
    const pruned = type === 'audit.prune' && typeof data?.before === 'number' ? data.before : 0
    this.#lying.push({ seq, own: typeof own === 'number' ? own : null, hash: leafHash(leaf), pruned })
  }

  /** Compares what is here with what was stored of it; where only hashes are here, contents were dropped, or are not to be looked at. */
  #takeHashes ({ from, hashes }: HashesRecord): void {
    if (hashes.length % HASH > 0) throw new Fault('unreadable', from, 'hashes are of 32 bytes')
    const stored = Array.from({ length: hashes.length / HASH }, (_, index) => hashes.subarray(index * HASH, (index + 1) * HASH))
    const here = new Map(this.#lying.map(lying => [lying.seq, lying]))
    const hashAt = (seq: number): Uint8Array | undefined => here.get(seq)?.hash ?? this.#roots.hashAt(seq)
    for (const [index, hash] of stored.entries()) {
      const seq = from + index
      const known = hashAt(seq)
      if (known === undefined) this.#takeHash(seq, hash)
      else if (Buffer.compare(known, hash) !== 0) throw this.#differing(seq, { from, stored, hashAt })
    }
    this.#settle()
    if (from <= this.#hashedTo) this.#hashedTo = Math.max(this.#hashedTo, from + stored.length)
  }

  /** Only its hash is there. */
  #takeHash (seq: number, hash: Uint8Array): void {
    const skipped = seq < (this.#options.since ?? 0)
    if (seq !== this.size || !(skipped || seq === this.#pruned)) throw new Fault('deleted', seq, `entry ${seq} is not there`)
    if (!skipped) this.#pruned = seq + 1
    else if (this.#pruned === seq) this.#pruned = 0
    this.#append(hash)
  }

  #differing (seq: number, { from, stored, hashAt }: { from: number, stored: readonly Uint8Array[], hashAt: (seq: number) => Uint8Array | undefined }): Fault {
    const isStoredAt = (hash: Uint8Array | undefined, place: number): boolean => hash !== undefined && stored[place - from] !== undefined && Buffer.compare(hash, stored[place - from] as Uint8Array) === 0
    const elsewhere = stored.findIndex((_, index) => index + from !== seq && isStoredAt(hashAt(seq), from + index))
    if (elsewhere >= 0 && isStoredAt(hashAt(from + elsewhere), seq)) return new Fault('swapped', seq, `entries ${seq} and ${from + elsewhere} have changed places`)
    if (isStoredAt(hashAt(seq + 1), seq)) return new Fault('inserted', seq, `entry ${seq} was put in, and those after it moved`)
    if (isStoredAt(hashAt(seq), seq + 1)) return new Fault('deleted', seq, `entry ${seq} is not there, and those after it moved`)
    return new Fault('edited', seq, `entry ${seq} is not what was recorded`)
  }

  /** Appends what lies here, if it lies in order. */
  #settle (): void {
    const lying = this.#lying
    this.#lying = []
    for (const [index, { seq, own, hash, pruned }] of lying.entries()) {
      const next = this.size
      if (own === null) throw new Fault('unreadable', seq, `entry ${seq} is no entry`)
      if (seq < next) throw new Fault('inserted', seq, `entry ${seq} is there twice`)
      if (seq > next) {
        const later = lying.slice(index).some(other => other.seq === next)
        throw later ? new Fault('swapped', next, `entry ${next} comes after ${seq}`) : new Fault('deleted', next, `entry ${next} is not there`)
      }
      if (own !== seq) throw this.#misplaced(seq, own, lying[index + 1]?.own)
      this.#prunedSaid = Math.max(this.#prunedSaid, pruned)
      this.#append(hash)
    }
  }

  #misplaced (seq: number, own: number, nextOwn: number | null | undefined): Fault {
    if (own < seq) return new Fault('inserted', seq, `where entry ${seq} should be lies ${own}`)
    if (own === seq + 1 && nextOwn !== seq) return new Fault('deleted', seq, `entry ${seq} is not there: where it should be lies ${own}`)
    return new Fault('swapped', seq, `where entry ${seq} should be lies ${own}`)
  }

  #append (hash: Uint8Array): void {
    this.#roots.append(hash)
    const { size } = this
    const expected = this.#expected.get(size)
    if (expected === undefined) return
    this.#expected.delete(size)
    for (const each of expected) this.#compare(size, each)
  }

  #compare (size: number, { root, outside }: Expected): void {
    const own = this.#roots.rootAt(size)
    if (own === null) throw new Fault('unreadable', size, `the checkpoint of size ${size} comes too late`)
    if (own.equals(root)) {
      this.#checkpoints++
      this.#agreed = Math.max(this.#agreed, size)
      return
    }
    const range = `something from ${this.#agreed} to ${size - 1} is not what was signed`
    if (!outside && this.#hashedTo < size) throw new Fault('edited', this.#agreed, range)
    throw new Fault('forked', this.#agreed, `${range}: the log was written anew`)
  }
}

interface Parsed {
  seq?: unknown
  type?: unknown
  data?: { before?: unknown } | null
}

function parsed (leaf: string): Parsed {
  try {
    const value: unknown = JSON.parse(leaf)
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}
