import { execFileSync } from 'node:child_process'
import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fileSink, pinoSink, type Sink, type StoredEntry } from '../../plugins/audit/index.ts'
import { Copies } from '../../plugins/audit/sinks/copies.ts'
import { recordsOf, verifyLog } from '../../plugins/audit/verify/index.ts'
import { audited } from '../support/audited.ts'
import { deferred } from '../support/deferred.ts'

async function directory (t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'audit-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

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

t.test('where there is no directory, writing is refused', async t => {
  const { stored } = await entries(t, 2)
  const missing = fileSink(join(await directory(t), 'none', 'audit'))
  await t.rejects(missing.write(stored), { code: 'ENOENT' })
})

t.test('wrong options are named', async t => {
  t.throws(() => fileSink('x', { maxSize: 1 }), { code: 'FST_AUDIT_OPTIONS', message: /fileSink: maxSize is 1/ })
  t.throws(() => fileSink('x', { keep: 0 }), { message: /keep is 0/ })
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
  copies.add(stored.slice(0, 600))
  copies.add(stored.slice(600))
  t.same(copies.figures, { written: 0, dropped: 203, failures: 0, waiting: 1000 })
  await failed.promise
  mode = 'well'
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
