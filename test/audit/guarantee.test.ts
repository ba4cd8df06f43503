import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify from 'fastify'
import pg from 'pg'
import t, { type Test } from 'tap'
import audit, { sqlLedger, type AuditEvent, type Sink, type Turn } from '../../plugins/audit/index.ts'
import tokenRegistry, { type TokenRegistry } from '../../plugins/token-registry/index.ts'
import { audited, entriesOf, fragileLedger } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'
import { deferred } from '../support/deferred.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { severable } from '../support/severable.ts'

const unavailable = { code: 'FST_AUDIT_UNAVAILABLE', statusCode: 503, critical: true }

t.test('what cannot be put on record is not done', async t => {
  for (const mode of ['fails', 'hangs'] as const) {
    const { ledger, state } = fragileLedger()
    const app = await audited(t, { ledger, timeout: 50 })
    app.post('/in', async request => await request.startSession({ sub: 'alice' }))
    const { tokenRegistry: registry } = app
    const { token, session } = await registry.issue({ sub: 'alice' })
    state.mode = mode
    await t.rejects(registry.issue({ sub: 'alice' }), unavailable)
    await t.rejects(registry.save('adopted-token', { sub: 'alice' }), unavailable)
    await t.rejects(registry.rotate(token), unavailable)
    await t.rejects(registry.update(session.id, { meta: { deviceId: 'phone' } }), unavailable)
    await t.rejects(registry.revokeById(session.id), unavailable)
    await t.rejects(registry.revokeAll({ sub: 'alice' }), unavailable)
    await t.rejects(registry.denylist.add('some-jti', registry.now() + 60_000), unavailable)
    const { statusCode, body } = await app.inject({ method: 'POST', url: '/in' })
    t.equal(statusCode, 503, mode)
    t.notMatch(body, /trs_/)
    t.match(await registry.verify(token), { session: { sub: 'alice', meta: {}, generation: 0 } }, 'requests that change nothing are served')
    t.equal(await registry.count({ sub: 'alice' }), 1)
  }
})

t.test('what cannot be recorded as done is not answered, and its sessions are ended', async t => {
  const { ledger, state } = fragileLedger()
  // Longer than the log waits before it tries again.
  const app = await audited(t, { ledger, timeout: 1500 })
  const { tokenRegistry: registry } = app
  const { token } = await registry.issue({ sub: 'bob' })
  let failing = true
  registry.addHook('postSave', () => { if (failing) state.mode = 'fails' })
  registry.addHook('postRotate', () => { if (failing) state.mode = 'fails' })
  await t.rejects(registry.issue({ sub: 'alice' }), unavailable)
  t.equal(await registry.count({ sub: 'alice' }), 0)
  state.mode = 'well'
  await t.rejects(registry.rotate(token), unavailable)
  state.mode = 'well'
  failing = false
  t.equal((await registry.rotate(token)).session.generation, 1, 'who asks again gets the successor')

  const types = (await entriesOf(app)).slice(3).map(({ type, reason }) => [type, reason].join(' '))
  t.same(types, ['intent ', 'session.end withdrawn', 'intent ', 'intent ', 'session.rotate '])
  const unresolved = await app.audit.unresolved(registry.now() + 1)
  t.same(unresolved.map(({ data }) => data), [{ operation: 'issue' }, { operation: 'rotate' }], 'intents stand unresolved for an operator')
})

t.test('an answer leaves when all that it tells of is on record', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, timeout: 1500 }, { cookie: true })
  const { tokenRegistry: registry } = app
  app.post('/in', async request => {
    const { token } = await request.startSession({ sub: 'alice' })
    state.mode = 'fails'
    request.audit({ type: 'welcome' })
    return { token }
  })
  app.post('/caught', async request => {
    state.mode = 'fails'
    await request.audit({ type: 'welcome' }).catch(() => {})
    return 'done all the same'
  })
  app.get('/read', async request => {
    state.mode = 'fails'
    request.audit({ type: 'read' }).catch(() => {})
    return 'read'
  })
  app.get('/strict', { config: { audit: true } }, async request => {
    state.mode = 'fails'
    request.audit({ type: 'read' }).catch(() => {})
    return 'read'
  })
  const answer = await app.inject({ method: 'POST', url: '/in' })
  t.equal(answer.statusCode, 503)
  t.match(answer.json(), { code: 'FST_AUDIT_UNAVAILABLE' })
  t.equal(answer.headers['set-cookie'], undefined)
  t.notMatch(answer.body, /trs_/)
  t.equal(await registry.count({ sub: 'alice' }), 0)
  state.mode = 'well'
  t.equal((await app.inject({ method: 'POST', url: '/caught' })).statusCode, 503)
  state.mode = 'well'
  t.equal((await app.inject({ url: '/read' })).statusCode, 200, 'routes that read wait for what they await')
  state.mode = 'well'
  t.equal((await app.inject({ url: '/strict' })).statusCode, 503)
  state.mode = 'well'
})

t.test('what a route does is announced, done, and told with what came of it', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, timeout: 1500 }, { cookie: true })
  const { tokenRegistry: registry, audit } = app
  let price = 1
  const steps: Record<string, () => unknown> = {
    well: () => price++,
    refuses: () => { throw Object.assign(new Error('dear'), { code: 'TOO_DEAR', statusCode: 402 }) },
    breaks: () => { throw new RangeError('broken') },
    unrecorded: () => {
      state.mode = 'fails'
      return price++
    }
  }
  app.post<{ Querystring: { how: string } }>('/price', async request => {
    if (request.query.how === 'unrecorded') await request.startSession({ sub: 'alice' })
    const event: AuditEvent = { type: 'price.change', data: { from: price } }
    return await request.audit(event, async () => {
      const done = await steps[request.query.how]?.()
      event.target = { kind: 'article', id: '7' }
      return { done, price }
    })
  })
  const post = async (how: string) => await app.inject({ method: 'POST', url: `/price?how=${how}` })
  t.match((await post('well')).json(), { done: 1, price: 2 })
  t.match(await post('refuses'), { statusCode: 402 })
  t.match(await post('breaks'), { statusCode: 500 })
  await t.rejects(audit.act({ type: 'keys.rotate' }, () => { throw new TypeError('at once') }), TypeError)
  const told = (await entriesOf(app)).slice(1)
  t.match(told, [
    { type: 'intent', data: { operation: 'price.change' }, actor: { ip: '127.0.0.1' }, target: null },
    { type: 'price.change', outcome: 'success', data: { from: 1 }, requestId: 'req-1', target: { kind: 'article', id: '7' } },
    { type: 'intent' },
    { type: 'price.change', outcome: 'denied', reason: 'TOO_DEAR', data: { from: 2 }, target: null },
    { type: 'intent' },
    { type: 'price.change', outcome: 'failure', reason: 'RangeError' },
    { type: 'intent', data: { operation: 'keys.rotate' } },
    { type: 'keys.rotate', outcome: 'failure', reason: 'TypeError' }
  ])
  for (let i = 0; i < told.length; i += 2) t.equal(told[i]?.op, told[i + 1]?.op)
  t.equal(new Set(told.map(({ op }) => op)).size, 4)

  const answer = await post('unrecorded')
  t.match(answer, { statusCode: 503, headers: { 'set-cookie': undefined } })
  t.match(answer.json(), { code: 'FST_AUDIT_UNAVAILABLE' })
  t.equal(await registry.count({ sub: 'alice' }), 0, 'what it was given is taken back')
  t.equal(price, 3)
  state.mode = 'hangs'
  t.match((await post('well')).json(), { code: 'FST_AUDIT_UNAVAILABLE' })
  t.equal(price, 3, 'nothing was done')
  state.mode = 'well'
  t.match(await audit.unresolved(registry.now() + 1), [{ data: { operation: 'price.change' } }], 'it stands unresolved for an operator')
})

t.test('what a sink that is required does not take is not done either', async t => {
  const state = { mode: 'well' as 'well' | 'fails' | 'hangs', seen: [] as string[] }
  const sink: Sink = {
    name: 'worm',
    required: true,
    async write (entries) {
      if (state.mode === 'fails') throw new Error('full')
      if (state.mode === 'hangs') await new Promise(() => {})
      state.seen.push(...entries.map(({ type }) => type))
    },
    async close () {}
  }
  const app = await audited(t, { copies: [sink], timeout: 200, maxQueue: 5 })
  const { tokenRegistry: registry, audit } = app
  await registry.issue({ sub: 'alice' })
  t.same(state.seen, ['audit.start', 'intent', 'session.start'], 'it has what was answered')
  for (const mode of ['fails', 'hangs'] as const) {
    state.mode = mode
    await t.rejects(registry.issue({ sub: 'alice' }), unavailable)
    await t.rejects(audit.erase({ sub: 'alice' }), unavailable)
    t.equal(await registry.count({ sub: 'alice' }), 1)
    state.mode = 'well'
    while (registry.stats.read()['audit']?.['copiesWaiting'] !== 0) await new Promise(resolve => setTimeout(resolve, 10))
    await registry.revokeAll({ sub: 'nobody' })
  }
  t.match(await registry.healthChecks.read(), { audit: { status: 'ok', required: true } })
  state.mode = 'fails'
  const refused = await Promise.allSettled(Array.from({ length: 10 }, async () => await audit.record({ type: 'test' })))
  t.ok(refused.every(({ status }) => status === 'rejected'), 'too many that wait are refused at once')
  t.match(registry.stats.read()['audit'], { copiesWaiting: 5 })
  const health = async (): Promise<unknown> => (await registry.healthChecks.read())['audit']
  let told = await health()
  for (; Object(told).status === 'ok'; told = await health()) await new Promise(resolve => setTimeout(resolve, 50))
  t.match(told, { status: 'fail', detail: /^entries wait since \d+ ms$/ }, 'health tells that the copies wait')
  await app.close()

  const easy = await audited(t, { copies: [sink], guarantee: 'best-effort', timeout: 200 })
  await easy.tokenRegistry.issue({ sub: 'alice' })
  t.equal(await easy.tokenRegistry.count({ sub: 'alice' }), 1, 'with best effort it keeps nobody waiting')
})

t.test('with best effort what a route does is told once, and never waited for', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, guarantee: 'best-effort' })
  state.mode = 'fails'
  t.equal(await app.audit.act({ type: 'price.change' }, async () => 7), 7)
  state.mode = 'well'
  await app.audit.flush()
  t.same((await entriesOf(app)).map(({ type }) => type).slice(1), ['price.change'])
})

t.test('a lost answer of the ledger stores nothing twice', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, timeout: 5000 })
  state.mode = 'loses the answer'
  const waiting = Promise.all(Array.from({ length: 20 }, async (_, i) => await app.audit.record({ type: 'test', data: { i } })))
  while (state.appends < 2) await new Promise(resolve => setTimeout(resolve, 5))
  state.mode = 'well'
  await waiting
  const entries = await entriesOf(app)
  t.same(entries.map(({ data }) => data?.['i']).slice(1), Array.from({ length: 20 }, (_, i) => i))
  t.match(await app.audit.verify(), { ok: true, size: 21 })
})

t.test('with best effort everything is done; what is lost is counted, and recorded when that is possible', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, guarantee: 'best-effort', maxQueue: 5, timeout: 50 })
  const { tokenRegistry: registry } = app
  await app.audit.flush()
  state.mode = 'fails'
  for (let i = 0; i < 8; i++) await registry.issue({ sub: 'alice' })
  t.equal(await registry.count({ sub: 'alice' }), 8)
  t.match(registry.stats.read()['audit'], { waiting: 5, dropped: 3 })
  await app.audit.record({ type: 'not waited for' })
  state.mode = 'well'
  const seen: string[] = []
  for await (const page of app.audit.follow({ after: 0, idle: 50 })) {
    seen.push(...page.map(({ type, data }) => `${type} ${String(data?.['count'] ?? '')}`))
    if (seen.includes('audit.drop 4')) break
  }
  t.equal(seen.filter(type => type === 'session.start ').length, 5)
  t.notOk(seen.some(type => type.startsWith('intent')), 'nothing is announced')
})

t.test('too many that wait are refused at once', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, maxQueue: 3, timeout: 100 })
  state.mode = 'hangs'
  const results = await Promise.allSettled(Array.from({ length: 5 }, async () => await app.audit.record({ type: 'test' })))
  t.match(results.map(result => result.status === 'rejected' && String(result.reason)), [/within 100 ms/, /within 100 ms/, /within 100 ms/, /3 entries wait/, /3 entries wait/])
})

t.test('what nobody waits for any more does not pile up, and is not stored later', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, maxQueue: 20, timeout: 40 })
  state.mode = 'fails'
  app.audit.note({ type: 'patient' })
  for (let i = 0; i < 30; i++) await Promise.allSettled(Array.from({ length: 15 }, async () => await app.audit.record({ type: 'given up' })))
  t.match(app.audit.figures, { waiting: 1, dropped: 0 })
  t.match(await app.tokenRegistry.healthChecks.read(), { audit: { status: 'fail' } })
  state.mode = 'well'
  await app.audit.flush()
  t.same((await entriesOf(app)).map(({ type }) => type), ['audit.start', 'patient'])
})

t.test('health tells when entries wait, before operations fail of it', async t => {
  const { ledger, state } = fragileLedger()
  const app = await audited(t, { ledger, guarantee: 'best-effort' })
  const health = async () => (await app.tokenRegistry.healthChecks.read())['audit']
  t.match(await health(), { status: 'ok', required: false })
  state.mode = 'fails'
  app.audit.note({ type: 'patient' })
  let told = await health()
  for (; told?.status === 'ok'; told = await health()) await new Promise(resolve => setTimeout(resolve, 50))
  t.match(told, { status: 'degraded', detail: /^entries wait since/ })
  t.ok(Number(app.audit.figures['lag']) >= 1000)
  state.mode = 'well'
  await app.audit.flush()
  t.equal(app.audit.figures['lag'], 0)
})

t.test('a key that cannot be opened stops what is recorded of its owner, and nothing else', async t => {
  const [{ ledger }, secret] = [fragileLedger(), newSecret()]
  const first = await audited(t, { ledger }, { secret })
  await first.audit.record({ type: 'test', actor: { sub: 'mallory' } })
  const keys = await ledger.keysAfter('', 10)
  const own = keys.filter(({ owner }) => owner !== 'finder')
  await ledger.rewrapKeys(own.map(key => ({ ...key, wrapped: 'nonsense' })))
  const app = await audited(t, { ledger, timeout: 500 }, { secret })
  const note = app.audit.note({ type: 'patient', actor: { sub: 'mallory' } })
  const [mallory, alice] = await Promise.allSettled([app.tokenRegistry.issue({ sub: 'mallory' }), app.tokenRegistry.issue({ sub: 'alice' })])
  t.match(mallory, { status: 'rejected', reason: { code: 'FST_AUDIT_KEY', statusCode: 500 } })
  t.match(alice, { status: 'fulfilled' })
  await note
  t.match(app.audit.figures, { waiting: 0, dropped: 2 })
  t.equal(await app.audit.rewrapKeys(), 0, 'and is left as it is')
})

t.test('after a lost answer only where it may have been stored is looked', async t => {
  const { ledger, state } = fragileLedger()
  const secret = newSecret()
  const [app, other] = [await audited(t, { ledger, timeout: 5000 }, { secret }), await audited(t, { ledger }, { secret })]
  for (let i = 0; i < 300; i++) other.audit.note({ type: 'foreign' })
  await other.audit.flush()
  const read: number[] = []
  const { append } = ledger
  const reading = (turn: Turn): Turn['entries'] => async (from, to) => {
    read.push(to - from)
    return await turn.entries(from, to)
  }
  ledger.append = async plan => await append(async turn => await plan({ ...turn, entries: reading(turn) }))
  state.mode = 'loses the answer'
  const before = state.appends
  const recording = app.audit.record({ type: 'own' })
  while (state.appends < before + 2) await new Promise(resolve => setTimeout(resolve, 5))
  state.mode = 'well'
  await recording
  t.ok(read.includes(1), 'one was sent')
  t.ok(Math.max(...read) < 256, 'besides that the last tile is read')
  t.equal((await entriesOf(app)).filter(({ type }) => type === 'own').length, 1)
})

t.test('what is done to the log overtakes nobody whose answer was lost, and is given up like others', async t => {
  const { ledger, state } = fragileLedger()
  const told: number[] = []
  const sink: Sink = { name: 'test', write: async entries => { told.push(...entries.map(({ seq }) => seq)) }, close: async () => {} }
  const app = await audited(t, { ledger, copies: [sink], timeout: 1500 })
  const { audit } = app
  await audit.record({ type: 'test', actor: { sub: 'alice' } })
  // While the key of the day is made for the deed, somebody else's entry comes.
  const { addKeys } = ledger
  const [asked, came] = [deferred(), deferred()]
  ledger.addKeys = async keys => {
    asked.resolve()
    await came.promise
    return await addKeys.call(ledger, keys)
  }
  state.mode = 'loses the answer'
  const before = state.appends
  const erased = audit.erase({ sub: 'alice' }, { actor: { ip: '203.0.113.7' } })
  await asked.promise
  const note = audit.note({ type: 'patient' })
  t.equal(audit.figures['waiting'], 2)
  came.resolve()
  while (state.appends < before + 2) await new Promise(resolve => setTimeout(resolve, 5))
  state.mode = 'well'
  t.equal(await erased, true, 'it is found to be done')
  await note
  await audit.flush()
  while (told.length < (await ledger.head()).size) await new Promise(resolve => setTimeout(resolve, 5))
  t.same(told, Array.from({ length: told.length }, (_, seq) => seq), 'each once, in order')

  ledger.addKeys = addKeys.bind(ledger)
  await audit.record({ type: 'test', actor: { sub: 'bob' } })
  state.mode = 'fails'
  audit.note({ type: 'patient' })
  await t.rejects(audit.erase({ sub: 'bob' }), unavailable)
  state.mode = 'well'
  await audit.flush()
  t.equal(await audit.erase({ sub: 'bob' }), true, 'what was given up is not done later')
})

t.test('what waits at the end is stored, or lost and told', async t => {
  const { ledger } = fragileLedger()
  const app = await audited(t, { ledger, timeout: 50, gather: { time: 20 } })
  const note = app.audit.note({ type: 'test.note', actor: { sub: 'alice' } })
  await app.close()
  await note
  t.match(await ledger.find({ type: 'test.note' }, { limit: 2, order: 'newest' }), [{ type: 'test.note' }])
  await t.rejects(app.audit.record({ type: 'late' }), { message: /it is closed/ })
  await t.rejects(app.audit.erase({ sub: 'alice' }), { message: /it is closed/ })

  const lines: string[] = []
  const other = Fastify({ logger: { stream: { write: line => { lines.push(line) } } } })
  const { ledger: fragile, state } = fragileLedger()
  await other.register(tokenRegistry, { secret: newSecret() })
  await other.register(audit, { ledger: fragile, timeout: 50, gather: { time: 1 } })
  state.mode = 'hangs'
  const lost = other.audit.note({ type: 'test.note' })
  await other.close()
  await lost
  t.match(lines.at(-1), /entries were lost/)
})

t.test('a database that is cut off stops what changes something, and nothing else; it goes on by itself', async t => {
  const way = await severable(t, await freshDatabase(t))
  const pool = new pg.Pool({ connectionString: way.url, max: 3 })
  pool.on('error', () => {})
  t.teardown(async () => await pool.end())
  const app = await audited(t, { ledger: sqlLedger(pool, { timeout: 300 }), timeout: 400 })
  app.post('/in', async request => (await request.startSession({ sub: 'alice' })).token)
  app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.sub)
  const { body: token } = await app.inject({ method: 'POST', url: '/in' })
  await way.cut()
  t.equal((await app.inject({ method: 'POST', url: '/in' })).statusCode, 503)
  t.equal((await app.inject({ url: '/me', headers: { authorization: `Bearer ${token}` } })).body, 'alice')
  t.equal(await app.tokenRegistry.count({ sub: 'alice' }), 1)
  await way.mend()
  let status = 503
  for (let i = 0; i < 50 && status === 503; i++) status = (await app.inject({ method: 'POST', url: '/in' })).statusCode
  t.equal(status, 200)
  t.match(await app.audit.verify(), { ok: true })
})

/** A server with its log in a database, and what it takes to find out whether it still changes anything. */
async function onDatabase (t: Test, url: string): Promise<{ registry: TokenRegistry, fill: () => Promise<void>, isRefused: () => Promise<void>, goesOn: () => Promise<void> }> {
  const pool = new pg.Pool({ connectionString: url, max: 3 })
  pool.on('error', () => {})
  t.teardown(async () => await pool.end())
  const app = await audited(t, { ledger: sqlLedger(pool, { timeout: 300 }), timeout: 400 })
  const { tokenRegistry: registry, audit } = app
  return {
    registry,
    fill: async () => { for (;;) await registry.issue({ sub: 'alice' }) },
    async isRefused () {
      const before = await registry.count({ sub: 'alice' })
      for (let i = 0; i < 3; i++) await t.rejects(registry.issue({ sub: 'alice' }), unavailable)
      t.equal(await registry.count({ sub: 'alice' }), before, 'nothing has changed')
    },
    async goesOn () {
      let issued = false
      for (let i = 0; i < 50 && !issued; i++) issued = await registry.issue({ sub: 'alice' }).then(() => true, () => false)
      t.ok(issued, 'by itself')
      t.match(await audit.verify(), { ok: true })
    }
  }
}

t.test('a database that takes no writes stops what changes something; it goes on by itself', async t => {
  const url = await freshDatabase(t)
  const { registry, isRefused, goesOn } = await onDatabase(t, url)
  const { token } = await registry.issue({ sub: 'alice' })
  const name = new URL(url).pathname.slice(1)
  const others = 'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()'
  await execute(url, `alter database ${name} set default_transaction_read_only = on`)
  await execute(url, others)
  await isRefused()
  await t.rejects(registry.revokeAll({ sub: 'alice' }), unavailable)
  t.match(await registry.verify(token), { session: { sub: 'alice' } }, 'requests that change nothing are served')
  const elsewhere = Object.assign(new URL(url), { pathname: '/postgres' }).href
  await execute(elsewhere, `alter database ${name} reset default_transaction_read_only`)
  await execute(url, others)
  await goesOn()
})

if (process.getuid?.() === 0) {
  t.test('a database whose disk is full stops what changes something; it goes on when there is room', async t => {
    const disk = await mkdtemp(join(tmpdir(), 'disk-'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk])
    t.teardown(() => execFileSync('umount', [disk]))
    const url = await freshDatabase(t)
    await mkdir(join(disk, 'tables'))
    execFileSync('chown', ['--reference', String((await execute(url, 'show data_directory')).rows[0].data_directory), join(disk, 'tables')])
    const space = `full_${randomBytes(4).toString('hex')}`
    await execute(url, `create tablespace ${space} location '${join(disk, 'tables')}'`)
    const { fill, isRefused, goesOn } = await onDatabase(t, url)
    t.teardown(async () => {
      await execute(url, 'drop table audit_entries')
      await execute(url, `drop tablespace ${space}`)
    })
    await execute(url, `alter table audit_entries set tablespace ${space}`)
    await writeFile(join(disk, 'ballast'), 'x'.repeat(1_800_000))
    await t.rejects(fill(), unavailable)
    await isRefused()
    await rm(join(disk, 'ballast'))
    await goesOn()
  })
}
