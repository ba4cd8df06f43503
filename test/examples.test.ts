import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import fastifyCookie from '@fastify/cookie'
import type { JWT } from '@fastify/jwt'
import { context, propagation, trace } from '@opentelemetry/api'
import fastifySession from '@fastify/session'
import Fastify, { type FastifyInstance, type LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import { sessionRecord, storeContract } from '../plugins/testing/index.ts'
import { newSecret } from './support/build.ts'
import { redisSentinels, sharedRedis, until } from './support/redis.ts'
import { newPrefix } from './support/redis-store.ts'

// Examples listen as soon as they are loaded: on any port that is free.
process.env['PORT'] = '0'

/** Loads an example, and tries what it says to try. */
async function example<Example extends { app: FastifyInstance }> (t: Test, load: () => Promise<Example>): Promise<Example> {
  const log = t.capture(console, 'log')
  const loaded = await load()
  const { app } = loaded
  t.teardown(() => app.close())
  t.ok(app.server.listening)
  const line = String(log.args().at(-1))
  t.match(line, /^(curl|Open) .*http:\/\/\S+:\d+/)
  // Sentinels of a busy machine may just be making another server the primary: then the answer is 503, and to try again is right.
  if (line.startsWith('curl')) await t.resolves(promisify(execFile)('bash', ['-c', `${line} -sf --retry 10 --retry-delay 1`]), line)
  // As if nobody had tried it.
  await app.tokenRegistry.revokeAll({ sub: 'ada' })
  return loaded
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

async function tokenFrom (app: FastifyInstance, url = '/login', payload?: object): Promise<string> {
  const response = await app.inject({ method: 'POST', url, ...payload && { payload } })
  return response.json().token
}

/** Signs in, is served, signs out, is refused. */
async function signsInAndOut (t: Test, app: FastifyInstance, token: string): Promise<void> {
  const me = () => app.inject({ url: '/me', headers: bearer(token) })
  t.equal((await me()).statusCode, 200)
  t.same((await app.inject({ method: 'POST', url: '/logout', headers: bearer(token) })).json(), { ended: true })
  t.equal((await me()).statusCode, 401)
}

t.test('every example is short, and run here', async t => {
  const tests = readFileSync(import.meta.filename, 'utf8')
  for (const name of readdirSync('examples')) {
    t.ok(readFileSync(`examples/${name}`, 'utf8').trimEnd().split('\n').length <= 60, name)
    t.ok(tests.includes(`'../examples/${name}'`), name)
  }
})

t.test('minimal', async t => {
  const { app } = await example(t, () => import('../examples/minimal.ts'))
  await signsInAndOut(t, app, await tokenFrom(app, '/login', { name: 'ada' }))
})

t.test('custom-store', async t => {
  const { app } = await example(t, () => import('../examples/custom-store.ts'))
  const tokens = [await tokenFrom(app), await tokenFrom(app)]
  t.equal(await app.tokenRegistry.count({ sub: 'ada' }), 2)
  for (const token of tokens) await signsInAndOut(t, app, token)
  const { token } = await app.tokenRegistry.issue({ sub: 'ada' })
  const rotated = await app.tokenRegistry.rotate(token)
  t.equal((await app.tokenRegistry.rotate(token)).token, rotated.token)
})

t.test('map-store keeps the contract', async t => {
  const { mapStore } = await import('../examples/map-store.ts')
  await import('../examples/map-store-rules.ts')
  let time = 1_700_000_000_000
  const open = () => ({ store: mapStore(() => time), advance: async (ms: number) => { time += ms }, close: async () => {} })
  for (const { name, run } of storeContract(open, { lacks: ['update', 'touch', 'endAll', 'ending', 'onExpire', 'documents'] })) await t.test(name, run)

  const { store, advance } = open()
  const insert = async () => await store.insert([sessionRecord({ issuedAt: time, expiresAt: time + 1000 })], { op: String(time) })
  await insert()
  await advance(1000)
  await insert()
  t.match(await store.health(), { sessions: 1 }, 'what has expired is deleted')
})

t.test('cookie-sessions', async t => {
  const { app } = await example(t, () => import('../examples/cookie-sessions.ts'))
  t.match((await app.inject('/')).body, 'Sign in')
  const { cookies } = await app.inject({ method: 'POST', url: '/login' })
  const [cookie] = cookies
  t.match(cookie, { name: '__Host-session', httpOnly: true, secure: true, sameSite: 'Lax', path: '/' })
  const headers = { cookie: `__Host-session=${cookie?.value}` }
  t.match((await app.inject({ url: '/', headers })).body, 'Signed in since')
  t.equal((await app.inject({ method: 'POST', url: '/logout', headers: { ...headers, 'sec-fetch-site': 'cross-site' } })).statusCode, 403)
  t.equal((await app.inject({ method: 'POST', url: '/logout', headers })).statusCode, 303)
  t.match((await app.inject({ url: '/', headers })).body, 'Sign in')
})

t.test('revoke-session', async t => {
  const { app } = await example(t, () => import('../examples/revoke-session.ts'))
  const sessions: Array<{ token: string, id: string }> = []
  for (let i = 0; i < 4; i++) sessions.push((await app.inject({ method: 'POST', url: '/login' })).json())
  const [first, second, third] = sessions
  const headers = bearer(first?.token ?? '')
  const end = async (path: string, as = headers): Promise<LightMyRequestResponse> => await app.inject({ method: 'DELETE', url: `/sessions${path}`, headers: as })

  t.equal((await app.inject({ url: '/sessions', headers })).json().length, 4)
  t.same((await end(`/${second?.id}`)).json(), { ended: true })
  t.equal((await end(`/${second?.id}`)).statusCode, 404)
  t.same((await end('')).json(), { ended: 2 })
  t.equal((await end('', bearer(third?.token ?? ''))).statusCode, 401)
  t.same((await end('/current')).json(), { ended: true })
  t.equal((await end('')).statusCode, 401)
})

t.test('custom-validator', async t => {
  const { app } = await example(t, () => import('../examples/custom-validator.ts'))
  const token = await tokenFrom(app, '/login?device=phone')
  t.match((await app.inject({ url: '/me', headers: bearer(token) })).json(), { deviceId: 'phone', plan: 'pro' })
  t.match((await app.inject({ method: 'POST', url: '/login' })).json(), { statusCode: 400, code: 'FST_TOKEN_VALIDATION', message: /name the device/ })
  const adopt = async (token: string) => await app.inject({ method: 'POST', url: '/import', payload: { token } })
  t.match((await adopt('another_1234567890')).json(), { statusCode: 400, message: /begin with legacy_/ })
  t.equal((await adopt('legacy_1234567890')).statusCode, 200)
  t.equal((await app.inject({ url: '/me', headers: bearer('legacy_1234567890') })).statusCode, 200)
})

t.test('hooks', async t => {
  const { app } = await example(t, () => import('../examples/hooks.ts'))
  const log = t.capture(console, 'log')
  const post = async (url: string, token = '') => await app.inject({ method: 'POST', url, headers: bearer(token) })

  t.match((await post('/login/mallory')).json(), { statusCode: 403, code: 'APP_BANNED' })
  const { token } = (await post('/login/ada')).json()
  const { token: next } = (await post('/rotate', token)).json()
  t.equal((await post('/rotate', token)).statusCode, 401, 'a replaced token makes no requests')
  await t.rejects(app.tokenRegistry.rotate(token), { code: 'FST_TOKEN_REUSED' })
  t.equal((await post('/logout', next)).statusCode, 401, 'the reuse ended the session')
  const lines = log.args().map(String)
  t.match(lines, [/issued .* for ada/, /rotated .* to generation 1/, /ended .*: reuse_recent/, /warn ada/])
  t.equal(lines.length, 4)
})

t.test('jwt-denylist', async t => {
  const { app } = await example(t, () => import('../examples/jwt-denylist.ts'))
  await signsInAndOut(t, app, await tokenFrom(app))
})

t.test('existing-server', async t => {
  const { app } = await example(t, () => import('../examples/existing-server.ts'))
  const token = await tokenFrom(app)
  const me = await app.inject({ url: '/me', headers: { ...bearer(token), origin: 'https://app.example.org' } })
  t.match(me, { statusCode: 200, headers: { 'access-control-allow-origin': 'https://app.example.org' } })

  const refused = await app.inject({ url: '/me', headers: { origin: 'https://app.example.org' } })
  t.match(refused, { statusCode: 401, headers: { 'www-authenticate': 'Bearer', 'access-control-allow-origin': 'https://app.example.org' } })
  t.same(Object.keys(refused.json()), ['problem', 'detail'], 'the error handler of the host')

  const { partner } = app.getDecorator<Record<'partner', JWT>>('jwt')
  const jwt = partner.sign({ sub: 'acme' })
  t.same((await app.inject({ url: '/partner', headers: bearer(jwt) })).json(), { partner: 'acme' }, 'the JWTs of the host')
  t.equal((await app.inject({ url: '/partner', headers: bearer(`${jwt.slice(0, -4)}AAAA`) })).statusCode, 401)
  t.equal((await app.inject({ url: '/partner', headers: bearer(token) })).statusCode, 401, 'neither takes the other\'s')
  t.equal((await app.inject({ url: '/me', headers: bearer(jwt) })).statusCode, 401)

  const first = await app.inject('/visits')
  t.same(first.json(), { visits: 1 })
  t.same((await app.inject({ url: '/visits', headers: { cookie: String(first.headers['set-cookie']).split(';')[0] ?? '' } })).json(), { visits: 2 })
})

t.test('from-fastify-session', async t => {
  const secret = newSecret()
  process.env['OLD_SECRET'] = secret
  const { app, oldStore, adoptSessions } = await example(t, () => import('../examples/from-fastify-session.ts'))

  const old = Fastify()
  t.teardown(() => old.close())
  await old.register(fastifyCookie)
  await old.register(fastifySession, {
    secret,
    cookie: { secure: false, maxAge: 3_600_000 },
    store: {
      set (id, session, done) {
        oldStore.set(id, JSON.parse(JSON.stringify(session)))
        done()
      },
      get: (_id, done) => done(null),
      destroy: (_id, done) => done()
    }
  })
  old.get('/', async () => 'hello')
  old.post('/login', async request => { Object.assign(request.session, { user: 'ada' }) })
  const before = oldStore.size
  await old.inject('/')
  const { cookies: [cookie] } = await old.inject({ method: 'POST', url: '/login' })
  t.equal(oldStore.size, before + 2, 'the visitor has a row too')

  const headers = { cookie: `sessionId=${encodeURIComponent(cookie?.value ?? '')}` }
  t.equal((await app.inject({ url: '/me', headers })).statusCode, 401)
  const [fresh] = (await app.inject({ method: 'POST', url: '/login' })).cookies
  t.match(fresh, { name: 'sessionId', value: /^trs_/ })
  t.equal(await adoptSessions(), 1, 'who never signed in is left out, and what is there already is no fault')
  t.equal(await adoptSessions(), 0)

  t.same((await app.inject({ url: '/me', headers })).json(), { sub: 'ada' }, 'nobody is signed out')
  t.same((await app.inject({ url: '/me', headers: { cookie: `sessionId=${fresh?.value}` } })).json(), { sub: 'ada' }, 'nor is who signed in before')
  const { sessions } = await app.tokenRegistry.list({ sub: 'ada' })
  t.ok(sessions.some(({ expiresAt }) => Math.abs(expiresAt - Date.now() - 3_600_000) < 60_000), 'it ends when the old one would have')
  t.same((await app.inject({ method: 'POST', url: '/logout', headers })).json(), { ended: true })
  t.equal((await app.inject({ url: '/me', headers })).statusCode, 401)
  t.equal(await adoptSessions(), 0)
  t.same([...oldStore.values()].filter(({ user }) => user !== undefined), [], 'the next start does not sign in who has signed out')
})

t.test('from-fastify-jwt', async t => {
  const { app } = await example(t, () => import('../examples/from-fastify-jwt.ts'))
  const claims: object = { sub: 'ada', jti: 'an-old-one' }
  const jwt = app.jwt.sign(claims, { expiresIn: '1h' })
  const me = async (token: string) => (await app.inject({ url: '/me', headers: bearer(token) })).statusCode
  t.same(await Promise.all([1, 2].map(() => me(jwt))), [200, 200])

  await t.test('its session is proved by the JWT alone, not by what is known of it', async t => {
    const [head = '', payload = '', signature = ''] = jwt.split('.')
    const known = ['an-old-one', 'ada', JSON.stringify(claims), Buffer.from(payload, 'base64url').toString(), `${head}.${payload}`, payload, jwt]
    const digests = known.flatMap(text => (['hex', 'base64', 'base64url'] as const).map(encoding => createHash('sha256').update(text).digest(encoding)))
    const { sessions } = await app.tokenRegistry.list({ sub: 'ada' })
    for (const text of [...known.slice(0, -1), ...digests, ...sessions.map(({ id }) => id), `${head}.${payload}.`, signature]) {
      for (const token of [text, `old-jwt:${text}`]) t.equal(await me(token), 401, token)
    }
  })

  // The last character of its signature holds two bits that nothing reads.
  const last = jwt.charCodeAt(jwt.length - 1)
  const twin = jwt.slice(0, -1) + String.fromCharCode(last % 2 === 0 ? last + 1 : last - 1)
  await me(twin)
  t.equal((await app.inject({ url: '/sessions', headers: bearer(jwt) })).json().length, 1, 'a JWT is one session, however it is written')
  await signsInAndOut(t, app, jwt)
  t.equal(await me(twin), 401)
  t.ok(await app.tokenRegistry.denylist.has('an-old-one'))
  await signsInAndOut(t, app, await tokenFrom(app))
})

t.test('redis-store', async t => {
  Object.assign(process.env, { REDIS_URL: (await sharedRedis()).url, KEY_PREFIX: newPrefix() })
  const { app } = await example(t, () => import('../examples/redis-store.ts'))
  t.equal(app.tokenStore?.name, 'redis')
  await signsInAndOut(t, app, await tokenFrom(app))
})

t.test('redis-sentinel', async t => {
  const { sentinels, name, primary } = await redisSentinels(t)
  Object.assign(process.env, { SENTINELS: sentinels.map(({ host, port }) => `${host}:${port}`).join(), SENTINEL_NAME: name })
  const { app } = await example(t, () => import('../examples/redis-sentinel.ts'))
  const token = await tokenFrom(app)
  await signsInAndOut(t, app, await tokenFrom(app))

  const old = await primary()
  await old.kill()
  const me = () => app.inject({ url: '/me', headers: bearer(token) })
  await until('the next primary serves', [], async () => (await app.inject({ method: 'POST', url: '/login' })).statusCode === 200)
  await until('it is served again', [], async () => (await me()).statusCode !== 503)
  t.equal((await me()).statusCode, 200, 'nobody is signed out')
})

t.test('two-instances', async t => {
  Object.assign(process.env, { REDIS_URL: (await sharedRedis()).url, KEY_PREFIX: newPrefix() })
  const { app, other } = await example(t, () => import('../examples/two-instances.ts'))
  const token = await tokenFrom(app)
  const status = async (app: FastifyInstance) => (await app.inject({ url: '/me', headers: bearer(token) })).statusCode
  await until('it is served from the cache of both', [], async () => {
    for (const instance of [app, other]) t.equal(await status(instance), 200)
    return [app, other].every(({ tokenStore }) => Number(tokenStore?.staleness) < 1000)
  })
  await app.inject({ method: 'POST', url: '/logout', headers: bearer(token) })
  t.equal(await status(app), 401, 'at once')
  await until('the other has heard of it', [], async () => await status(other) === 401)
})

t.test('session-limits', async t => {
  const { app } = await example(t, () => import('../examples/session-limits.ts'))
  const login = async (client: string, query = '') => await app.inject({ method: 'POST', url: `/login/${client}${query}` })
  const live = async (client: string) => (await app.tokenRegistry.list({ sub: 'ada', client })).sessions.map(({ id }) => id).reverse()
  for (const client of ['rolling', 'active', 'strict']) {
    const [first, second] = [(await login(client)).json(), (await login(client)).json()]
    while (app.tokenRegistry.now() <= second.session.issuedAt) await setImmediate()
    await app.tokenRegistry.rotate(first.token)
    const third = await login(client)
    const left = await live(client)
    t.equal(left.length, 2)
    t.equal(third.statusCode, client === 'strict' ? 429 : 200)
    t.equal(left.includes(first.session.id), client !== 'rolling')
    t.equal(left.includes(second.session.id), client !== 'active')
    if (client !== 'strict') continue
    t.same(third.json().sessions.map(({ id }: { id: string }) => id), [second.session.id, first.session.id])
    const next = await login(client, '?continue=true')
    t.same(await live(client), [second.session.id, next.json().session.id])
    t.equal((await app.inject({ url: '/sessions', headers: bearer(next.json().token) })).json().length, 2)
  }
})

t.test('devices', async t => {
  const { app } = await example(t, () => import('../examples/devices.ts'))
  const log = t.capture(console, 'log')
  const [first] = await app.sessionLimits.devices.list({ tenant: '', sub: 'ada' })
  const login = async (device?: string) => {
    const { headers, json } = await app.inject({ method: 'POST', url: '/login', headers: { 'user-agent': 'okhttp/5.0', ...device !== undefined && { 'device-token': device } } })
    return { device: String(headers['device-token']), token: String(json().token) }
  }
  const phone = await login()
  const again = await login(phone.device)
  t.equal(again.device, phone.device)
  const lines: unknown[] = []
  for (; lines.length === 0; lines.push(...log.args())) await setImmediate()
  t.same(lines, [['to ada: a sign-in from a new device, okhttp']])

  const headers = bearer(phone.token)
  const list = async () => (await app.inject({ url: '/devices', headers })).json()
  const [{ id }, other] = await list()
  t.match(await list(), [{ name: 'okhttp', current: true }, { id: first?.id, current: false }])
  const patch = async (id: string, payload: object) => await app.inject({ method: 'PATCH', url: `/devices/${id}`, headers, payload })
  t.match((await patch(id, { name: 'Ada\'s phone', trusted: true })).json(), { name: 'Ada\'s phone', trusted: true })
  t.equal((await patch(id, { name: 'a\nb' })).statusCode, 400)
  t.equal((await patch('A'.repeat(22), { trusted: true })).statusCode, 404)

  t.same((await app.inject({ method: 'DELETE', url: `/devices/${other.id}`, headers })).json(), { ended: 0 })
  t.same((await app.inject({ method: 'DELETE', url: `/devices/${id}`, headers })).json(), { ended: 2 })
  t.equal((await app.inject({ url: '/devices', headers })).statusCode, 401)
})

t.test('limits-by-plan', async t => {
  const { app } = await example(t, () => import('../examples/limits-by-plan.ts'))
  const count = async () => (await app.inject({ url: '/sessions' })).json().count
  for (let i = 0; i < 5; i++) await app.inject({ method: 'POST', url: '/login' })
  t.equal(await count(), 3)
  t.same((await app.inject({ method: 'PUT', url: '/plan/free' })).json(), { ended: 2 })
  t.equal(await count(), 1)
  t.equal((await app.inject({ method: 'PUT', url: '/plan/other' })).statusCode, 400)
  await app.inject({ method: 'PUT', url: '/plan/enterprise' })
  for (let i = 0; i < 5; i++) await app.inject({ method: 'POST', url: '/login' })
  t.equal(await count(), 6)
})

t.test('live-connection', async t => {
  const { app } = await example(t, () => import('../examples/live-connection.ts'))
  const { port } = app.server.address() as { port: number } // it listens
  const open = async (token: string) => await fetch(`http://127.0.0.1:${port}/events`, { headers: bearer(token) })
  const [token, other] = [await tokenFrom(app), await tokenFrom(app)]
  const [events, more] = [await open(token), await open(other)]
  t.equal(events.headers.get('content-type'), 'text/event-stream')
  await app.inject({ method: 'POST', url: '/logout', headers: bearer(token) })
  t.match(await events.text(), /^data: hello ada\n\n(data: .*\n\n)*event: signed-out\ndata: revoked\n\n$/, 'it has ended')
  await app.tokenRegistry.revokeAll({ sub: 'ada', reason: 'password_changed' })
  t.match(await more.text(), /event: signed-out\ndata: password_changed\n\n$/)
  t.equal((await open(token)).status, 401)
})

t.test('audit', async t => {
  const { app } = await example(t, () => import('../examples/audit.ts'))
  const { port } = app.server.address() as { port: number } // it listens
  const signIn = async () => (await app.inject({ method: 'POST', url: '/login' })).json<{ token: string, session: { id: string } }>()
  const [auditor, { token, session }] = [await signIn(), await signIn()]
  t.equal((await app.inject({ method: 'POST', url: '/mail', headers: bearer(token) })).body, 'changed')

  const { follow } = await import('../examples/auditor.ts')
  const following = follow({ url: `http://127.0.0.1:${port}/audit`, token: auditor.token, vkeys: app.audit.vkeys, every: 1 })
  const { value: before } = await following.next()
  await app.inject({ method: 'POST', url: '/logout', headers: bearer(token) })
  const { value: after } = await following.next()
  t.ok((after?.size ?? 0) > (before?.size ?? 0))
  await t.rejects(follow({ url: `http://127.0.0.1:${port}/audit`, token: auditor.token, vkeys: [], every: 1 }).next(), { message: /not signed by a trusted key/ })
  await t.rejects(follow({ url: `http://127.0.0.1:${port}/audit`, token: 'none', vkeys: [], every: 1 }).next(), { message: '/checkpoint was answered by 401' })

  const { body: receipt } = await app.inject({ url: `/audit/receipts/${session.id}`, headers: bearer(auditor.token) })
  const verify = async (payload: string) => (await app.inject({ method: 'POST', url: '/verify', payload, headers: { 'content-type': 'application/json' } })).json<object>()
  t.match(await verify(receipt), { ok: true, entry: { type: 'session.end', reason: 'revoked' } })
  t.match(await verify(receipt.replace('revoked', 'expired')), { ok: false })
})

t.test('metrics', async t => {
  const { app } = await example(t, () => import('../examples/metrics.ts'))
  t.equal((await app.inject('/metrics')).statusCode, 401)
  const token = await tokenFrom(app)
  await app.inject({ method: 'POST', url: '/orders', headers: bearer(token) })
  await app.tokenRegistry.revoke(token, 'fraud')
  const { text } = await app.metrics.scrape()
  for (const line of ['orders_total{region="eu"} 1', /_sessions_ended_total\{tenant="",reason="fraud",region="eu"\} 1/, /_health_status\{check="warehouse",status="ok",region="eu"\} 1/]) t.match(text, line)
})

t.test('traces', async t => {
  const printed = t.capture(console, 'dir')
  const { app } = await example(t, () => import('../examples/traces.ts'))
  printed()
  const { headers } = await app.inject({ method: 'POST', url: '/login', headers: { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' } })
  t.equal(headers['x-request-id'], '4bf92f3577b34da6a3ce929d0e0e4736')
  const spans = printed().map(({ args: [span] }) => span as { name: string, traceId: string })
  t.same(spans.map(({ name }) => name), ['insert memory', 'token_registry.issue'])
  t.ok(spans.every(({ traceId }) => traceId === headers['x-request-id']))
  for (const api of [trace, context, propagation]) api.disable()
})
