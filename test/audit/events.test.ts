import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import t from 'tap'
import audit, { type Sink } from '../../plugins/audit/index.ts'
import tokenRegistry, { memoryStore, SessionScope } from '../../plugins/token-registry/index.ts'
import { audited, entriesOf, fragileLedger } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'
import { Clock } from '../support/clock.ts'
import { decorated } from '../support/decorated.ts'
import { deferred, soon } from '../support/deferred.ts'

type Entries = Awaited<ReturnType<typeof entriesOf>>

function shortly (entries: Entries): string[] {
  return entries.map(({ type, outcome, reason }) => [type, outcome, ...reason === null ? [] : [reason]].join(' '))
}

t.test('what the registry does is recorded, each event once: what is to be done, and what came of it', async t => {
  const app = await audited(t)
  const { tokenRegistry: registry } = app
  const issued = await registry.issue({ sub: 'alice', client: 'web', meta: { ipAddress: '203.0.113.7', userAgent: 'curl' } })
  const refresh = await registry.issue({ sub: 'alice', use: 'refresh' })
  const rotated = await registry.rotate(refresh.token)
  await registry.update(issued.session.id, { meta: {} })
  const once = await registry.issue({ sub: 'alice', use: 'once' })
  await registry.consume(once.token)
  await t.rejects(registry.consume(once.token))
  await registry.save('adopted-token', { sub: 'bob' })
  await registry.saveBatch([{ token: 'adopted-1', data: { sub: 'bob' } }, { token: 'adopted-2', data: { sub: 'carol' } }])
  await t.rejects(registry.save('adopted-token', { sub: 'bob' }))
  await registry.revokeById(issued.session.id, 'revoked', { by: 'carol' })
  await registry.revokeById(issued.session.id)
  await registry.revoke(rotated.token, 'disabled', { detail: { limit: 'some' } })
  await registry.revokeAll({ sub: 'bob' })
  await registry.enforceLimits()
  await registry.denylist.add('some-jti', registry.now() + 60_000)
  await registry.denylist.add('some-jti', registry.now() + 60_000)
  await t.rejects(registry.update(rotated.session.id, { meta: {} }, 7).then(session => { if (session === null) throw new Error('gone') }))

  const entries = await entriesOf(app)
  t.same(shortly(entries), [
    'audit.start success',
    'intent success', 'session.start success',
    'intent success', 'session.start success',
    'intent success', 'session.rotate success',
    'intent success', 'session.update success',
    'intent success', 'token.issue success',
    'intent success', 'token.consume success',
    'intent success', 'session.end success reuse_recent', 'session.reuse denied FST_TOKEN_REUSED',
    'intent success', 'session.start success',
    'intent success', 'session.start success', 'session.start success',
    'intent success', 'session.start denied FST_TOKEN_EXISTS',
    'intent success revoked', 'session.end success revoked',
    'intent success revoked', 'session.end failure FST_SESSION_NOT_FOUND',
    'intent success disabled', 'session.end success disabled',
    'intent success revoked', 'session.end success revoked', 'session.end success revoked', 'session.end_all success revoked',
    'intent success limit', 'session.enforce success limit',
    'intent success', 'jwt.deny success',
    'intent success', 'jwt.deny failure',
    'intent success', 'session.update failure FST_SESSION_NOT_FOUND'
  ])
  t.same(entries.map(({ seq }) => seq), entries.map((_, index) => index))
  t.match(entries[2], { actor: { sub: 'alice', client: 'web', ip: '203.0.113.7', userAgent: 'curl' }, target: { kind: 'session', id: issued.session.id, sub: 'alice' }, data: { use: 'session', adopted: false }, requestId: null })
  t.match(entries.find(({ type }) => type === 'session.end'), { target: { kind: 'token', id: once.session.id } })
  t.match(entries.find(({ reason, type }) => type === 'session.end' && reason === 'revoked'), { actor: { sub: 'carol', ip: null }, target: { id: issued.session.id, sub: 'alice' } })
  t.match(entries.find(({ reason, type }) => type === 'session.end' && reason === 'disabled'), { actor: { sub: null }, data: { limit: 'some' } })
  t.match(entries.find(({ type }) => type === 'jwt.deny'), { target: { kind: 'jwt', id: 'some-jti' } })
  t.match(entries.find(({ type, data }) => type === 'intent' && data?.['count'] === 2), { target: null, data: { operation: 'save' } })
  t.match(entries.find(({ type }) => type === 'session.end_all'), { target: { kind: 'subject', id: 'bob', sub: 'bob' }, data: { count: 2 } })
  const outcomes = entries.filter(({ type, op }) => type !== 'intent' && op !== null).map(({ op }) => op)
  for (const { type, op } of entries) if (type === 'intent') t.ok(outcomes.includes(op), 'each intent has an outcome')
})

t.test('what ends by itself is recorded once', async t => {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now })
  t.teardown(async () => await store.close())
  const app = await audited(t, {}, { store })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice', ttl: '1h' })
  clock.advance(3_600_001)
  t.equal(await app.tokenRegistry.getById(session.id), null)
  t.equal(await app.tokenRegistry.getById(session.id), null)
  await app.audit.record({ type: 'test.mark' })
  t.same(shortly(await entriesOf(app)).slice(3), ['session.end success expired', 'test.mark success'])
})

t.test('a request is known by who makes it, from where, and its id', async t => {
  const app = await audited(t)
  app.post('/in', async request => await request.startSession({ sub: 'alice', tenant: 'acme', scope: ['mail'] }))
  app.post('/out', { config: { session: true } }, async request => await request.revokeSession())
  app.post('/others', { config: { session: true } }, async request => await app.tokenRegistry.for(request).revokeAll({ sub: 'bob' }))
  app.get('/scoped', { config: { session: { scope: 'admin' } } }, async () => 'in')
  app.get('/own', { config: { session: { optional: true } } }, async () => { throw new SessionScope('own') })
  app.get('/missing', async () => { throw new Error('not a refusal') })
  const headers = { 'user-agent': 'Firefox' }
  const { token } = (await app.inject({ method: 'POST', url: '/in', headers })).json<{ token: string }>()
  const bearer = { ...headers, authorization: `Bearer ${token}` }
  await app.inject({ method: 'POST', url: '/others', headers: bearer })
  for (const given of [headers, { ...headers, authorization: 'Bearer nonsense' }]) await app.inject({ url: '/scoped', headers: given })
  await app.inject({ url: '/scoped', headers: bearer })
  for (const given of [bearer, headers]) await app.inject({ url: '/own', headers: given })
  await app.inject({ url: '/missing', headers })
  await app.inject({ method: 'POST', url: '/out', headers: bearer })
  await app.inject({ url: '/scoped', headers: bearer })
  await app.audit.record({ type: 'test.mark' })
  const entries = await entriesOf(app)
  t.same(shortly(entries), [
    'audit.start success',
    'intent success', 'session.start success',
    'intent success revoked', 'session.end_all success revoked',
    'request.refuse denied FST_TOKEN_MISSING', 'request.refuse denied FST_TOKEN_INVALID', 'request.refuse denied FST_SESSION_SCOPE', 'request.refuse denied FST_SESSION_SCOPE', 'request.refuse denied FST_SESSION_SCOPE',
    'intent success revoked', 'session.end success revoked',
    'request.refuse denied FST_TOKEN_REVOKED',
    'test.mark success'
  ])
  for (const { seq, actor, requestId } of entries.slice(1, -1)) {
    t.match(actor, { ip: '127.0.0.1', userAgent: 'Firefox' }, `entry ${seq}`)
    t.match(requestId, /^req-/)
  }
  t.equal(entries[3]?.actor.sub, 'alice')
  t.match(entries[7], { actor: { sub: 'alice' }, tenant: 'acme' }, 'who lacks a scope is known')
  t.match(entries[8], { actor: { sub: 'alice' }, tenant: 'acme' }, 'also where the route finds out')
  t.match(entries[9], { actor: { sub: null }, tenant: '' })
  t.match(entries[6], { actor: { sub: null }, tenant: '' })
  t.same(entries[5]?.target, { kind: 'route', id: 'GET /scoped', sub: null })
  t.notOk(JSON.stringify(entries).includes(token))
})

t.test('a route adds what it does, in the name of who asks', async t => {
  const app = await audited(t)
  app.post('/in', async request => (await request.startSession({ sub: 'alice', tenant: 'acme' })).token)
  app.post('/mail', { config: { session: true } }, async request => {
    await request.audit({ type: 'mail.change', data: { email: 'alice@example.com', old: 'a@example.com', phone: '+1 555', n: 1 }, personal: ['old', 'phone'] })
    return 'done'
  })
  app.get('/read', { config: { session: true } }, async request => {
    await request.audit({ type: 'mail.read', outcome: 'failure', reason: 'none', target: { kind: 'mail', id: '7', sub: 'bob' }, actor: { client: 'other' } })
    return 'done'
  })
  app.post('/anonymous', async request => { await request.audit({ type: 'session.start', outcome: 'failure', reason: 'credentials', data: { email: 'mallory@example.com' } }) })
  const { body: token } = await app.inject({ method: 'POST', url: '/in' })
  const headers = { authorization: `Bearer ${token}` }
  await app.inject({ method: 'POST', url: '/mail', headers })
  await app.inject({ url: '/read', headers })
  await app.inject({ method: 'POST', url: '/anonymous' })
  const [mail, read, anonymous] = (await entriesOf(app)).slice(3)
  t.match(mail, { tenant: 'acme', actor: { sub: 'alice', ip: '127.0.0.1' }, data: { email: 'alice@example.com', old: 'a@example.com', phone: '+1 555', n: 1 }, sealed: ['actor.ip', 'actor.userAgent', 'data.email', 'data.old', 'data.phone'] })
  t.match(read, { outcome: 'failure', reason: 'none', target: { kind: 'mail', id: '7', sub: 'bob' }, actor: { sub: 'alice', client: 'other' } })
  t.match(anonymous, { actor: { sub: null }, data: { email: 'mallory@example.com' }, tenant: '' })
  const lines = []
  for await (const line of app.audit.lines()) lines.push(line)
  for (const secret of ['alice', 'example.com', '127.0.0.1', '+1 555', 'lightMyRequest']) t.notOk(lines.join('\n').includes(secret), `${secret} is sealed`)
  const { entries } = await app.audit.entries({ tenant: 'acme' })
  t.match(entries[1], { actor: { ip: null, userAgent: null }, data: { n: 1 }, sealed: ['actor.ip', 'actor.userAgent', 'data.email', 'data.old', 'data.phone'] }, 'and stays so for who may not read it')
})

t.test('the README tells all types that there are', async t => {
  const types = new Set<string>()
  const [dropped, { ledger, state }] = [deferred(), fragileLedger()]
  const collect: Sink = {
    name: 'test',
    write: async entries => {
      for (const { type } of entries) types.add(type)
      if (types.has('audit.drop')) dropped.resolve()
    },
    close: async () => {}
  }
  const app = await audited(t, { ledger, maxQueue: 50, copies: [collect] })
  const { tokenRegistry: registry, audit } = app
  app.get('/', { config: { session: true } }, async () => 'in')
  const { token, session } = await registry.issue({ sub: 'alice', use: 'refresh' })
  await registry.rotate(token)
  await registry.update(session.id, { meta: {} })
  const once = await registry.issue({ sub: 'alice', use: 'once' })
  await registry.consume(once.token)
  await t.rejects(registry.consume(once.token))
  await registry.enforceLimits()
  await registry.denylist.add('some-jti', registry.now() + 60_000)
  await registry.revokeAll({ sub: 'alice' })
  await app.inject('/')
  for await (const line of audit.exportSubject({ sub: 'alice' })) t.ok(line)
  await audit.erase({ sub: 'alice' })
  await registry.issue({ sub: 'bob' })
  await audit.anonymise({ sub: 'bob' })
  for (let i = 0; i < 300; i += 20) await Promise.all(Array.from({ length: 20 }, async () => await audit.note({ type: 'session.end' })))
  await audit.prune({ olderThan: registry.now() + 1 })
  state.mode = 'fails'
  const many = Array.from({ length: 60 }, async () => await audit.note({ type: 'session.end' }))
  state.mode = 'well'
  await Promise.all([...many, soon(dropped.promise)])

  const readme = readFileSync('plugins/audit/README.md', 'utf8')
  const [, table = ''] = /\| type \| when \|\n([^]*?)\n\n/.exec(readme) ?? []
  const told = table.split('\n').flatMap(row => [...(row.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, type]) => String(type)))
  t.same([...types].sort(), told.sort())
})

t.test('operations that fail are recorded as that; of what was under way when the audit came, nothing is', async t => {
  const store = memoryStore()
  t.teardown(async () => await store.close())
  const thrown = deferred<unknown>()
  let failing: unknown = null
  const started = deferred()
  const go = deferred()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(tokenRegistry, {
    secret: newSecret(),
    store: decorated(store, {
      insert: async (...args) => {
        started.resolve()
        await go.promise
        if (failing !== null) throw failing
        return await store.insert(...args)
      },
      mark: async () => { throw new Error('no') }
    })
  })
  const { tokenRegistry: registry } = app
  registry.addHook('preChange', () => {})
  const early = registry.issue({ sub: 'early' })
  await started.promise
  await app.register(audit, { gather: { time: 0 } })
  go.resolve()
  thrown.resolve(await early)
  failing = new Error('out of memory')
  await t.rejects(registry.issue({ sub: 'alice' }), { code: 'FST_STORE_UNAVAILABLE' })
  await t.rejects(registry.denylist.add('jti', registry.now() + 60_000), { code: 'FST_STORE_UNAVAILABLE' })
  failing = null
  const { token, session } = await registry.issue({ sub: 'alice', use: 'refresh', client: 'web' })
  registry.addHook('postRotate', () => {})
  await registry.rotate(token, { client: 'web' })
  await t.rejects(registry.rotate(token, { client: 'other' }), { code: 'FST_TOKEN_INVALID' })
  const entries = (await entriesOf(app)).filter(({ type }) => type !== 'intent')
  t.match(entries.map(({ type, outcome, reason, actor }) => [type, outcome, reason, actor.client]), [
    ['audit.start', 'success', null, null],
    ['session.start', 'failure', 'FST_STORE_UNAVAILABLE', null],
    ['jwt.deny', 'failure', 'FST_STORE_UNAVAILABLE', null],
    ['session.start', 'success', null, 'web'],
    ['session.rotate', 'success', null, 'web'],
    ['session.rotate', 'denied', 'FST_TOKEN_INVALID', 'other']
  ])
  t.equal(entries.at(-1)?.target?.id, session.id)
})

t.test('what somebody else stops after it was announced is told as that', async t => {
  const app = await audited(t)
  const { tokenRegistry: registry, audit } = app
  registry.addHook('preChange', () => { throw Object.assign(new Error('closed on Sundays'), { code: 'SUNDAY', statusCode: 403 }) })
  await t.rejects(registry.issue({ sub: 'alice' }), { code: 'SUNDAY' })
  t.match((await entriesOf(app)).slice(1), [{ type: 'intent' }, { type: 'session.start', outcome: 'denied', reason: 'SUNDAY' }])
  t.same(await audit.unresolved(registry.now() + 1), [])
})

t.test('best effort records what is done, and no intents', async t => {
  const app = await audited(t, { guarantee: 'best-effort' })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  await app.tokenRegistry.revokeById(session.id)
  await t.rejects(app.tokenRegistry.consume('adopted-token-unknown'))
  await app.audit.record({ type: 'test.mark' })
  await app.audit.flush()
  t.same((await entriesOf(app)).map(({ type, outcome }) => `${type} ${outcome}`), ['audit.start success', 'session.start success', 'session.end success', 'token.consume denied', 'test.mark success'])
})

t.test('routes of any kind are told apart, and requests without an agent', async t => {
  const app = await audited(t, {}, { session: true })
  app.route({ method: ['GET', 'POST'], url: '/both', config: { session: false }, onSend: async (_request, _reply, payload) => payload, handler: async request => { await request.audit({ type: 'both' }) } })
  app.get('/off', { config: { session: false, audit: false } }, async request => { await request.audit({ type: 'off' }) })
  await app.listen({ port: 0 })
  const { port } = app.server.address() as AddressInfo
  for (const [method, path] of [['GET', '/both'], ['POST', '/both'], ['GET', '/off'], ['GET', '/unknown']]) {
    const sent = httpRequest({ port, method, path, agent: false }).end()
    const [response] = await once(sent, 'response') as [NodeJS.ReadableStream]
    response.resume()
    await once(response, 'end')
  }
  await app.audit.record({ type: 'test.mark' })
  const entries = (await entriesOf(app)).slice(1, -1)
  t.same(entries.map(({ type, target, actor }) => [type, target?.id, actor.userAgent]), [['both', undefined, null], ['both', undefined, null], ['off', undefined, null], ['request.refuse', 'GET ', null]])
})
