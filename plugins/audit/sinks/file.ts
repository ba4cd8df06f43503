import { createReadStream } from 'node:fs'
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
  /** Nothing is done that is not in these files too; false by default. */
  required?: boolean
}

const Options = Type.Object({
  path: Type.String({ minLength: 1, errorMessage: 'how the paths of files begin, such as "/var/log/app/audit"' }),
  maxSize: Type.Integer({ minimum: 1024, maximum: Number.MAX_SAFE_INTEGER, default: 100 * 2 ** 20, errorMessage: 'a whole number of bytes from 1024' }),
  keep: Type.Union([Type.Integer({ minimum: 1, maximum: 1_000_000 }), Type.Null()], { default: null, errorMessage: 'a whole number from 1 to 1000000, or null' }),
  required: Type.Boolean({ default: false, errorMessage: 'true or false' })
}, { additionalProperties: false })

/** Bytes in which the end of a file is looked for at first. */
const TAIL = 2 ** 20
/** Entries of which the hashes are in one line. */
const TILE = 256

/** The file that is written. */
interface Current {
  file: FileHandle
  size: number
}

/** What is there already. */
interface Resumed {
  /** Null where there is no file yet. */
  current: Current | null
  /** `seq` of the last entry; -1 where there is none. */
  last: number
}

/**
 * Lines that `verifyLog` reads (NDJSON): each entry is its leaf, and after each group come its hashes. A group is synced to the disk at once.
 *
 * Files are named `<path>.<seq>`, by the first entry of each in 16 digits: in the order of their names they are the log. Only their owner can read them.
 * Where a process died in the middle of a line, that is cut off; what is there already is not written again. Two processes have two paths.
 *
 * @throws {AuditOptions}
 * @example
 * await app.register(audit, { copies: [fileSink('/var/log/app/audit', { maxSize: 2 ** 30, keep: 12 })] })
 */
export function fileSink (path: string, given: FileSinkOptions = {}): Sink {
  const options = Value.Default(Options, { ...given, path })
  const fault = faultOf(Options, options, '')
  if (fault !== null) throw new AuditOptions(`fileSink: ${fault}`)
  return new FileSink(options as Static<typeof Options>) // no fault was found with it
}

class FileSink implements Sink {
  readonly name = 'file'
  readonly required: boolean
  readonly #options: Static<typeof Options>
  /** Null until it is known what is there, and again after a failure. */
  #resumed: Resumed | null = null
  /** A write that took too long may still be under way when the next one comes. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor (options: Static<typeof Options>) {
    this.required = options.required
    this.#options = options
  }

  async write (entries: readonly StoredEntry[]): Promise<void> {
    await this.#inTurn(async () => {
      try {
        await this.#append(entries)
      } catch (error) {
        await this.#leave()
        throw error
      }
    })
  }

  async close (): Promise<void> {
    await this.#inTurn(async () => await this.#leave())
  }

  async #inTurn (work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work)
    this.#turn = done.catch(() => {})
    await done
  }

  async #append (entries: readonly StoredEntry[]): Promise<void> {
    const resumed = this.#resumed ??= await this.#resume(entries)
    const fresh = entries.filter(({ seq }) => seq > resumed.last)
    const [first] = fresh
    if (first === undefined) return
    const bytes = Buffer.from(linesOf(fresh))
    const current = await this.#roomFor(bytes.length, first.seq, resumed)
    try {
      for (let written = 0; written < bytes.length;) {
        written += (await current.file.write(bytes, written, bytes.length - written, current.size + written)).bytesWritten
      }
      await current.file.datasync()
    } catch (error) {
      // Where this fails too, what was begun is cut off when it goes on.
      await current.file.truncate(current.size).catch(() => {})
      throw error
    }
    current.size += bytes.length
    resumed.last = Math.max(...fresh.map(({ seq }) => seq))
  }

  /** @param entries that come next: where one of them is there, it has to be the same */
  async #resume (entries: readonly StoredEntry[]): Promise<Resumed> {
    const names = await this.#files()
    const name = names.at(-1)
    if (name === undefined) return { current: null, last: -1 }
    const file = await open(name, 'r+')
    try {
      const { size, last } = await endOf(file)
      await file.truncate(size)
      const resumed = { current: { file, size }, last: last ?? firstOf(name) - 1 }
      const known = entries.find(({ seq }) => seq <= resumed.last)
      if (known !== undefined && !await isIn(names, known)) throw new Error(`the files at ${this.#options.path} are of another log: entry ${known.seq} is another one there`)
      return resumed
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** The file that is written next: another one where this one would grow too large. */
  async #roomFor (bytes: number, seq: number, resumed: Resumed): Promise<Current> {
    const { current: before } = resumed
    const { path, maxSize, keep } = this.#options
    if (before !== null && (before.size === 0 || before.size + bytes <= maxSize)) return before
    const current = { file: await open(`${path}.${String(seq).padStart(16, '0')}`, 'wx', 0o600), size: 0 }
    resumed.current = current
    await before?.file.close()
    for (const old of keep === null ? [] : (await this.#files()).slice(0, -keep)) await unlink(old)
    return current
  }

  async #leave (): Promise<void> {
    const current = this.#resumed?.current
    this.#resumed = null
    await current?.file.close()
  }

  /** In the order of the log. */
  async #files (): Promise<string[]> {
    const { path } = this.#options
    const [directory, start] = [dirname(path), `${basename(path)}.`]
    const names = (await readdir(directory)).filter(name => name.startsWith(start) && /^\d{16}$/.test(name.slice(start.length)))
    return names.sort().map(name => join(directory, name))
  }
}

function linesOf (entries: readonly StoredEntry[]): string {
  const runs: StoredEntry[][] = []
  for (const entry of entries) {
    const run = runs.at(-1)
    // Of what other instances appended in between this one knows nothing.
    if (run !== undefined && run.length < TILE && run.at(-1)?.seq === entry.seq - 1) run.push(entry)
    else runs.push([entry])
  }
  return runs.map(linesOfRun).join('')
}

function linesOfRun (run: readonly StoredEntry[]): string {
  const [from] = run.map(({ seq }) => seq) as [number] // no run is empty
  const hashes = lineOf({ kind: 'hashes', from, hashes: Buffer.concat(run.map(({ hash }) => hash)) })
  return [...run.map(({ leaf }) => leaf), hashes].map(line => `${line}\n`).join('')
}

/** Up to where a file has whole lines, and the `seq` of the last entry among them; a file without one begins anew. */
async function endOf (file: FileHandle): Promise<{ size: number, last: number | null }> {
  const { size } = await file.stat()
  let [length, found] = [TAIL, await lastEntryIn(file, size, TAIL)]
  while (found === null && length < size) {
    length *= 2
    found = await lastEntryIn(file, size, length)
  }
  return found ?? { size: 0, last: null }
}

/** @param length bytes at the end that are looked at */
async function lastEntryIn (file: FileHandle, size: number, length: number): Promise<{ size: number, last: number } | null> {
  const from = Math.max(0, size - length)
  const tail = Buffer.alloc(size - from)
  await file.read(tail, 0, tail.length, from)
  const end = tail.lastIndexOf('\n') + 1
  // The first line may be the end of one.
  const line = tail.subarray(0, end).toString().split('\n').slice(from === 0 ? 0 : 1).findLast(isEntry)
  return line === undefined ? null : { size: from + end, last: parseLeaf(line).seq }
}

/** Whether files have an entry, and none other in its place: true where they have none, or no longer. */
async function isIn (names: readonly string[], { seq, leaf }: StoredEntry): Promise<boolean> {
  const name = names.findLast(name => firstOf(name) <= seq)
  if (name === undefined) return true
  for await (const line of linesIn(name)) {
    if (isEntry(line) && parseLeaf(line).seq === seq) return line === leaf
  }
  return true
}

/** Lines end by line feeds alone, whatever is in them. */
async function * linesIn (name: string): AsyncGenerator<string> {
  let rest = ''
  for await (const chunk of createReadStream(name, 'utf8')) {
    const lines = `${rest}${String(chunk)}`.split('\n')
    rest = lines.splice(-1).join('')
    yield * lines
  }
}

function isEntry (line: string): boolean {
  return line.startsWith('{"actor"')
}

function firstOf (name: string): number {
  return Number(name.slice(-16))
}
