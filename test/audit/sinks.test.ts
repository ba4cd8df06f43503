import { execFileSync } from 'node:child_process'
import { appendFile, mkdtemp, open, readdir, readFile, rm, stat, writeFile, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fileSink, pinoSink, type Sink, type StoredEntry } from '../../plugins/audit/index.ts'
import { Copies } from '../../plugins/audit/sinks/copies.ts'
import { recordsOf, verifyLog } from '../../plugins/audit/verify/index.ts'
import { audited } from '../support/audited.ts'
import { deferred } from '../support/deferred.ts'
import { entryOf } from '../support/audit-entry.ts'

async function directory (t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'audit-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

/** What is copied to a sink, and what it has made of it. */
interface Rig {
  sink: Sink
  /** What it has, in order. */
  taken: () => Promise<Array<{ seq: number, type: string }>>
  /** Makes it fail until the function it returns is called. */
  breaks: () => Promise<() => Promise<void>>
}

function sinkContract (t: Test, rig: (t: Test) => Promise<Rig>): void {
  t.test('it has each entry once, in order, however they are grouped', async t => {
    const { sink, taken } = await rig(t)
    const { stored } = await entries(t, 60)
    await sink.write([])
    for (const [from, to] of [[0, 1], [1, 40], [30, 50], [0, 60], [59, 60]]) await sink.write(stored.slice(from, to))
    await sink.close()
    t.same((await taken()).map(({ seq }) => seq), stored.map(({ seq }) => seq))
    t.match(sink.name, /^[a-z]+$/)
  })

  t.test('writes that overlap are done one after the other', async t => {
    const { sink, taken } = await rig(t)
    const { stored } = await entries(t, 60)
    await Promise.all([sink.write(stored.slice(0, 30)), sink.write(stored.slice(0, 30)), sink.write(stored.slice(30)), sink.close()])
    await sink.close()
    t.same((await taken()).map(({ seq }) => seq), stored.map(({ seq }) => seq))
  })

  t.test('a group that was rejected comes again, and is there once', async t => {
    const { sink, taken, breaks } = await rig(t)
    const { stored } = await entries(t, 60)
    await sink.write(stored.slice(0, 10))
    const mend = await breaks()
    await t.rejects(sink.write(stored.slice(10, 50)))
    await t.rejects(sink.write(stored.slice(10, 50)))
    await mend()
    await sink.write(stored.slice(10, 50))
    await sink.write(stored.slice(50))
    await sink.close()
    t.same((await taken()).map(({ seq }) => seq), stored.map(({ seq }) => seq))
  })

  t.test('entries may hold anything', async t => {
    const { sink, taken } = await rig(t)
    const stored = ['\u2028\u2029\u0085', '\u001b[31m\r\n', '"\\', '{"actor"', '\n{"actor"', '\u{1f600}', 'x'.repeat(2 ** 20), '{"hashes":{"from":0,"sha256":""}}', 'x'.repeat(3 * 2 ** 20)].map((type, seq) => entryOf(seq, type))
    for (const entry of stored) await sink.write([entry])
    await sink.close()
    t.same(await taken(), stored.map(({ seq, type }) => ({ seq, type })))
  })

  t.test('it is closed as often as one likes, written or not', async t => {
    const { sink, taken } = await rig(t)
    await sink.close()
    await sink.close()
    t.same(await taken(), [])
  })
}

type FileMethod = 'datasync' | 'read' | 'truncate' | 'write'

/** Replaces what open files do. @returns puts it back */
async function fileHandles (method: FileMethod, instead: (this: FileHandle, own: FileHandle[FileMethod], ...args: unknown[]) => Promise<unknown>): Promise<() => void> {
  const file = await open(import.meta.filename)
  const handles = Object.getPrototypeOf(file) as Record<FileMethod, FileHandle[FileMethod]>
  await file.close()
  const own = handles[method]
  handles[method] = async function (this: FileHandle, ...args: unknown[]) { return await instead.call(this, own, ...args) } as FileHandle[FileMethod]
  return () => { handles[method] = own }
}

t.test('a sink that writes files', t => {
  sinkContract(t, async t => {
    const path = await directory(t)
    return {
      sink: fileSink(join(path, 'audit')),
      taken: async () => (await linesIn(path)).filter(line => line.startsWith('{"actor"')).map(line => JSON.parse(line) as { seq: number, type: string }).map(({ seq, type }) => ({ seq, type })),
      breaks: async () => {
        const mend = await fileHandles('datasync', async () => { throw new Error('EIO') })
        return async () => mend()
      }
    }
  })
  t.end()
})

t.test('a sink that writes to the log', t => {
  sinkContract(t, async () => {
    const taken: Array<{ seq: number, type: string }> = []
    let after = Infinity
    const info = ({ audit: { seq } }: { audit: { seq: number } }, type: string): void => {
      if (seq > after) throw new Error('no')
      taken.push({ seq, type })
    }
    return {
      sink: pinoSink({ info } as Parameters<typeof pinoSink>[0]),
      taken: async () => taken,
      breaks: async () => {
        after = 20
        return async () => { after = Infinity }
      }
    }
  })
  t.end()
})

/** Entries of a real log. */
async function entries (t: Test, count: number, data: object = {}): Promise<{ stored: readonly StoredEntry[], vkeys: readonly string[] }> {
  const stored: StoredEntry[] = []
  const app = await audited(t, { copies: [{ name: 'test', write: async entries => { stored.push(...entries) }, close: async () => {} }] })
  await Promise.all(Array.from({ length: count - 1 }, async (_, i) => await app.audit.record({ type: 'test', actor: { sub: 'alice', ip: '203.0.113.7' }, data: { i, ...data } })))
  await app.close()
  return { stored, vkeys: app.audit.vkeys }
}

async function linesIn (path: string): Promise<string[]> {
  const names = (await readdir(path)).sort()
  const texts = await Promise.all(names.map(async name => await readFile(join(path, name), 'utf8')))
  return texts.join('').split('\n')
}

async function verdictOn (lines: readonly string[], vkeys: readonly string[]) {
  return await verifyLog(recordsOf((async function * () { yield * lines })()), { vkeys })
}

t.test('a file has each entry once, as lines that can be verified', async t => {
  const path = await directory(t)
  const { stored, vkeys } = await entries(t, 40, { hostile: 'a\r\nb\u2028c\u001b[31m"\\' })
  const sink = fileSink(join(path, 'audit'))
  await sink.write(stored.slice(0, 10))
  await sink.write(stored.slice(5, 25))
  await sink.write(stored.slice(0, 25))
  await sink.close()
  await sink.close()
  const again = fileSink(join(path, 'audit'))
  await again.write(stored)
  await again.close()
  t.same(await readdir(path), ['audit.0000000000000000'])
  t.equal((await stat(join(path, 'audit.0000000000000000'))).mode & 0o777, 0o600)
  const lines = await linesIn(path)
  t.same(lines.filter(line => line.startsWith('{"actor"')), stored.map(({ leaf }) => leaf))
  t.match(await verdictOn(lines, vkeys), { ok: true, size: 40 })
  t.match(await verdictOn(lines.map(line => line.replace('"i":7', '"i":8')), vkeys), { ok: false, what: 'edited', index: 8 })
})

t.test('files are begun anew when they are large, and the oldest go', async t => {
  const path = await directory(t)
  const { stored } = await entries(t, 30)
  const sink = fileSink(join(path, 'audit'), { maxSize: 4096, keep: 3 })
  for (const entry of stored) await sink.write([entry])
  await sink.close()
  const names = (await readdir(path)).sort()
  t.equal(names.length, 3)
  for (const name of names) t.ok((await stat(join(path, name))).size <= 4096)
  t.match((await linesIn(path)).filter(line => line.startsWith('{"actor"')).at(-1), /"seq":29,/)
  const all = await directory(t)
  const large = fileSink(join(all, 'audit'), { maxSize: 1024 })
  await large.write(stored)
  await large.close()
  t.equal((await readdir(all)).length, 1, 'a group is not torn apart')
})

t.test('a line that was cut short by a crash is cut off, and written again', async t => {
  const path = await directory(t)
  const { stored, vkeys } = await entries(t, 20)
  const name = join(path, 'audit.0000000000000000')
  const sink = fileSink(join(path, 'audit'))
  await sink.write(stored.slice(0, 10))
  await sink.close()
  await appendFile(name, String(stored[10]?.leaf.slice(0, 50)))
  const again = fileSink(join(path, 'audit'))
  await again.write(stored)
  await again.close()
  t.match(await verdictOn(await linesIn(path), vkeys), { ok: true, size: 20 })

  await writeFile(name, '{"act')
  const third = fileSink(join(path, 'audit'))
  await third.write(stored)
  await third.close()
  t.match(await verdictOn(await linesIn(path), vkeys), { ok: true, size: 20 })
})

t.test('of entries that others appended in between nothing is said', async t => {
  const path = await directory(t)
  const { stored } = await entries(t, 6)
  const sink = fileSink(join(path, 'audit'))
  await sink.write([0, 1, 4, 5].map(seq => stored[seq] as StoredEntry))
  await sink.close()
  const lines = await linesIn(path)
  t.match(lines.map(line => /"(?:seq|from)":(\d+)/.exec(line)?.[1]), ['0', '1', '0', '4', '5', '4', undefined])
})

/** Only root can mount a disk that is small. */
const isRoot = process.getuid?.() === 0

if (isRoot) {
  t.test('a disk that is full, or cannot be written, rejects; nothing is left in half, and it goes on when there is room', async t => {
    const path = await directory(t)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', path])
    t.teardown(() => execFileSync('umount', [path]))
    const { stored, vkeys } = await entries(t, 20)
    await writeFile(join(path, 'ballast'), 'x'.repeat(56 * 1024))
    const sink = fileSink(join(path, 'audit'))
    let written = 0
    const write = async () => {
      for (; written < stored.length; written++) await sink.write([stored[written] as StoredEntry])
    }
    await t.rejects(write())
    t.ok(written > 0 && written < stored.length)
    const [name] = (await readdir(path)).filter(name => name.startsWith('audit'))
    t.match(await readFile(join(path, String(name)), 'utf8'), /\n$/)
    await rm(join(path, 'ballast'))
    await write()
    await sink.close()
    t.match(await verdictOn(await linesIn(path), vkeys), { ok: true, size: 20 })

    execFileSync('mount', ['-o', 'remount,ro', path])
    const late = fileSink(join(path, 'audit'))
    await t.rejects(late.write(stored), { code: 'EROFS' })
    await late.close()
  })
}

if (isRoot) {
  t.test('where files are required, a disk that is full, or cannot be written, stops what changes something; it goes on by itself', async t => {
    const path = await directory(t)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', path])
    t.teardown(() => execFileSync('umount', [path]))
    await writeFile(join(path, 'ballast'), 'x'.repeat(40 * 1024))
    const app = await audited(t, { copies: [fileSink(join(path, 'audit'), { required: true })], timeout: 300 })
    const { tokenRegistry: registry } = app
    const fill = async (): Promise<void> => { for (;;) await registry.issue({ sub: 'alice' }) }
    const goesOn = async (): Promise<void> => {
      for (;;) {
        const issued = await registry.issue({ sub: 'bob' }).then(() => true, () => false)
        if (issued) return
      }
    }
    const isRefused = async (): Promise<void> => {
      const before = await registry.count({ sub: 'alice' })
      await t.rejects(registry.issue({ sub: 'alice' }), { code: 'FST_AUDIT_UNAVAILABLE', statusCode: 503 })
      await t.rejects(registry.revokeAll({ sub: 'alice' }), { code: 'FST_AUDIT_UNAVAILABLE' })
      t.equal(await registry.count({ sub: 'alice' }), before, 'nothing has changed')
    }
    await t.rejects(fill(), { code: 'FST_AUDIT_UNAVAILABLE' })
    await isRefused()
    await rm(join(path, 'ballast'))
    await goesOn()
    const { vkeys } = app.audit
    await app.close()
    t.match(await verdictOn(await linesIn(path), vkeys), { ok: true })

    execFileSync('mount', ['-o', 'remount,ro', path])
    await t.rejects(audited(t, { copies: [fileSink(join(path, 'other'), { required: true })], timeout: 300 }), { code: 'FST_AUDIT_UNAVAILABLE' }, 'no server starts where nothing could be done')
  })
}

t.test('where there is no directory, writing is refused', async t => {
  const { stored } = await entries(t, 2)
  const missing = fileSink(join(await directory(t), 'none', 'audit'))
  await t.rejects(missing.write(stored), { code: 'ENOENT' })
})

t.test('what is written in pieces, or cannot be taken back, is there once and whole', async t => {
  const path = await directory(t)
  const { stored, vkeys } = await entries(t, 30)
  const sink = fileSink(join(path, 'audit'))
  type Write = (this: FileHandle, bytes: Buffer, from: number, length: number, at: number) => Promise<{ bytesWritten: number }>
  const inPieces = await fileHandles('write', async function (own, bytes, from, length, at) { return await (own as Write).call(this, bytes as Buffer, from as number, Math.min(100, length as number), at as number) })
  await sink.write(stored.slice(0, 10))
  inPieces()

  let pieces = 0
  const breaksOff = await fileHandles('write', async function (own, bytes, from, length, at) {
    if (++pieces === 2) throw new Error('ENOSPC')
    return await (own as Write).call(this, bytes as Buffer, from as number, Math.floor(length as number / 2), at as number)
  })
  const stays = await fileHandles('truncate', async () => { throw new Error('EIO') })
  await t.rejects(sink.write(stored.slice(10, 21)), { message: 'ENOSPC' })
  breaksOff()
  t.notOk((await linesIn(path)).at(-1) === '', 'it is torn')
  await t.rejects(sink.write(stored.slice(10, 21)), { message: 'EIO' })
  stays()
  await sink.write(stored.slice(10, 21))
  await sink.write(stored.slice(21))
  await sink.close()
  const lines = await linesIn(path)
  t.same(lines.filter(line => line.startsWith('{"actor"')), stored.map(({ leaf }) => leaf))
  t.match(await verdictOn(lines, vkeys), { ok: true, size: 30 })
})

t.test('it goes on after lines of any length, and after files without any', async t => {
  const path = await directory(t)
  const large = entryOf(0, '\n{"actor"'.repeat(2 ** 18))
  const again = async (...entries: StoredEntry[]) => {
    const sink = fileSink(join(path, 'audit'))
    await sink.write(entries)
    await sink.close()
  }
  await again(large)
  await appendFile(join(path, 'audit.0000000000000000'), `{"actor":"${'x'.repeat(2 ** 21)}`)
  await again(large, entryOf(1, 'next'))
  t.same((await linesIn(path)).filter(line => line.startsWith('{"actor"')), [large.leaf, entryOf(1, 'next').leaf])

  await writeFile(join(path, 'audit.0000000000000005'), '{"hashes":{"from":0,"sha256":""}}\n')
  await writeFile(join(path, 'audit.not-one'), '')
  await again(entryOf(3, 'before it'), entryOf(5, 'first'))
  t.match(await readFile(join(path, 'audit.0000000000000005'), 'utf8'), /^\{"actor".*"seq":5.*\n\{"hashes":\{"from":5/)
})

t.test('entries of another log are not taken for those that are there', async t => {
  const path = await directory(t)
  const write = async (...entries: StoredEntry[]) => {
    const sink = fileSink(join(path, 'audit'), { maxSize: 1024, keep: 2 })
    try {
      for (const entry of entries) await sink.write([entry])
    } finally {
      await sink.close()
    }
  }
  const own = Array.from({ length: 10 }, (_, seq) => entryOf(seq, `own ${'x'.repeat(600)}`))
  await write(...own.filter(({ seq }) => seq !== 8))
  t.same((await readdir(path)).sort(), ['audit.0000000000000007', 'audit.0000000000000009'])
  await t.rejects(write(entryOf(9, 'another')), { message: /files at .* are of another log: entry 9 is another one there/ })
  await t.rejects(write(entryOf(7, 'another')), { message: /entry 7/ })
  await write(own[7] as StoredEntry, own[9] as StoredEntry)
  await write(entryOf(8, 'that was left out'))
  await write(entryOf(0, 'that is gone'))
  t.same((await readdir(path)).sort(), ['audit.0000000000000007', 'audit.0000000000000009'])
})

t.test('hashes are in lines of 256 at most, as in an export', async t => {
  const path = await directory(t)
  const { stored, vkeys } = await entries(t, 600)
  const sink = fileSink(join(path, 'audit'))
  await sink.write(stored)
  await sink.close()
  const lines = await linesIn(path)
  t.same(lines.map((line, index) => line.startsWith('{"hashes"') ? index : -1).filter(index => index >= 0), [256, 513, 602])
  t.match(await verdictOn(lines, vkeys), { ok: true, size: 600 })
  t.match(await verdictOn(lines.map(line => line.replace('"i":500', '"i":5')), vkeys), { ok: false, what: 'edited', index: 501 })
})

t.test('wrong options are named', async t => {
  const wrong: Array<[() => unknown, RegExp]> = [
    [() => fileSink('x', { maxSize: 1 }), /fileSink: maxSize is 1: it may be a whole number of bytes from 1024$/],
    [() => fileSink('x', { keep: 0 }), /fileSink: keep is 0: it may be a whole number from 1 to 1000000, or null$/],
    [() => fileSink('x', { maxsize: 1 } as object), /fileSink: maxsize is not an option/],
    [() => fileSink(''), /fileSink: path is '': it may be how the paths of files begin/],
    [() => fileSink(undefined as unknown as string), /fileSink: path is undefined/],
    [() => pinoSink({ info: () => {} }, 'silent' as 'info'), /pinoSink: level is 'silent': it may be one of fatal, error, warn, info, debug, trace$/]
  ]
  for (const [make, message] of wrong) t.throws(make, { code: 'FST_AUDIT_OPTIONS', message })
})

t.test('a log is written at the level that one likes', async t => {
  const messages: string[] = []
  await pinoSink({ warn: (_: object, message: string) => { messages.push(message) } } as Parameters<typeof pinoSink<'warn'>>[0], 'warn').write([entryOf(0, 'test')])
  t.same(messages, ['test'])
})

t.test('a log has a line for each entry, which tells of nobody', async t => {
  const { stored } = await entries(t, 3, { email: 'alice@example.com' })
  const lines: Array<[object, string]> = []
  const sink = pinoSink({ info: (object: object, message: string) => { lines.push([object, message]) } } as Parameters<typeof pinoSink>[0])
  await sink.write(stored)
  await sink.close()
  t.same(lines.map(([, message]) => message), ['audit.start', 'test', 'test'])
  t.match(lines[1]?.[0], { audit: { seq: 1, type: 'test', outcome: 'success', tenant: '' } })
  for (const plain of ['alice', '203.0.113.7', 'box']) t.notOk(JSON.stringify(lines).includes(plain), plain)
})

t.test('copies come in order behind the back of who records; what is too much is left out, and counted', async t => {
  const { stored } = await entries(t, 1203)
  const failures: unknown[] = []
  const taken: number[] = []
  let mode: 'well' | 'fails' | 'hangs' = 'fails'
  const failed = deferred()
  const sink: Sink = {
    name: 'test',
    write: async entries => {
      if (mode === 'hangs') return await new Promise(() => {})
      if (mode === 'fails') throw new Error('no')
      taken.push(...entries.map(({ seq }) => seq))
    },
    close: async () => {}
  }
  const copies = new Copies(sink, { timeout: 30, maxQueue: 1000, failed: (error, name) => { failures.push([error, name]); failed.resolve() } })
  const written = copies.add(stored.slice(0, 600))
  const leftOut = copies.add(stored.slice(600))
  t.same(copies.figures, { written: 0, dropped: 203, failures: 0, waiting: 1000 })
  await t.rejects(leftOut, { code: 'FST_AUDIT_UNAVAILABLE' })
  await failed.promise
  mode = 'well'
  await written
  while (copies.figures.written < 1000) await new Promise(resolve => setImmediate(resolve))
  t.same(taken, Array.from({ length: 1000 }, (_, i) => i))
  t.match(failures, [[{ message: 'no' }, 'test']])
  mode = 'hangs'
  copies.add(stored.slice(0, 1))
  await copies.close()
  t.match(failures.at(-1), [{ message: 'the sink test did not answer' }, 'test'])

  const late = new Copies(sink, { timeout: 30, maxQueue: 10, failed: () => {} })
  mode = 'well'
  late.add(stored.slice(0, 1))
  await late.close()
  t.equal(late.figures.written, 1)
})

t.test('a queue that had nothing to do goes on, and a sink that cannot be closed keeps nobody', async t => {
  const taken: number[] = []
  const failures: unknown[] = []
  const some = deferred()
  const sink: Sink = {
    name: 'test',
    write: async entries => {
      taken.push(...entries.map(({ seq }) => seq))
      some.resolve()
    },
    close: async () => { throw new Error('no') }
  }
  const copies = new Copies(sink, { timeout: 30, maxQueue: 10, failed: error => { failures.push(error) } })
  await copies.add([])
  copies.add([entryOf(0, 'test')])
  await some.promise
  await copies.close()
  t.same(taken, [0])
  t.match(failures, [{ message: 'no' }])

  const hung = new Copies({ ...sink, close: async () => await new Promise(() => {}) }, { timeout: 30, maxQueue: 10, failed: error => { failures.push(error) } })
  await hung.close()
  t.match(failures.at(-1), { message: 'the sink test did not answer' })
})

t.test('at the end what waits is tried once more, at once', async t => {
  const failed = deferred()
  const attempts: number[] = []
  const sink: Sink = { name: 'test', write: async entries => { attempts.push(entries.length); throw new Error('no') }, close: async () => {} }
  const copies = new Copies(sink, { timeout: 1000, maxQueue: 10, failed: () => failed.resolve() })
  copies.add([entryOf(0, 'test')])
  await failed.promise
  await copies.close()
  t.same(attempts, [1, 1])
  t.match(copies.figures, { written: 0, failures: 2, waiting: 1 })
})

t.test('a sink that throws, or answers at once, is one too', async t => {
  const taken: number[] = []
  const [failed, written] = [deferred(), deferred()]
  let attempts = 0
  const write = (entries: readonly StoredEntry[]): void => {
    if (attempts++ === 0) throw new Error('no')
    taken.push(...entries.map(({ seq }) => seq))
    written.resolve()
  }
  const copies = new Copies({ name: 'test', write, close: () => {} } as unknown as Sink, { timeout: 1000, maxQueue: 10, failed: () => failed.resolve() })
  copies.add([entryOf(0, 'test')])
  await failed.promise
  await written.promise
  await copies.close()
  t.same(taken, [0])
  t.equal(copies.figures.written, 1)
})
