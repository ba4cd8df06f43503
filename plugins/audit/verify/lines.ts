import type { LogRecord } from './records.ts'

/** A record as a line of an export, without its end. */
export function lineOf (record: LogRecord): string {
  switch (record.kind) {
    case 'entry': return record.leaf
    case 'hashes': return JSON.stringify({ hashes: { from: record.from, sha256: Buffer.from(record.hashes).toString('base64') } })
    case 'checkpoint': return JSON.stringify({ checkpoint: record.note })
  }
}

/** The records of an export, or of files that a sink wrote, from their lines. A line that is none of these is an entry that cannot be read. */
export async function * recordsOf (lines: AsyncIterable<string>): AsyncGenerator<LogRecord> {
  let expected = 0
  for await (const line of lines) {
    if (line === '') continue
    const value = parsed(line)
    if (value !== null && 'log' in value) continue
    if (value !== null && typeof value.checkpoint === 'string') {
      yield { kind: 'checkpoint', note: value.checkpoint }
    } else if (value !== null && isHashes(value.hashes)) {
      const { from, sha256 } = value.hashes
      const hashes = Buffer.from(sha256, 'base64')
      expected = Math.max(expected, from + hashes.length / 32)
      yield { kind: 'hashes', from, hashes }
    } else {
      const seq = typeof value?.seq === 'number' ? value.seq : expected
      expected = seq + 1
      yield { kind: 'entry', seq, leaf: line }
    }
  }
}

interface Line {
  checkpoint?: unknown
  hashes?: unknown
  seq?: unknown
}

function parsed (line: string): Line | null {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? value : null
  } catch {
    return null
  }
}

function isHashes (value: unknown): value is { from: number, sha256: string } {
  return typeof value === 'object' && value !== null && 'from' in value && Number.isSafeInteger(value.from) && 'sha256' in value && typeof value.sha256 === 'string'
}
