import { inspect } from 'node:util'
import t from 'tap'
import type { Change, HookContext, Outcome } from '../plugins/token-registry/index.ts'
import { build } from './support/build.ts'
import { decorated } from './support/decorated.ts'
import { deferred, soon } from './support/deferred.ts'
import { endings, refused, rig } from './support/rig.ts'

interface Told { change: Change, outcome?: Outcome, context: HookContext }

/** What `preChange` and `preAnswer` are told, by operation. */
function witness (registry: Awaited<ReturnType<typeof rig>>['registry']) {
  const told = new Map<string, Told>()
  registry.addHook('preChange', (change, context) => { told.set(context.op, { change, context }) })
  registry.addHook('preAnswer', (outcome, { op }) => {
    const before = told.get(op)
    if (before === undefined || before.outcome !== undefined) throw new Error('an answer without a change')
    before.outcome = outcome
  })
  return told
}

t.test('every change is told before it is made, and once it is', async t => {
  const { registry } = await rig(t)
  const told = witness(registry)
  const issued = await registry.issue({ sub: 'alice' })
  await registry.save('adopted-token', { sub: 'alice', use: 'once' })
  await registry.saveBatch([{ token: 'adopted-1', data: { sub: 'alice' } }, { token: 'adopted-2', data: { sub: 'bob' } }])
  await registry.update(issued.session.id, { meta: { deviceId: 'phone' } })
  const { token, session } = await registry.rotate(issued.token)
  await registry.rotate(issued.token)
  await registry.consume('adopted-token')
  await registry.revoke(token, 'revoked', { by: 'carol' })
  await registry.revokeById(session.id)
  await registry.update(session.id, { meta: {} })
  await registry.revokeAll({ sub: 'alice', except: [session.id] })
  await registry.enforceLimits()
  await registry.denylist.add('some-jti', registry.now() + 60_000)
  await registry.denylist.add('some-jti', registry.now() + 60_000)
  const rows = [...told.values()].map(({ change: { sessions: stored, ...change }, outcome, context: { operation } }) => ({
    operation, change: { ...change, ...stored !== undefined && { stored: stored.length } }, sessions: outcome?.sessions.length, count: outcome?.count, error: outcome?.error
  }))
  const { id } = session
  const rotated = { operation: 'rotate', change: { id, client: null }, sessions: 1, count: null, error: null }
  t.same(rows, [
    { operation: 'issue', change: { stored: 1 }, sessions: 1, count: null, error: null },
    { operation: 'save', change: { stored: 1 }, sessions: 1, count: null, error: null },
    { operation: 'save', change: { stored: 2 }, sessions: 2, count: null, error: null },
    { operation: 'update', change: { id }, sessions: 1, count: null, error: null },
    rotated,
    rotated,
    { operation: 'consume', change: { id: rows[6]?.change.id, client: null }, sessions: 1, count: null, error: null },
    { operation: 'revoke', change: { id, reason: 'revoked', by: 'carol' }, sessions: 1, count: null, error: null },
    { operation: 'revoke', change: { id, reason: 'revoked', by: null }, sessions: 0, count: null, error: null },
    { operation: 'update', change: { id }, sessions: 0, count: null, error: null },
    { operation: 'revokeAll', change: { subject: { sub: 'alice', tenant: '' }, except: [id], reason: 'revoked', by: null }, sessions: 0, count: 1, error: null },
    { operation: 'enforce', change: { reason: 'limit' }, sessions: 0, count: 0, error: null },
    { operation: 'deny', change: { id: 'some-jti' }, sessions: 0, count: 1, error: null },
    { operation: 'deny', change: { id: 'some-jti' }, sessions: 0, count: 0, error: null }
  ])
})

t.test('a failure is told, with what was stored before it', async t => {
  const { registry } = await rig(t)
  const told = witness(registry)
  await registry.save('adopted-token', { sub: 'alice' })
  await t.rejects(registry.save('adopted-token', { sub: 'alice' }), { code: 'FST_TOKEN_EXISTS' })
  await t.rejects(registry.saveBatch([{ token: 'adopted-token', data: { sub: 'alice' } }, { token: 'adopted-other', data: { sub: 'bob' } }]), { code: 'FST_TOKEN_EXISTS' })
  registry.addHook('preRevoke', () => { throw new RangeError('no') })
  await t.rejects(registry.revokeAll({ sub: 'alice' }), { message: 'no' })
  await t.rejects(registry.issue({ sub: '' }), refused)
  const outcomes = [...told.values()].map(({ outcome }) => outcome)
  t.match(outcomes, [{ error: null }, { error: { code: 'FST_TOKEN_EXISTS' }, sessions: [] }, { error: { code: 'FST_TOKEN_EXISTS' }, sessions: [{ sub: 'bob' }] }])
  t.equal(outcomes.length, 3, 'what is refused before it changes anything is not told')
})

t.test('where preChange fails nothing has changed', async t => {
  const { registry, store } = await rig(t)
  const { token, session } = await registry.issue({ sub: 'alice' })
  registry.addHook('preChange', async () => { throw new RangeError('the ledger is full') })
  const told = endings(registry)
  const full = { message: 'the ledger is full' }
  const calls: ReadonlyArray<() => Promise<unknown>> = [
    () => registry.issue({ sub: 'alice' }), () => registry.save('adopted-token', { sub: 'alice' }), () => registry.rotate(token), () => registry.update(session.id, { meta: { deviceId: 'x' } }),
    () => registry.revoke(token), () => registry.revokeAll({ sub: 'alice' }), () => registry.enforceLimits({ sub: 'alice' }), () => registry.denylist.add('some-jti', registry.now() + 60_000)
  ]
  for (const call of calls) await t.rejects(call(), full)
  t.same(await store.get(session.id), session)
  t.equal(await store.count({}), 1)
  t.equal(await registry.denylist.has('some-jti'), false)
  t.same(told, [])
})

t.test('where preAnswer fails the answer is withheld, and what was issued is ended', async t => {
  const { registry, store } = await rig(t)
  const { token, session } = await registry.issue({ sub: 'alice' })
  let failing = true
  registry.addHook('preAnswer', async () => { if (failing) throw new RangeError('the ledger is gone') })
  const told = endings(registry)
  const gone = { message: 'the ledger is gone' }

  await t.rejects(registry.issue({ sub: 'bob' }), gone)
  await t.rejects(registry.save('adopted-token', { sub: 'bob' }), gone)
  await registry.denylist.add('first', registry.now() + 60_000).catch(() => {})
  t.equal(await store.count({ sub: 'bob', tenant: '' }), 0)
  t.match(told, [{ sub: 'bob', reason: 'withdrawn' }, { sub: 'bob', reason: 'withdrawn' }])
  await t.rejects(registry.save('adopted-token', { sub: 'bob' }), gone, 'also in place of another error')
  t.equal(told.length, 2)

  await t.rejects(registry.rotate(token), gone)
  failing = false
  t.equal((await registry.rotate(token)).session.generation, 1, 'the successor is there for who asks again')
  failing = true
  await t.rejects(registry.revokeById(session.id), gone)
  t.equal(await store.get(session.id), null, 'what ended stays ended')
})

t.test('sessions that cannot be withdrawn are reported', async t => {
  const { registry } = await rig(t, {}, store => decorated(store, { end: async () => { throw new Error('the store is away') } }))
  const reported = deferred()
  registry.addHook('onError', (error, { hook }) => { if (hook === 'preAnswer' && 'code' in error && error.code === 'FST_STORE_UNAVAILABLE') reported.resolve() })
  registry.addHook('preAnswer', () => { throw new RangeError('the ledger is gone') })
  await t.rejects(registry.issue({ sub: 'bob' }), { message: 'the ledger is gone' })
  await soon(reported.promise)
})

t.test('a hook may have a deadline of its own', async t => {
  const { registry } = await rig(t, { hookTimeout: 10_000 })
  registry.addHook('preChange', async () => { await new Promise(() => {}) }, { timeout: 20 })
  await t.rejects(registry.issue({ sub: 'alice' }), { code: 'FST_TOKEN_HOOK_TIMEOUT', message: 'The preChange hook did not answer within 20 ms' })
})

t.test('hooks are told on whose behalf, and what they are told shows no token', async t => {
  const app = await build(t)
  const registry = app.tokenRegistry
  const contexts: HookContext[] = []
  registry.addHook('preChange', (_change, context) => { contexts.push(context) })
  app.post('/', async request => await request.startSession({ sub: 'alice' }))
  app.post('/rotate', { config: { session: true } }, async request => await request.rotateSession())
  app.post('/end', { config: { session: true } }, async request => await registry.for(request).revokeAll({ sub: 'alice' }))
  app.post('/deny', { config: { session: true } }, async request => await registry.denylist.add('some-jti', registry.now() + 60_000, { request }))
  app.post('/out', { config: { session: true } }, async request => await request.revokeSession())
  const { token } = (await app.inject({ method: 'POST', url: '/' })).json<{ token: string }>()
  const tokens = [token]
  for (const url of ['/rotate', '/deny', '/end']) {
    const { body } = await app.inject({ method: 'POST', url, headers: { authorization: `Bearer ${tokens.at(-1) ?? ''}` } })
    if (url === '/rotate') tokens.push((JSON.parse(body) as { token: string }).token)
  }
  await registry.issue({ sub: 'alice' })
  const other = (await app.inject({ method: 'POST', url: '/' })).json<{ token: string }>()
  await app.inject({ method: 'POST', url: '/out', headers: { authorization: `Bearer ${other.token}` } })
  t.same(contexts.map(({ operation, request }) => `${operation} ${request?.url ?? 'nobody'}`), [
    'issue /', 'rotate /rotate', 'deny /deny', 'revokeAll /end', 'issue nobody', 'issue /', 'revoke /out'
  ])
  for (const secret of [...tokens, other.token]) t.notOk(inspect(contexts, { depth: 10 }).includes(secret) || JSON.stringify(contexts).includes(secret))
})
