import { hash } from 'node:crypto'
import { setImmediate, setTimeout } from 'node:timers/promises'
import Fastify from 'fastify'
import t from 'tap'
import { hostileStrings, malformedStrings, sessionData } from '../plugins/testing/index.ts'
import { keyOf } from '../plugins/token-registry/cache.ts'
import tokenRegistry, { memoryStore, type SessionData, type SessionRecord } from '../plugins/token-registry/index.ts'
import { build, newSecret } from './support/build.ts'
import { decorated } from './support/decorated.ts'
import { MinimalStore } from './support/minimal-store.ts'
import { DAY, endings, expired, invalid, listen, refused, reused, revoked, rig, statusesOf } from './support/rig.ts'

// Sessions

t.test('what is issued is what was asked for, and the token proves it', async t => {
  const { registry, clock } = await rig(t, { ttl: '1h', idleTimeout: '5m' })
  const now = clock.now()
  const plain = await registry.issue({ sub: 'alice' })
  t.match(plain.session, {
    tenant: '',
    sub: 'alice',
    client: null,
    use: 'session',
    scope: [],
    generation: 0,
    revision: 0,
    issuedAt: now,
    expiresAt: now + 3_600_000,
    idleTimeout: 300_000,
    lastUsedAt: now,
    rotatedAt: null,
    origin: null,
    binding: null,
    meta: {}
  })
  t.notOk('version' in plain.session)

  const data: SessionData = { ...sessionData({ tenant: 'acme', client: 'app', ttl: '1s', idleTimeout: null, binding: 'a'.repeat(43), version: '2' }), use: 'session' }
  const full = await registry.issue(data)
  const { ttl, ...kept } = data
  t.match(full.session, { ...kept, expiresAt: now + 1000 })

  const auth = await registry.verify(plain.token)
  t.same(auth.session, plain.session)
  t.same(auth.claims, {})
  t.equal(await registry.verify(plain.token), auth, 'the second time from the cache')
  t.same(await registry.get(plain.token), plain.session)
  t.same(await registry.getById(plain.session.id), plain.session)
  t.match(registry.stats.read(), { sessions: { issued: 2 }, cache: { hits: 1, misses: 1, tokens: 1 } })
})

t.test('who makes a request cannot be written to, at any depth', async t => {
  const { registry } = await rig(t)
  const { token } = await registry.issue(sessionData({ meta: { deviceId: 'phone', ...{ deep: { list: [{ a: 1 }] } } } }))
  const auth = await registry.verify(token)
  const { session, scope, claims } = auth
  const { deep } = session.meta as unknown as { deep: { list: Array<{ a: number }> } } // what was issued
  t.throws(() => Object.assign(auth, { session: null }), TypeError)
  t.throws(() => Object.assign(session, { sub: 'mallory' }), TypeError)
  t.throws(() => Object.assign(session.meta, { deviceId: 'x' }), TypeError)
  t.throws(() => Object.assign(deep.list[0] ?? {}, { a: 2 }), TypeError)
  t.throws(() => deep.list.push({ a: 2 }), TypeError)
  t.throws(() => Object.assign(scope, ['admin']), TypeError)
  t.throws(() => Object.assign(session.scope, ['admin']), TypeError)
  t.throws(() => Object.assign(claims, { admin: true }), TypeError)
  t.match(await registry.verify(token), { scope: ['read'], session: { sub: 'alice', meta: { deviceId: 'phone', deep: { list: [{ a: 1 }] } } } })
})

t.test('a session of 30 days is valid on day 25 and gone on day 31', async t => {
  const { registry, clock } = await rig(t)
  const told = endings(registry)
  const { token, session } = await registry.issue({ sub: 'alice' })
  t.equal(session.expiresAt - session.issuedAt, 30 * DAY)
  clock.advance(25 * DAY)
  t.equal((await registry.verify(token)).session.sub, 'alice')
  t.equal((await registry.verify(token)).session.sub, 'alice', 'from the cache')
  clock.advance(5 * DAY - 1)
  await registry.verify(token)
  clock.advance(1)
  await t.rejects(registry.verify(token), expired)
  clock.advance(DAY)
  await t.rejects(registry.verify(token), expired)
  t.equal(await registry.get(token), null)
  await t.rejects(registry.rotate(token), expired)
  t.match(told, [{ reason: 'expired', id: session.id, at: session.expiresAt }])
  t.match(await registry.explain(session.id), { reason: 'expired' })
})

t.test('each way of ending is told apart, to those who may know', async t => {
  const { registry, clock } = await rig(t)
  const issue = async (data: Partial<SessionData> = {}) => await registry.issue({ sub: 'alice', ...data })
  const [limited, idle, changed, unknown] = [await issue({ ttl: '1s' }), await issue({ idleTimeout: '1s' }), await issue(), await issue()]
  await registry.revoke(changed.token, 'password_changed', { by: 'alice' })
  clock.advance(1000)
  await t.rejects(registry.verify(limited.token), expired)
  await t.rejects(registry.verify(idle.token), expired)
  await t.rejects(registry.verify(changed.token), revoked)
  await t.rejects(registry.rotate(changed.token), revoked)
  t.match(await registry.explain(idle.session.id), { reason: 'idle', by: null })
  t.match(await registry.explain(changed.session.id), { reason: 'password_changed', by: 'alice', sub: 'alice' })
  t.equal(await registry.explain(unknown.session.id), null)
  t.equal(await registry.explain('no id'), null)
})

t.test('a token that the caller made is adopted, found, and kept nowhere', async t => {
  const { registry, clock } = await rig(t)
  for (const token of ['8 chars!', 'x'.repeat(512), 'tr', '\u{1f600}'.repeat(8), 'a b c d e f', 'TRS_not-ours'].map(text => text.padEnd(8, '.'))) {
    const session = await registry.save(token, { sub: 'alice' }, '1h')
    t.equal(session.id, hash('sha256', token, 'base64url').slice(0, 24))
    t.match(session, { sub: 'alice', kid: null, expiresAt: clock.now() + 3_600_000 })
    t.same((await registry.verify(token)).session, session)
    t.same(await registry.get(token), session)
    await t.rejects(registry.rotate(token), invalid)
    t.equal(await registry.revoke(token), true)
    await t.rejects(registry.verify(token), revoked)
    await t.rejects(registry.save(token, { sub: 'bob' }), { code: 'FST_TOKEN_EXISTS', statusCode: 409 })
  }
  const { expiresAt } = await registry.save('token-with-ttl', { sub: 'alice', ttl: '2h' })
  t.equal(expiresAt, clock.now() + 7_200_000)
})

t.test('what could not be presented is not adopted, whatever the validator', async t => {
  for (const validator of ['default', 'none', 'strict'] as const) {
    const { registry } = await rig(t, { validator })
    const { token: ours } = await registry.issue(sessionData())
    const tokens = ['', '7 chars', 'x'.repeat(513), ours, 'trs_hello', 'trr_hello', 'tro_hello', ...malformedStrings.map(text => text.repeat(8)), null, 7, {}] as string[]
    for (const token of tokens) await t.rejects(registry.save(token, sessionData()), refused)
  }
  const { registry } = await rig(t)
  await t.rejects(registry.save('adopted-token', { sub: 'alice', use: 'refresh' }), { ...refused, message: /refresh/ })
  for (const token of ['7 chars', 'x'.repeat(513), ...malformedStrings]) {
    await t.rejects(registry.verify(token), invalid)
    await t.rejects(registry.consume(token), invalid)
  }
})

t.test('a batch is stored at once, in the order given', async t => {
  let inserts = 0
  const { registry } = await rig(t, {}, store => decorated(store, {
    insert: async (records, options) => {
      inserts++
      return await store.insert(records, options)
    }
  }))
  t.same(await registry.saveBatch([]), [])
  const list = Array.from({ length: 100 }, (_, i) => ({ token: `batch-token-${i}`, data: { sub: `user-${i % 3}` }, ...i === 7 && { ttl: '1h' } }))
  const sessions = await registry.saveBatch(list)
  t.same(sessions.map(({ sub }) => sub), list.map(({ data }) => data.sub))
  t.equal(inserts, 1)
  for (const [i, { token }] of list.entries()) t.same(await registry.get(token), sessions[i])
})

t.test('a batch with a fault in it stores nothing, and says where it is', async t => {
  const { registry, store } = await rig(t, { validator: () => { throw new TypeError('no') } })
  await t.rejects(registry.saveBatch([{ token: 'batch-token-1', data: { sub: 'alice' } }]), { ...refused, message: 'token 1 of 1: no' })
  const { registry: plain } = await rig(t, {}, () => store)
  await t.rejects(plain.saveBatch([{ token: 'batch-token-1', data: { sub: 'alice' } }, { token: 'batch-token-2', data: { sub: '' } }]), { ...refused, message: /^token 2 of 2: sub: / })
  await t.rejects(plain.saveBatch(Array.from({ length: 10_001 }, (_, i) => ({ token: `batch-token-${i}`, data: { sub: 'alice' } }))), { ...refused, message: /10000/ })
  await t.rejects(plain.saveBatch('list' as never), refused)
  plain.addHook('preSave', () => { throw new RangeError('stop') })
  await t.rejects(plain.saveBatch([{ token: 'batch-token-1', data: { sub: 'alice' } }]), RangeError)
  t.equal(await store.count({}), 0)
})

t.test('where a subject of a batch is refused, the others are stored and the error says which', async t => {
  const { registry } = await rig(t)
  await registry.save('taken-token', { sub: 'alice' })
  const told = listen(registry, 'postSave')
  const list = [['taken-token', 'alice'], ['new-token-1', 'alice'], ['new-token-2', 'bob'], ['new-token-3', 'carol'], ['new-token-3', 'dave']]
  const error = await registry.saveBatch(list.map(([token = '', sub = '']) => ({ token, data: { sub } }))).then(() => null, (error: unknown) => error)
  t.match(error, { code: 'FST_TOKEN_EXISTS', saved: [{ sub: 'bob' }, { sub: 'carol' }] })
  t.equal(await registry.count({}), 3)
  t.match((await registry.verify('new-token-3')).session, { sub: 'carol' }, 'one token stands for one subject')
  t.equal(told.length, 2)
})

t.test('nothing that is looked up by rubbish throws', async t => {
  const { registry } = await rig(t)
  await registry.issue({ sub: 'alice' })
  for (const text of [...hostileStrings, ...malformedStrings, 'a'.repeat(24), '']) {
    t.equal(await registry.get(text), null)
    t.equal(await registry.getById(text), null)
    t.equal(await registry.revoke(text), false)
    t.equal(await registry.revokeById(text), false)
    t.equal(await registry.update(text, { scope: [] }), null)
    t.equal(await registry.explain(text), null)
  }
  t.equal(await registry.count({}), 1)
})

t.test('what is no text is no token', async t => {
  const { registry } = await rig(t)
  const missing = { code: 'FST_TOKEN_MISSING', statusCode: 401 }
  for (const [token, fault] of [[undefined, missing], [null, missing], ['', missing], [7, invalid], [{}, invalid], [['trs_'], invalid]] as Array<[never, typeof invalid]>) {
    for (const call of ['verify', 'rotate', 'consume'] as const) await t.rejects(async () => await registry[call](token), fault)
    t.equal(await registry.get(token), null)
    t.equal(await registry.revoke(token), false)
    await t.rejects(registry.save(token, { sub: 'alice' }), refused)
    await t.rejects(registry.saveBatch([token]), refused)
  }
})

t.test('what is undefined or misspelt is not taken for everybody', async t => {
  const { registry } = await rig(t)
  const { session } = await registry.issue({ sub: 'alice' })
  const { session: { id } } = await registry.issue({ sub: 'bob' })
  for (const options of [{ sub: undefined }, { subject: 'alice' }, { tenant: '' }, { sub: 'bob', tenant: undefined }]) await t.rejects(registry.revokeById(id, 'revoked', options as object), refused)
  for (const options of [{}, { sub: undefined }, { sub: 'bob', tenant: undefined }, { sub: 'bob', except: undefined }, { subject: 'bob' }]) await t.rejects(registry.revokeAll(options as { sub: string }), refused)
  for (const key of ['sub', 'tenant', 'client', 'deviceId', 'ipAddress', 'issuedAfter']) {
    await t.rejects(registry.list({ [key]: undefined }), { ...refused, message: new RegExp(`^${key}: is undefined`) })
    await t.rejects(registry.count({ [key]: undefined }), refused)
  }
  t.equal(await registry.count({}), 2)
  t.equal(await registry.revokeById(id, undefined, { sub: 'alice', by: 'alice' }), false)
  t.equal(await registry.revokeById(session.id, undefined, { sub: 'alice', tenant: '', by: 'alice' }), true)
})

t.test('an update takes effect at once, also for what the cache knows', async t => {
  const { registry, clock } = await rig(t)
  const { token, session: { id } } = await registry.issue(sessionData())
  await registry.verify(token)
  t.match(await registry.update(id, { scope: ['write'] }), { scope: ['write'], revision: 1 })
  t.same((await registry.verify(token)).scope, ['write'])

  t.match(await registry.update(id, { meta: { deviceId: 'tablet' }, version: '2', idleTimeout: '15m' }, 1), { meta: { deviceId: 'tablet' }, version: '2', idleTimeout: 900_000 })
  await t.rejects(registry.update(id, { scope: [] }, 1), { code: 'FST_SESSION_CONFLICT', statusCode: 409 })
  t.match(await registry.update(id, { idleTimeout: null }), { idleTimeout: null })
  t.match(await registry.update(id, { idleTimeout: 1000 }), { idleTimeout: 1000 })
  clock.advance(1000)
  t.equal(await registry.update(id, { scope: [] }), null)

  const faults = [{ scope: ['a b'] }, { scope: 'read' }, { meta: { deviceId: '' } }, { meta: { a: 1n } }, { idleTimeout: 999 }, { idleTimeout: '1y' }, { version: '' }, { sub: 'bob' }, null, 7]
  for (const patch of faults) await t.rejects(registry.update(id, patch as never), refused)
})

t.test('lists and counts are of one tenant, unless all are asked for', async t => {
  const { registry } = await rig(t)
  for (const tenant of ['', 'acme']) for (const sub of ['alice', 'bob']) await registry.issue(sessionData({ tenant, sub, client: 'app' }))
  await registry.issue({ sub: 'alice', use: 'once' })
  const counts = [
    [{}, 2], [{ sub: 'alice' }, 1], [{ tenant: 'acme' }, 2], [{ allTenants: true }, 4], [{ allTenants: true, sub: 'alice' }, 2], [{ allTenants: true, client: 'app', deviceId: 'phone' }, 4],
    [{ tenant: 'other' }, 0], [{ client: 'other' }, 0], [{ ipAddress: '192.0.2.1' }, 2]
  ] as const
  for (const [query, count] of counts) {
    t.equal(await registry.count(query), count, JSON.stringify(query))
    t.equal((await registry.list(query)).sessions.length, count, JSON.stringify(query))
  }
  const first = await registry.list({ limit: 1 })
  const second = await registry.list({ limit: 1, cursor: first.cursor })
  t.same([first.sessions[0]?.sub, second.sessions[0]?.sub, second.cursor], ['bob', 'alice', null])

  const faults = [{ limit: 0 }, { limit: 501 }, { limit: 1.5 }, { limit: '10' }, { cursor: '*' }, { sub: '' }, { sub: 7 }, { user: 'alice' }, { ipAddress: 'x' }, { issuedAfter: NaN }, { tenant: 'a\0' }]
  for (const query of faults) await t.rejects(registry.list(query as never), refused, JSON.stringify(query))
})

// Rotation

t.test('a token is replaced by its successor, and both prove the session while the window is open', async t => {
  const { registry, clock } = await rig(t, { reuseWindow: '10s' })
  const told = listen(registry, 'preRotate', 'postRotate', 'onEnd', 'onReuse')
  const { token, session } = await registry.issue({ sub: 'alice', client: 'app' })
  await registry.verify(token)
  const next = await registry.rotate(token)
  t.not(next.token, token)
  t.match(next.session, { id: session.id, generation: 1, rotatedAt: clock.now() })
  t.same((await registry.verify(next.token)).session, next.session)

  clock.advance(9_999)
  t.same((await registry.verify(token)).session, next.session)
  t.equal((await registry.rotate(token)).token, next.token, 'a lost response is answered with the same token')
  clock.advance(1)
  await t.rejects(registry.verify(token), reused)
  t.equal(await registry.get(token), null)
  t.match(await registry.get(next.token), { generation: 1 }, 'to present an old token for a request ends nothing')

  await t.rejects(registry.rotate(token), reused)
  await t.rejects(registry.verify(next.token), reused)
  await t.rejects(registry.rotate(next.token), reused)
  t.match(await registry.explain(session.id), { reason: 'reuse_recent' })
  t.same(told.map(({ hook }) => hook), ['preRotate', 'postRotate', 'preRotate', 'preRotate', 'onEnd', 'onReuse', 'preRotate'])
  t.match(told[4], { args: [{ id: session.id, generation: 1 }, { reason: 'reuse_recent', sub: 'alice' }] })
  t.match(told[0], { args: [{ id: session.id, generation: 0, client: null }, { operation: 'rotate' }] })
  t.match(registry.stats.read(), { sessions: { rotated: 1, reused: 1 }, ended: { reuse_recent: 1 } })
})

t.test('a token that was replaced ends with its session, window or not', async t => {
  const { registry, clock } = await rig(t, { reuseWindow: '1d' })
  const { token } = await registry.issue({ sub: 'alice', ttl: '10s' })
  clock.advance(7000)
  await registry.rotate(token)
  await registry.verify(token)
  clock.advance(3000)
  t.equal(registry.cached(keyOf(token)), undefined)
  await t.rejects(registry.verify(token), expired)
})

t.test('a token from long before ends its session, and no other', async t => {
  const { registry } = await rig(t)
  const other = await registry.issue({ sub: 'alice' })
  const { token, session } = await registry.issue({ sub: 'alice' })
  const second = await registry.rotate(token)
  const third = await registry.rotate(second.token)
  await t.rejects(registry.verify(token), reused)
  await t.rejects(registry.rotate(token), reused)
  await t.rejects(registry.verify(third.token), reused)
  t.match(await registry.explain(session.id), { reason: 'reuse_stale' })
  await registry.verify(other.token)
})

t.test('another client or key gets nothing, and ends nothing', async t => {
  const { registry } = await rig(t)
  const binding = 'a'.repeat(43)
  const { token } = await registry.issue({ sub: 'alice', client: 'app', binding })
  const proofs = [{}, { binding: 'b'.repeat(43) }, { binding, client: 'other' }, { binding, client: null }, { client: 'app' }]
  for (const proof of proofs) {
    await t.rejects(registry.rotate(token, proof), invalid)
    await t.rejects(registry.verify(token, proof), invalid)
  }
  t.match((await registry.verify(token, { binding, client: 'app' })).session, { binding })
  for (const proof of proofs) await t.rejects(registry.verify(token, proof), invalid, 'from the cache')
  t.match((await registry.rotate(token, { binding })).session, { generation: 1 })
})

t.test('a refresh token rotates and makes no requests', async t => {
  const { registry } = await rig(t)
  const { token } = await registry.issue({ sub: 'alice', use: 'refresh' })
  await t.rejects(registry.verify(token), invalid)
  t.match(await registry.get(token), { use: 'refresh' })
  const next = await registry.rotate(token)
  t.match(next.token, /^trr_/)
  await t.rejects(registry.verify(next.token), invalid)
  await t.rejects(registry.consume(next.token), invalid)
})

t.test('100 rotations of one token at the same time give one successor', async t => {
  const { registry } = await rig(t)
  const told = listen(registry, 'postRotate', 'onEnd')
  const { token } = await registry.issue({ sub: 'alice' })
  const rotated = await Promise.all(Array.from({ length: 100 }, async () => await registry.rotate(token)))
  t.equal(new Set(rotated.map(next => next.token)).size, 1)
  t.equal((await registry.verify(rotated[0]?.token ?? '')).session.generation, 1)
  t.same(told.map(({ hook }) => hook), ['postRotate'])
})

t.test('without a window, of 100 rotations at the same time one succeeds and one ending is told', async t => {
  const { registry } = await rig(t, { reuseWindow: 0 })
  const told = endings(registry)
  const { token } = await registry.issue({ sub: 'alice' })
  t.same(await statusesOf(Array.from({ length: 100 }, async () => await registry.rotate(token))), { ok: 1, FST_TOKEN_REUSED: 99 })
  t.match(told, [{ reason: 'reuse_recent' }])
  t.equal(told.length, 1)
})

t.test('a clock that is set back opens no window', async t => {
  const { registry, clock } = await rig(t, { reuseWindow: 0 })
  const [session, once] = [await registry.issue({ sub: 'alice' }), await registry.issue({ sub: 'alice', use: 'once' })]
  await registry.rotate(session.token)
  await registry.consume(once.token)
  clock.advance(-1000)
  await t.rejects(registry.rotate(session.token), reused)
  await t.rejects(registry.consume(once.token), reused)
})

t.test('a rotation that the store has lost is recovered from the token', async t => {
  const secret = newSecret()
  const { registry, store } = await rig(t, { secret })
  const { token, session } = await registry.issue({ sub: 'alice' })
  const { token: third } = await registry.rotate((await registry.rotate(token)).token)

  const { registry: restored, store: old } = await rig(t, { secret })
  await old.insert([session], { op: session.op })
  t.equal((await restored.verify(third)).session.generation, 0)
  t.match(restored.stats.read(), { sessions: { recovered: 1 } })
  const { token: fourth } = await restored.rotate(third)
  t.equal((await restored.verify(fourth)).session.generation, 3)
  t.match(restored.stats.read(), { sessions: { recovered: 2 } })
  await t.rejects(restored.rotate(token), reused)
  t.equal(await store.count({}), 1)
})

// One-time tokens

t.test('a one-time token is taken once, and the second to present it ends what came of it', async t => {
  const { registry } = await rig(t)
  const told = listen(registry, 'postRotate', 'onEnd', 'onReuse')
  for (const save of [false, true]) {
    const token = save ? 'adopted-once' : (await registry.issue({ sub: 'alice', use: 'once', client: 'app' })).token
    if (save) await registry.save(token, { sub: 'alice', use: 'once', client: 'app' })
    await t.rejects(registry.verify(token), invalid)
    await t.rejects(registry.rotate(token), invalid)
    await t.rejects(registry.consume(token, { client: 'other' }), invalid)
    const found = await registry.get(token)
    await t.rejects(registry.issue({ sub: 'alice', origin: found?.id ?? '' }), reused, 'not consumed yet')

    const { id } = await registry.consume(token, { client: 'app' })
    t.equal(id, found?.id)
    t.equal(await registry.get(token), null, 'it stands for nothing any more')
    const came = await registry.issue({ sub: 'alice', origin: id })
    const adopted = await registry.save(`came-of-${id}`, { sub: 'alice', origin: id })
    const beside = await registry.issue({ sub: 'alice' })
    t.equal(await registry.count({ sub: 'alice' }), 3)

    told.length = 0
    await t.rejects(registry.consume(token), reused)
    await t.rejects(registry.verify(came.token), reused)
    await t.rejects(registry.issue({ sub: 'alice', origin: id }), reused)
    await t.rejects(registry.consume(token), reused)
    await registry.verify(beside.token)
    t.same(told.map(({ hook }) => hook), ['onEnd', 'onEnd', 'onEnd', 'onReuse'])
    t.same(told.slice(0, 3).map(({ args }) => (args[0] as SessionRecord).id).sort(), [id, came.session.id, adopted.id].sort())
    t.equal((told[3]?.args[0] as SessionRecord).id, id)
    await registry.revokeAll({ sub: 'alice' })
  }
})

t.test('a one-time token lives as long as it may, however short the idle timeout', async t => {
  const { registry, clock } = await rig(t, { idleTimeout: '15m' })
  const { token, session } = await registry.issue({ sub: 'alice', use: 'once', ttl: '1h' })
  t.equal(session.idleTimeout, null)
  clock.advance(3_599_999)
  t.match(await registry.consume(token), { id: session.id })
})

t.test('of 100 that present a one-time token at the same time one gets it', async t => {
  const { registry } = await rig(t)
  const { token } = await registry.issue({ sub: 'alice', use: 'once' })
  t.same(await statusesOf(Array.from({ length: 100 }, async () => await registry.consume(token))), { ok: 1, FST_TOKEN_REUSED: 99 })
})

// Revocation

t.test('what is revoked is gone when the call returns', async t => {
  const { registry } = await rig(t)
  const told = listen(registry, 'preRevoke', 'postRevoke', 'onEnd')
  const [first, second] = [await registry.issue({ sub: 'alice' }), await registry.issue({ sub: 'alice', tenant: 'acme' })]
  await Promise.all([registry.verify(first.token), registry.verify(second.token)])
  t.equal(await registry.revoke(first.token, 'logout', { by: 'alice' }), true)
  await t.rejects(registry.verify(first.token), revoked)
  t.equal(await registry.revoke(first.token), false)
  t.equal(await registry.revokeById(first.session.id), false)

  const { id } = second.session
  for (const subject of [{ sub: 'alice' }, { sub: 'bob', tenant: 'acme' }, { sub: 'bob' }]) t.equal(await registry.revokeById(id, 'revoked', subject), false)
  await registry.verify(second.token)
  t.equal(await registry.revokeById(id, 'revoked', { sub: 'alice', tenant: 'acme', by: 'admin' }), true)
  await t.rejects(registry.verify(second.token), revoked)

  t.same(told.filter(({ hook }) => hook !== 'preRevoke').map(({ hook, args }) => [hook, args[0]]), [
    ['onEnd', first.session], ['postRevoke', { id: first.session.id, subject: { tenant: '', sub: 'alice' }, reason: 'logout', by: 'alice', count: 1 }],
    ['onEnd', second.session], ['postRevoke', { id, subject: { tenant: 'acme', sub: 'alice' }, reason: 'revoked', by: 'admin', count: 1 }]
  ])
  for (const reason of ['', 'x'.repeat(65), 7, null]) await t.rejects(registry.revoke(first.token, reason as never), refused)
  await t.rejects(registry.revokeById(id, 'revoked', { by: 7 as never }), refused)
  await t.rejects(registry.revokeAll({ sub: '' }), refused)
  await t.rejects(registry.revokeAll({ sub: 'alice', except: 'x' as never }), refused)
})

t.test('100 revocations of one session at the same time are one', async t => {
  const { registry } = await rig(t)
  const told = listen(registry, 'postRevoke', 'onEnd')
  const { token, session: { id } } = await registry.issue({ sub: 'alice' })
  const answers = await Promise.all(Array.from({ length: 100 }, async (_, i) => await (i % 2 === 0 ? registry.revoke(token) : registry.revokeById(id))))
  t.equal(answers.filter(Boolean).length, 1)
  t.same(told.map(({ hook }) => hook), ['onEnd', 'postRevoke'])
})

t.test('when all of 10,000 sessions are revoked none is valid, those issued meanwhile and those to be kept are', async t => {
  const { registry } = await rig(t)
  const told = new Set<string>()
  registry.addHook('onEnd', ({ id }) => { told.add(id) })
  const posts = listen(registry, 'postRevoke')
  const before = await Promise.all(Array.from({ length: 10_000 }, async () => await registry.issue({ sub: 'alice' })))
  const once = await registry.issue({ sub: 'alice', use: 'once' })
  const others = await Promise.all(['bob', 'carol'].map(async sub => await registry.issue({ sub })))
  const [kept, ...ended] = before
  t.ok(kept)
  await Promise.all(before.slice(0, 100).map(async ({ token }) => await registry.verify(token)))

  const signIn = { on: true }
  const meanwhile: string[] = []
  const signIns = (async () => {
    while (signIn.on) {
      meanwhile.push((await registry.issue({ sub: 'alice' })).token)
      await setImmediate()
    }
  })()
  const count = await registry.revokeAll({ sub: 'alice', except: [kept?.session.id ?? ''], reason: 'password_changed', by: 'alice' })
  const valid = await Promise.all(ended.map(async ({ token }) => await registry.get(token)))
  const accepted = await statusesOf(ended.slice(0, 100).map(async ({ token }) => await registry.verify(token)))
  signIn.on = false
  await signIns

  t.equal(count, 9999)
  t.equal(valid.filter(session => session !== null).length, 0)
  t.same(accepted, { FST_TOKEN_REVOKED: 100 })
  t.equal(told.size, 10_000, 'the one-time token too')
  await t.rejects(registry.consume(once.token), revoked)
  t.ok(meanwhile.length > 0)
  for (const token of [kept?.token ?? '', ...meanwhile, ...others.map(({ token }) => token)]) await registry.verify(token)
  t.match(posts, [{ args: [{ subject: { sub: 'alice', tenant: '' }, count: 9999, reason: 'password_changed' }] }])
  t.equal(registry.stats.read().ended?.password_changed, 10_000, 'as all that ended')
  t.equal(await registry.revokeAll({ sub: 'nobody' }), 0)
  t.equal(posts.length, 1, 'where nothing ended nothing is told')
})

t.test('all of a subject are revoked without anyone to tell', async t => {
  const { registry } = await rig(t)
  const { token } = await registry.issue({ sub: 'alice' })
  t.equal(await registry.revokeAll({ sub: 'alice' }), 1)
  await t.rejects(registry.verify(token), revoked)
})

// Denylist

t.test('a JWT that was issued elsewhere is refused from now until it expires', async t => {
  const { registry: { denylist, stats }, clock } = await rig(t)
  const until = clock.now() + 60_000
  t.equal(denylist.has('jti'), false, 'at once, without a promise')
  t.equal(await denylist.add('jti', until), true)
  t.equal(await denylist.add('jti', until + 1), false)
  t.equal(denylist.has('jti'), true)
  t.same(stats.read().denylist, { added: 1, refused: 1, size: 1 })
  clock.advance(60_000)
  t.equal(denylist.has('jti'), false)
  for (const text of ['', 'x'.repeat(513), 7, null]) {
    t.throws(() => denylist.has(text as string), refused)
    await t.rejects(denylist.add(text as string, until), refused)
  }
  for (const time of [NaN, Infinity, 1.5, '1']) await t.rejects(denylist.add('jti', time as number), refused)
  clock.advance(600_000)
  t.match(stats.read().denylist, { size: 0 }, 'what has expired is forgotten, ten minutes late at most')
})

t.test('nothing is written for a JWT that has expired', async t => {
  const marks: unknown[] = []
  const { registry: { denylist }, clock } = await rig(t, {}, store => decorated(store, {
    mark: async (...args) => {
      marks.push(args)
      return await store.mark(...args)
    }
  }))
  t.equal(await denylist.add('jti', clock.now()), false)
  t.equal(await denylist.add('jti', clock.now() - 1), false)
  t.same(marks, [])
  t.equal(await denylist.add('jti', clock.now() + 1), true)
  t.equal(marks.length, 1)
})

t.test('ids of different issuers never meet', async t => {
  const { registry: { denylist }, clock } = await rig(t)
  const until = clock.now() + 60_000
  const pairs = [['a', 'bc'], ['ab', 'c'], ['', 'abc'], ['1:a', 'bc'], ['a:', 'bc']] as const
  await denylist.add('abc', until)
  for (const [issuer, jti] of pairs) {
    t.equal(denylist.has(jti, { issuer }), false)
    t.equal(await denylist.add(jti, until, { issuer }), true)
    t.equal(denylist.has(jti, { issuer }), true)
  }
  t.equal(denylist.has('bc'), false)
})

t.test('what is older than the list is refused where the caller says when it was issued', async t => {
  const { registry: { denylist }, clock } = await rig(t)
  t.equal(denylist.has('jti', { issuedAt: clock.now() - 1 }), true)
  t.equal(denylist.has('jti', { issuedAt: clock.now() }), false)
})

t.test('a store of one\'s own answers later, and keeps marks among its records', async t => {
  const { tokenRegistry: { denylist, stats } } = await build(t, { store: new MinimalStore() })
  t.equal(await denylist.add('jti', Date.now() + 60_000), true)
  t.equal(await denylist.has('jti'), true)
  t.equal(await denylist.has('other'), false)
  t.same(stats.read().denylist, { added: 1, refused: 1, size: 1 })
})

// Other kinds of tokens

t.test('another kind of token proves a session, until it or the session ends', async t => {
  const { registry, clock } = await rig(t)
  let opened = 0
  class Signed {
    readonly name = 'signed'
    readonly #prefix = 'signed.'

    matches (token: string): boolean { return token.startsWith(this.#prefix) }

    async open (token: string) {
      opened++
      const [, sid = '', ttl = '', scope, sub] = token.split('.')
      if (sid === 'forged') throw new TypeError('bad signature')
      if (sid === 'refused') throw Object.assign(new Error('no key'), { statusCode: 503, critical: true })
      if (sid === 'slow') await new Promise(() => {})
      return { sid, expiresAt: clock.now() + Number(ttl), claims: { jti: 'x', ...scope !== undefined && { scope }, ...sub !== undefined && { sub } } }
    }
  }
  registry.addTokenType(new Signed())
  t.throws(() => registry.addTokenType(new Signed()), /signed is there already/)

  const { session } = await registry.issue({ sub: 'alice', use: 'refresh', scope: ['read', 'write'] })
  const token = `signed.${session.id}.60000`
  const auth = await registry.verify(token)
  t.match(auth, { session: { id: session.id }, claims: { jti: 'x' }, scope: ['read', 'write'] })
  t.ok(Object.isFrozen(auth.claims))
  t.equal(await registry.verify(token), auth)
  t.equal(opened, 1, 'the second time from the cache')
  t.same((await registry.verify(`${token}.write admin`)).scope, ['write'], 'its scope narrows the session\'s, and widens nothing')
  t.match((await registry.verify(`${token}.read.alice`)).claims, { sub: 'alice' })
  await t.rejects(registry.verify(`${token}.read.bob`), invalid, 'one that names another subject')
  t.match(await registry.get(token), { id: session.id })
  await t.rejects(registry.rotate(token), invalid)

  clock.advance(60_000)
  await t.rejects(registry.verify(`signed.${session.id}.0`), expired)
  t.equal(await registry.get(`signed.${session.id}.0`), null)
  t.equal(registry.cached(keyOf(token)), undefined)

  const once = await registry.issue({ sub: 'alice', use: 'once' })
  await t.rejects(registry.verify(`signed.${once.session.id}.1000`), invalid)
  await t.rejects(registry.verify('signed.forged.1000'), { ...invalid, cause: { message: 'bad signature' } })
  await t.rejects(registry.verify('signed.unknown.1000'), invalid)
  await t.rejects(registry.verify(`signed.${session.id}.never`), { ...invalid, cause: { message: /gave no sid or expiresAt/ } }, 'a deadline that would never pass')
  await t.rejects(registry.verify('signed.refused.1000'), { statusCode: 503, message: 'no key' })
  await t.rejects(registry.get('signed.refused.1000'), { statusCode: 503, message: 'no key' }, 'what cannot be checked is not taken for unknown')

  t.equal(await registry.revoke(token), true)
  await t.rejects(registry.verify(token), revoked)
})

t.test('a kind of token that opens at once is as good, and one that never does is given up', async t => {
  const { registry, clock } = await rig(t, { operationTimeout: 20 })
  registry.addTokenType({ name: 'now', matches: token => token.startsWith('now.'), open: token => ({ sid: token.slice(4), expiresAt: clock.now() + 1000, claims: {} }) })
  registry.addTokenType({ name: 'never', matches: token => token.startsWith('never.'), open: async () => await new Promise(() => {}) })
  const { session } = await registry.issue({ sub: 'alice' })
  t.match((await registry.verify(`now.${session.id}`)).session, { sub: 'alice' })
  await t.rejects(registry.verify(`never.${session.id}`), { code: 'FST_STORE_TIMEOUT', critical: true, message: /token type never/ })
})

// Around it all

t.test('a token type cannot lend what can be written to, a scope that is no text, or a status of its own', async t => {
  const { registry } = await rig(t)
  const { session } = await registry.issue({ sub: 'alice', scope: ['read', 'write'] })
  let claims: Record<string, unknown> = Object.freeze({ roles: ['user'] })
  registry.addTokenType({
    name: 'lending',
    matches: token => token.startsWith('lent.'),
    open: token => {
      if (token === 'lent.teapot') throw Object.assign(new Error('short and stout'), { statusCode: 418 })
      return { sid: session.id, expiresAt: Infinity, claims }
    }
  })
  const auth = await registry.verify('lent.1')
  t.throws(() => (auth.claims.roles as string[]).push('admin'), TypeError)
  claims = { scope: ['read'] }
  await t.rejects(registry.verify('lent.2'), invalid)
  await t.rejects(registry.verify('lent.teapot'), invalid)
  await t.rejects(registry.save('lent.adopted', { sub: 'alice' }), { ...refused, message: /proves a session by itself/ })
})

t.test('reasons are told apart as far as they can be known', async t => {
  const { registry } = await rig(t)
  for (let i = 0; i < 150; i++) await registry.revoke((await registry.issue({ sub: 'alice' })).token, `reason ${i}`)
  const { ended } = registry.stats.read()
  t.equal(Object.keys(ended ?? {}).length, 101)
  t.match(ended, { 'reason 0': 1, other: 50 })
  for (const name of ['sessions', 'ended']) t.throws(() => registry.stats.register(name, () => ({})), TypeError)
})

t.test('figures are read by their source, and a name is taken once', async t => {
  const { registry } = await rig(t)
  registry.stats.register('mine', () => ({ answer: 42 }))
  t.throws(() => registry.stats.register('mine', () => ({})), /mine is taken/)
  t.throws(() => registry.stats.register('cache', () => ({})), /cache is taken/)
  t.match(registry.stats.read(), { sessions: { issued: 0, rotated: 0, recovered: 0, reused: 0, servedStale: 0 }, ended: {}, cache: {}, denylist: {}, mine: { answer: 42 } })
})

t.test('closing leaves nothing running, and waits for who is being told', async t => {
  const handles = () => process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  const before = handles()
  const app = await build(t, { idleTimeout: '1h', hookTimeout: 5000 })
  const registry = app.tokenRegistry
  let heard = false
  registry.addHook('onEnd', async () => {
    await setTimeout(20)
    heard = true
  })
  const { token } = await registry.issue({ sub: 'alice' })
  await registry.verify(token)
  await registry.revoke(token)
  await app.close()
  t.equal(heard, true)
  t.equal(handles(), before)
})

t.test('no token, and no secret, stands in a record, an error, a figure, a hook or a line of the log', async t => {
  const [secret, seen] = [newSecret(), [] as string[]]
  const note = (value: unknown): void => { seen.push(textOf(value)) }
  const store = memoryStore()
  t.teardown(async () => await store.close())
  const app = Fastify({ logger: { level: 'trace', stream: { write: note } } })
  t.teardown(async () => await app.close())
  await app.register(tokenRegistry, {
    secret,
    reuseWindow: 0,
    store: new Proxy(store, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key)
        return typeof value !== 'function'
          ? value
          : (...args: unknown[]) => {
              note(args)
              const result: unknown = Reflect.apply(value, target, args)
              if (result instanceof Promise) result.then(note, note)
              return result
            }
      }
    })
  })
  const registry = app.tokenRegistry
  for (const name of ['preSave', 'postSave', 'preGet', 'postGet', 'preRotate', 'postRotate', 'preRevoke', 'postRevoke', 'onEnd', 'onReuse', 'onError'] as const) {
    registry.addHook(name, (...args: readonly unknown[]): void => {
      note(args)
      if (name.startsWith('post') || name === 'onEnd') throw new Error(`${name} failed`)
    })
  }
  app.get('/', { config: { session: true } }, async () => 'in')

  const adopted = 'adopted-f3a9c1d07e5b'
  const [session, refresh, once] = [await registry.issue({ sub: 'alice' }), await registry.issue({ sub: 'alice', use: 'refresh' }), await registry.issue({ sub: 'alice', use: 'once' })]
  await registry.save(adopted, { sub: 'alice' })
  const next = await registry.rotate(refresh.token)
  await registry.consume(once.token)
  const tokens = [session.token, refresh.token, once.token, next.token, adopted]
  for (const token of [...tokens, `${session.token}x`, 'trs_forged-token']) {
    const data = { sub: 'alice' }
    for (const call of [registry.verify(token), registry.get(token), registry.consume(token), registry.save(token, data), registry.saveBatch([{ token, data }])]) await call.then(note, note)
    // It gives the successor to who asked.
    await registry.rotate(token).catch(note)
    await app.inject({ url: '/', headers: { authorization: `Bearer ${token}` } })
    await registry.revoke(token)
  }
  await registry.revokeAll({ sub: 'alice' })
  note(registry.stats.read())
  note(await registry.health())

  const all = seen.join('\n')
  t.ok(all.includes(session.session.id), 'what is looked through holds what it should')
  for (const token of tokens.slice(0, 4)) t.notOk(all.includes(token.slice(10, 34)), 'neither the token nor its secret')
  t.notOk(all.includes(adopted))
  t.notOk(all.includes(secret))
})

/** All that can be read of a value, the causes of errors included. */
function textOf (value: unknown): string {
  if (value instanceof Error) return `${String(value.stack)} ${JSON.stringify(value)} ${value.cause === undefined ? '' : textOf(value.cause)}`
  return typeof value === 'string' ? value : JSON.stringify(value, (_key, item: unknown) => item instanceof Error ? textOf(item) : item) ?? ''
}
