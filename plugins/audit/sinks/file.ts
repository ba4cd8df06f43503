import { open, readdir, unlink, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { faultOf } from '../../token-registry/index.ts'
import { parseLeaf } from '../entry.ts'
import { AuditOptions } from '../errors.ts'
import type { StoredEntry } from '../ledger.ts'
import { lineOf } from '../verify/index.ts'
import type { Sink } from './sink.ts'

export interface FileSinkOptions {
  /** Bytes after which another file is begun, 100 MiB. A group that is larger makes it larger. */
  maxSize?: number
  /** Files that are kept, the one that is written included; all by default. */
  keep?: number | null
}

const Options = Type.Object({
  maxSize: Type.Integer({ minimum: 1024, maximum: Number.MAX_SAFE_INTEGER, default: 100 * 2 ** 20, errorMessage: 'a whole number of bytes from 1024' }),
  keep: Type.Union([Type.Integer({ minimum: 1, maximum: 1_000_000 }), Type.Null()], { default: null, errorMessage: 'a whole number from 1 to 1000000, or null' })
}, { additionalProperties: false })

/** Bytes at the end of a file in which its last line is looked for. */
const TAIL = 2 ** 20

/** The file that is written. */
interface Current {
  file: FileHandle
  size: number
}

/**
 * Lines that `verifyLog` reads (NDJSON): each entry is its leaf, and after each group come its hashes. A group is synced to the disk at once.
 *
 * Files are named `<path>.<seq>`, by the first entry of each in 16 digits: in the order of their names they are the log. Only their owner can read them.
 * Where a process died in the middle of a line, that is cut off; what is there already is not written again.
 *
 * @throws {AuditOptions}
 */
export function fileSink (path: string, given: FileSinkOptions = {}): Sink {
  const options = Value.Default(Options, { ...given })
  const fault = faultOf(Options, options, '')
  if (fault !== null) throw new AuditOptions(`fileSink: ${fault}`)
  return new FileSink(path, options as Static<typeof Options>) // no fault was found with it
}

class FileSink implements Sink {
  readonly name = 'file'
  readonly #path: string
  readonly #options: Static<typeof Options>
  #current: Current | null = null
  /** `seq` of the last entry that is there; null before that is known. */
  #last: number | null = null

  constructor (path: string, options: Static<typeof Options>) {
    this.#path = path
    this.#options = options
  }

  async write (entries: readonly StoredEntry[]): Promise<void> {
    this.#last ??= await this.#resume()
    const last = this.#last
    const fresh = entries.filter(({ seq }) => seq > last)
    const [first] = fresh
    if (first === undefined) return
    const bytes = Buffer.from(linesOf(fresh))
    const current = await this.#roomFor(bytes.length, first.seq)
    try {
      const { bytesWritten } = await current.file.write(bytes, 0, bytes.length, current.size)
      if (bytesWritten < bytes.length) throw new Error('there is no room for a group of entries')
      await current.file.datasync()
    } catch (error) {
      // No line is left in half, where that can be helped.
      await current.file.truncate(current.size).catch(() => {})
      throw error
    }
    current.size += bytes.length
    this.#last = (fresh.at(-1) ?? first).seq
  }

  async close (): Promise<void> {
    await this.#current?.file.close()
    this.#current = null
  }

  /** Goes on where the last file ends. @returns the last entry that is there, or -1 */
  async #resume (): Promise<number> {
    const name = (await this.#files()).at(-1)
    if (name === undefined) return -1
    const file = await open(name, 'r+')
    this.#current = { file, size: (await file.stat()).size }
    const from = Math.max(0, this.#current.size - TAIL)
    const tail = Buffer.alloc(this.#current.size - from)
    await file.read(tail, 0, tail.length, from)
    const whole = tail.lastIndexOf('\n') + 1
    this.#current.size = from + whole
    await file.truncate(this.#current.size)
    const lines = tail.subarray(0, whole).toString().split('\n').filter(line => line.startsWith('{"actor"'))
    const line = lines.at(-1)
    return line === undefined ? firstOf(name) - 1 : parseLeaf(line).seq
  }

  async #roomFor (bytes: number, seq: number): Promise<Current> {
    if (this.#current !== null && (this.#current.size === 0 || this.#current.size + bytes <= this.#options.maxSize)) return this.#current
    const next: Current = { file: await open(`${this.#path}.${String(seq).padStart(16, '0')}`, 'w', 0o600), size: 0 }
    await this.#current?.file.close()
    this.#current = next
    const { keep } = this.#options
    for (const old of keep === null ? [] : (await this.#files()).slice(0, -keep)) await unlink(old)
    return next
  }

  /** In the order of the log. */
  async #files (): Promise<string[]> {
    const [directory, start] = [dirname(this.#path), `${basename(this.#path)}.`]
    const names = (await readdir(directory)).filter(name => name.startsWith(start) && /^\d{16}$/.test(name.slice(start.length)))
    return names.sort().map(name => join(directory, name))
  }
}

function linesOf (entries: readonly StoredEntry[]): string {
  const runs: StoredEntry[][] = []
  for (const entry of entries) {
    const run = runs.at(-1)
    if (run !== undefined && run.at(-1)?.seq === entry.seq - 1) run.push(entry)
    else runs.push([entry])
  }
  // Of what other instances appended in between this one knows nothing.
  return runs.map(run => [...run.map(({ leaf }) => leaf), lineOf({ kind: 'hashes', from: run[0]?.seq ?? 0, hashes: Buffer.concat(run.map(({ hash }) => hash)) })].map(line => `${line}\n`).join('')).join('')
}

function firstOf (name: string): number {
  return Number(name.slice(-16))
}
