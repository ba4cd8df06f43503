import Fastify from 'fastify'
import t, { type Test } from 'tap'
import audit, { LedgerUnavailable, memoryLedger, type AuditPluginOptions, type StoredEntry } from '../../plugins/audit/index.ts'
import tokenRegistry from '../../plugins/token-registry/index.ts'
import { audited } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'
import { deferred, soon } from '../support/deferred.ts'

interface Logged {
  app: Awaited<ReturnType<typeof server>>
  ledger: ReturnType<typeof memoryLedger>
  /** Resolves when a line of the log has this in it. */
  logged: (text: string) => Promise<void>
}

async function server (options: AuditPluginOptions, write: (line: string) => void) {
  const app = Fastify({ logger: { level: 'error', stream: { write } } })
  await app.register(tokenRegistry, { secret: newSecret() })
  await app.register(audit, { gather: { time: 0 }, ...options })
  return app
}

async function logging (t: Test, options: AuditPluginOptions = {}): Promise<Logged> {
  const ledger = memoryLedger()
  let waiting: Array<{ text: string, resolve: () => void }> = []
  const app = await server({ ledger, ...options }, line => {
    for (const { text, resolve } of waiting) if (line.includes(text)) resolve()
    waiting = waiting.filter(({ text }) => !line.includes(text))
  })
  t.teardown(() => app.close())
  const logged = async (text: string) => {
    const { promise, resolve } = deferred()
    waiting.push({ text, resolve })
    await soon(promise)
  }
  return { app, ledger, logged }
}

async function failing (): Promise<never> {
  throw new LedgerUnavailable('test')
}

t.test('a checkpoint that cannot be stored is logged, and a later one covers it', async t => {
  const { app, ledger, logged } = await logging(t, { checkpointInterval: 1 })
  const { addCheckpoint } = ledger
  ledger.addCheckpoint = failing
  const told = logged('no checkpoint could be stored')
  await app.audit.record({ type: 'test' })
  await told
  ledger.addCheckpoint = addCheckpoint.bind(ledger)
  await app.audit.record({ type: 'test' })
  t.match(await app.audit.verify(), { ok: true, size: 3 })
  await app.audit.checkpoint()
  t.equal((await ledger.lastCheckpoint())?.size, 3)
})

t.test('new entries that cannot be read are logged, and come when they can be', async t => {
  const { app, ledger, logged } = await logging(t)
  const { entries } = ledger
  const seen: number[] = []
  const stop = new AbortController()
  const following = (async () => {
    for await (const page of app.audit.follow({ after: 0, signal: stop.signal, personal: true, idle: 20 })) {
      seen.push(...page.map(({ seq }) => seq))
      if (seen.includes(2)) stop.abort()
    }
  })()
  await app.audit.record({ type: 'test' })
  while (!seen.includes(1)) await new Promise(resolve => setImmediate(resolve))
  ledger.entries = failing
  const told = logged('new entries could not be read')
  await app.audit.record({ type: 'test' })
  await told
  ledger.entries = entries.bind(ledger)
  await soon(following)
  t.same(seen, [1, 2])
})

t.test('one call that fails cuts those off who wait for it, and nobody after them', async t => {
  const { app, ledger } = await logging(t)
  await app.audit.record({ type: 'test', actor: { sub: 'alice' } })
  const stop = new AbortController()
  const stays = app.audit.follow({ after: -1, signal: stop.signal })
  t.equal((await stays.next()).value?.length, 2)
  const { keysByOwner } = ledger
  ledger.keysByOwner = failing
  await t.rejects(app.audit.follow({ after: -1, signal: stop.signal }).next(), { code: 'FST_AUDIT_UNAVAILABLE' })
  ledger.keysByOwner = keysByOwner.bind(ledger)
  t.equal((await app.audit.follow({ after: -1, signal: stop.signal }).next()).value?.length, 2)
  stop.abort()
})

t.test('who follows from far behind catches up, past what was dropped', async t => {
  const { app } = await logging(t)
  const many = async (count: number) => { await Promise.all(Array.from({ length: count }, async () => await app.audit.record({ type: 'test' }))) }
  await many(1200)
  await app.audit.prune({ olderThan: app.tokenRegistry.now() + 1 })
  const seen: number[] = []
  for await (const page of app.audit.follow({ after: 0, idle: 20 })) {
    seen.push(...page.map(({ seq }) => seq))
    if (seen.length === 100) await many(1500)
    if (seen.includes(1201)) break
  }
  t.equal(seen[0], 1024)
  t.same(seen, Array.from(seen, (_, i) => 1024 + i))
})

t.test('what is wrong is told where it is first', async t => {
  const { app, ledger } = await logging(t)
  for (let i = 0; i < 300; i++) await app.audit.note({ type: 'test', data: { i } })
  await app.audit.checkpoint()
  const { entries, head, tiles } = ledger
  ledger.entries = async (from, to) => (await entries.call(ledger, from, to)).map(entry => {
    if (entry.seq === 2) return { ...entry, leaf: entry.leaf.replace('"i":1', '"i":5') }
    return entry.seq === 4 ? { ...entry, type: 'other' } : entry
  })
  t.match(await app.audit.verify(), { ok: false, what: 'edited', index: 2 })
  ledger.entries = entries.bind(ledger)
  ledger.head = async () => ({ ...await head.call(ledger), size: 256 })
  t.match(await app.audit.verify(), { ok: false, what: 'truncated', index: 256 })
  ledger.head = async () => ({ ...await head.call(ledger), size: 0 })
  t.match(await app.audit.verify(), { ok: false, what: 'truncated', index: 0 })
  ledger.head = head.bind(ledger)
  ledger.tiles = async wanted => wanted.map(() => undefined)
  await t.rejects(app.audit.inclusionProof(299, 300), TypeError)
  ledger.tiles = tiles.bind(ledger)
  t.match(await app.audit.verify(), { ok: true, size: 301 })
})

t.test('a log that grows while it is verified is whole', async t => {
  const { app, ledger } = await logging(t)
  for (let i = 0; i < 1000; i++) await app.audit.note({ type: 'test' })
  await app.audit.checkpoint()
  const { checkpointsAfter, entries } = ledger
  // They come one by one, so that those are seen that are signed meanwhile.
  ledger.checkpointsAfter = async size => await checkpointsAfter.call(ledger, size, 1)
  let grown = 0
  ledger.entries = async (from, to) => {
    const found = await entries.call(ledger, from, to)
    if (grown++ < 3) {
      await app.audit.record({ type: 'meanwhile' })
      await app.audit.checkpoint()
    }
    return found
  }
  t.match(await app.audit.verify(), { ok: true, size: 1004 })
  t.match(await app.audit.verify({ since: 1000 }), { ok: true, size: 1004 })
  const lines = []
  for await (const line of app.audit.lines()) lines.push(line)
  t.ok(lines.length > 1004)
})

t.test('a sink that fails is logged, and gets its copies later', async t => {
  const [taken, state] = [deferred(), { fails: true }]
  const { app, logged } = await logging(t, {
    copies: [{
      name: 'shaky',
      write: async entries => {
        if (state.fails) throw new Error('no')
        if (entries.some(({ type }) => type === 'test')) taken.resolve()
      },
      close: async () => {}
    }]
  })
  const told = logged('the sink shaky took no copies')
  await app.audit.record({ type: 'test' })
  await told
  state.fails = false
  await soon(taken.promise)
  t.match(app.audit.figures, { copiesDropped: 0 })
})

t.test('a log is verified where it lies, index and all', async t => {
  const ledger = memoryLedger()
  const { audit } = await audited(t, { ledger })
  for (let i = 0; i < 5; i++) await audit.record({ type: 'test', actor: { sub: 'alice' }, data: { i } })
  const entries = ledger.entries.bind(ledger)
  const altered = (alter: (entry: StoredEntry) => StoredEntry) => { ledger.entries = async (from, to) => (await entries(from, to)).map(entry => entry.seq === 3 ? alter(entry) : entry) }
  const seen: number[] = []
  t.match(await audit.verify({ since: 2, onProgress: seq => { seen.push(seq) } }), { ok: true, size: 6 })
  t.equal(seen.at(-1), 6)
  altered(entry => ({ ...entry, type: 'session.end' }))
  t.match(await audit.verify(), { ok: false, what: 'edited', index: 3, message: /filed/ })
  t.match(await audit.verify({ since: 4 }), { ok: true })
  altered(entry => ({ ...entry, leaf: entry.leaf.replace('"i":2', '"i":3') }))
  t.match(await audit.verify(), { ok: false, what: 'edited', index: 3 })
  altered(entry => ({ ...entry, leaf: 'nonsense' }))
  t.match(await audit.verify(), { ok: false, what: 'edited', index: 3 })
  ledger.entries = async (from, to) => (await entries(from, to)).filter(({ seq }) => seq !== 3)
  t.match(await audit.verify(), { ok: false, what: 'deleted', index: 3 })
})

t.test('an empty log has no checkpoint', async t => {
  const ledger = memoryLedger()
  ledger.append = async () => await new Promise(() => {})
  const app = await audited(t, { ledger, guarantee: 'best-effort', timeout: 30, gather: { time: 1 } })
  await t.rejects(app.audit.checkpoint(), { code: 'FST_AUDIT_RANGE', message: 'the log has 0 entries, fewer than 1' })
  t.match(await app.audit.verify(), { ok: true, size: 0, signed: 0 })
  await app.audit.record({ type: 'test' })
})
