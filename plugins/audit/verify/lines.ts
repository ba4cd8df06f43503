import type { LogRecord } from './records.ts'
import { HASH } from './merkle.ts'

/** A record as a line of an export, without its end. */
export function lineOf (record: LogRecord): string {
  switch (record.kind) {
    case 'entry': return record.leaf
    case 'hashes': return JSON.stringify({ hashes: { from: record.from, sha256: Buffer.from(record.hashes).toString('base64') } })
    case 'checkpoint': return JSON.stringify({ checkpoint: record.note })
  }
}

/** The records of an export, or of files that a sink wrote, from their lines. The first one may be a header, `{"log":…}`. A line that is none of these is an entry that cannot be read. */
export async function * recordsOf (lines: AsyncIterable<string>): AsyncGenerator<LogRecord> {
  let first = true
  let expected = 0
  for await (const line of lines) {
    if (line === '') continue
    const value = parsed(line)
    const isHeader = first && value.log !== undefined
    first = false
    if (isHeader) continue
    if (typeof value.checkpoint === 'string') {
      yield { kind: 'checkpoint', note: value.checkpoint }
    } else if (isHashes(value.hashes)) {
      const { from, sha256 } = value.hashes
      const hashes = Buffer.from(sha256, 'base64')
      expected = Math.max(expected, from + Math.floor(hashes.length / HASH))
      yield { kind: 'hashes', from, hashes }
    } else {
      const seq = isSeq(value.seq) ? value.seq : expected
      expected = seq + 1
      yield { kind: 'entry', seq, leaf: line, value }
    }
  }
}

interface Line {
  log?: unknown
  checkpoint?: unknown
  hashes?: unknown
  seq?: unknown
}

function parsed (line: string): Line {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}

function isHashes (value: unknown): value is { from: number, sha256: string } {
  return typeof value === 'object' && value !== null && 'from' in value && isSeq(value.from) && 'sha256' in value && typeof value.sha256 === 'string'
}

function isSeq (value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}
