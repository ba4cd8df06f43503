import { leafIndexOf, parseLeaf } from './entry.ts'
import type { Ledger, StoredEntry } from './ledger.ts'
import { TILE } from './tree/index.ts'
import { lineOf, verifyLog, type LogRecord, type LogVerdict, type VerifyLogOptions } from './verify/index.ts'

/**
 * Walks a log where it lies, in flat memory, and needs no server of it: what is wrong first, and where. It is only read.
 *
 * @throws {TypeError} where one of `vkeys` is none; `FST_AUDIT_UNAVAILABLE`
 * @example
 * const verdict = await verifyLedger(sqlLedger(pool), { vkeys: ['example.com/audit+1a2b3c4d+AV…'], origin: 'example.com/audit' })
 */
export async function verifyLedger (ledger: Ledger, options: VerifyLogOptions): Promise<LogVerdict> {
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
    while (at < size) {
      const to = Math.min(size, at - at % TILE + TILE)
      yield * stretchOf(ledger, at, to, since, misfiled)
      at = to
      for (; !next.done && next.value.size <= at; next = await checkpoints.next()) yield { kind: 'checkpoint', note: next.value.note }
    }
    // Where more was signed meanwhile, the log has grown.
    if (next.done) return
  }
  for (; !next.done; next = await checkpoints.next()) yield { kind: 'checkpoint', note: next.value.note }
}

/** Entries of one tile, and the hashes that were stored of them. */
async function * stretchOf (ledger: Ledger, from: number, to: number, since: number, misfiled: { seq: number | null }): AsyncGenerator<LogRecord> {
  const entries = await ledger.entries(from, to)
  for (const entry of entries) {
    if (entry.seq < since) continue
    if (!isFiled(entry)) misfiled.seq ??= entry.seq
    yield { kind: 'entry', seq: entry.seq, leaf: entry.leaf }
  }
  const start = from - from % TILE
  const [tile] = to % TILE === 0 ? await ledger.tiles([{ level: 0, index: start / TILE }]) : []
  if (tile !== undefined) yield { kind: 'hashes', from: start, hashes: tile }
  // Of the last tile, which is not complete, the entries have them.
  else if (entries.every(({ seq }, index) => seq === from + index)) yield { kind: 'hashes', from, hashes: Buffer.concat(entries.map(({ hash }) => hash)) }
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

function isFiled (entry: StoredEntry): boolean {
  try {
    const index = Object.entries(leafIndexOf(parseLeaf(entry.leaf)))
    return index.every(([key, value]) => entry[key as keyof StoredEntry] === value) // keys of the index
  } catch {
    return true // verifyLog says what is wrong with it
  }
}
