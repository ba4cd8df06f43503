import { leafIndexOf, parseLeaf, type Leaf } from './entry.ts'
import type { Ledger, StoredEntry } from './ledger.ts'
import { TILE } from './tree/index.ts'
import { lineOf, verifyLog, type LogRecord, type LogVerdict, type VerifyLogOptions } from './verify/index.ts'

/** Tiles that are read at once. */
const TILES = 3

/**
 * Walks a log where it lies, in flat memory, and needs no server of it: what is wrong first, and where. It is only read.
 *
 * @throws {TypeError} where one of `vkeys` is none; `FST_AUDIT_UNAVAILABLE`
 * @example
 * const verdict = await verifyLedger(sqlLedger(pool), { vkeys: ['example.com/audit+1a2b3c4d+AV…'], origin: 'example.com/audit' })
 */
export async function verifyLedger (ledger: Ledger, options: VerifyLogOptions): Promise<LogVerdict> {
  const first = await firstOf(ledger)
  const verdict = await verifyOnce(ledger, options)
  if (verdict.ok || await firstOf(ledger) === first) return verdict
  // Contents were pruned meanwhile.
  return await verifyLedger(ledger, options)
}

async function firstOf (ledger: Ledger): Promise<number | null> {
  return (await ledger.find({}, { limit: 1, order: 'oldest' }))[0]?.seq ?? null
}

async function verifyOnce (ledger: Ledger, options: VerifyLogOptions): Promise<LogVerdict> {
  const misfiled: { seq: number | null } = { seq: null }
  const verdict = await verifyLog(recordsIn(ledger, options.since ?? 0, misfiled), options)
  const { seq } = misfiled
  if (seq === null || (!verdict.ok && verdict.index !== null && verdict.index <= seq)) return verdict
  return { ok: false, index: seq, what: 'edited', message: `entry ${seq} is filed as something else than its leaf says` }
}

/** A log as lines (NDJSON), for `verifyLog` anywhere. What is sealed stays sealed. */
export async function * linesOf (ledger: Ledger, origin: string): AsyncGenerator<string> {
  yield JSON.stringify({ log: origin, version: 1 })
  for await (const record of recordsIn(ledger, 0, { seq: null })) yield lineOf(record)
}

async function * recordsIn (ledger: Ledger, since: number, misfiled: { seq: number | null }): AsyncGenerator<LogRecord> {
  const checkpoints = checkpointsIn(ledger)
  let next = await checkpoints.next()
  let at = 0
  for (let { size } = await ledger.head(); at < size; { size } = await ledger.head()) {
    for await (const { entries, hashes, to } of tilesIn(ledger, at, size, since)) {
      for (const entry of entries) {
        if (entry.seq < since) continue
        const value = parsed(entry.leaf)
        if (!isFiled(entry, value)) misfiled.seq ??= entry.seq
        yield { kind: 'entry', seq: entry.seq, leaf: entry.leaf, value }
      }
      if (hashes !== null) yield { kind: 'hashes', ...hashes }
      at = to
      for (; !next.done && next.value.size <= at; next = await checkpoints.next()) yield { kind: 'checkpoint', note: next.value.note }
    }
    // Where more was signed meanwhile, the log has grown.
    if (next.done) return
  }
  for (; !next.done; next = await checkpoints.next()) yield { kind: 'checkpoint', note: next.value.note }
}

/** Entries of a tile, and the hashes that were stored of them. */
interface Stretch {
  entries: readonly StoredEntry[]
  hashes: { from: number, hashes: Uint8Array } | null
  /** exclusive */
  to: number
}

/** Tile by tile; while some are looked at, the next ones are read. */
async function * tilesIn (ledger: Ledger, from: number, size: number, since: number): AsyncGenerator<Stretch> {
  const endOf = (start: number): number => Math.min(size, (Math.floor(start / TILE) + TILES) * TILE)
  const begin = (start: number): Promise<Stretch[]> => {
    const reading = read(ledger, start, endOf(start), since)
    reading.catch(() => {}) // told when it is its turn
    return reading
  }
  let next = begin(from)
  for (let start = from; start < size; start = endOf(start)) {
    const stretches = await next
    if (endOf(start) < size) next = begin(endOf(start))
    yield * stretches
  }
}

async function read (ledger: Ledger, from: number, to: number, since: number): Promise<Stretch[]> {
  const first = Math.floor(from / TILE)
  const complete = Array.from({ length: Math.floor(to / TILE) - first }, (_, index) => ({ level: 0, index: first + index }))
  const isBefore = to <= since && to % TILE === 0
  const [entries, tiles] = await Promise.all([isBefore ? [] : ledger.entries(from, to), ledger.tiles(complete)])
  const stretches: Stretch[] = []
  for (let start = from, index = 0; start < to; index++) {
    const end = Math.min(to, (first + index + 1) * TILE)
    const own = entries.filter(({ seq }) => seq >= start && seq < end)
    stretches.push({ entries: own, hashes: hashesOf(own, start, tiles[index]), to: end })
    start = end
  }
  return stretches
}

function hashesOf (entries: readonly StoredEntry[], from: number, tile: Uint8Array | undefined): Stretch['hashes'] {
  if (tile !== undefined) return { from: from - from % TILE, hashes: tile }
  // Of the last tile, which is not complete, the entries have them.
  const inOrder = entries.every(({ seq }, index) => seq === from + index)
  return inOrder ? { from, hashes: Buffer.concat(entries.map(({ hash }) => hash)) } : null
}

async function * checkpointsIn (ledger: Ledger): AsyncGenerator<{ size: number, note: string }> {
  let after = 0
  for (let page = await ledger.checkpointsAfter(after, 500); page.length > 0; page = await ledger.checkpointsAfter(after, 500)) {
    for (const checkpoint of page) {
      after = checkpoint.size
      yield checkpoint
    }
  }
}

function parsed (leaf: string): unknown {
  try {
    return parseLeaf(leaf)
  } catch {
    return {} // no entry: verifyLog says so
  }
}

function isFiled (entry: StoredEntry, value: unknown): boolean {
  try {
    const index = Object.entries(leafIndexOf(value as Leaf)) // where it is none, what is read of it throws
    return index.every(([key, value]) => entry[key as keyof StoredEntry] === value) // keys of the index
  } catch {
    return true // verifyLog says what is wrong with it
  }
}
