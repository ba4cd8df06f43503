import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { connect, type AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { inspect } from 'node:util'
import cookiePlugin from '@fastify/cookie'
import cors from '@fastify/cors'
import jwt from '@fastify/jwt'
import session from '@fastify/session'
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyServerOptions, type InjectOptions, type LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import tokenRegistry, {
  memoryStore, requireSession, StoreUnavailable, TokenReused, type Auth, type Ending, type RouteSession, type SessionMeta, type TokenRegistryOptions,
  type TokenStore
} from '../plugins/token-registry/index.ts'
import { newSecret } from './support/build.ts'
import { Clock } from './support/clock.ts'
import { decorated } from './support/decorated.ts'
import { deferred } from './support/deferred.ts'

const MINUTE = 60_000
const BAD_TOKEN = { statusCode: 401, code: 'FST_TOKEN_INVALID', error: 'Unauthorized', message: 'The token is not valid: sign in again' }
const guarded = { config: { session: true } }
const thumbprint = 'x'.repeat(43)

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const cookie = (token: string) => ({ cookie: `__Host-session=${token}` })

/** A server with routes that use everything a request is given. */
async function serve (t: Test, options: Partial<TokenRegistryOptions> = {}, server: FastifyServerOptions = {}): Promise<FastifyInstance> {
  const app = Fastify(server)
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret(), ...options })

  app.get('/me', guarded, async request => ({ sub: request.requireAuth().session.sub }))
  app.get('/maybe', { config: { session: { optional: true } } }, async ({ auth }) => ({ sub: auth?.session.sub ?? null }))
  app.get('/open', async ({ auth }) => ({ auth }))
  app.post('/me', guarded, async request => ({ sub: request.requireAuth().session.sub }))
  app.post('/login', async request => await request.startSession({ sub: 'alice' }))
  app.post('/rotate', guarded, async request => await request.rotateSession())
  app.post('/logout', guarded, async request => ({ ended: await request.revokeSession() }))
  return app
}

async function tokenOf (app: FastifyInstance, sub = 'alice'): Promise<string> {
  return (await app.tokenRegistry.issue({ sub })).token
}

/** A list stands for a header that is sent several times, which the types of `inject` know only of some. */
type Headers = Readonly<Record<string, string | readonly string[]>>

const inject = (app: FastifyInstance, request: InjectOptions, headers: Headers) => app.inject({ ...request, headers: headers as Record<string, string> })
const get = (app: FastifyInstance, url: string, headers: Headers = {}) => inject(app, { url }, headers)
const post = (app: FastifyInstance, url: string, headers: Headers = {}) => inject(app, { method: 'POST', url }, headers)

/** What a server answers to bytes on a connection of their own. */
async function speak (app: FastifyInstance, ...head: string[]): Promise<string> {
  if (!app.server.listening) await app.listen({ port: 0 })
  const { port } = app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  // The server may reset the connection while bytes are on their way: that is a close too.
  socket.on('error', () => {})
  let answer = ''
  socket.on('data', chunk => { answer += chunk.toString() })
  socket.write(['GET /me HTTP/1.1', 'Host: localhost', 'Connection: close', ...head, '', ''].join('\r\n'))
  await once(socket, 'close')
  return answer
}

/** A link to the memory store that can be cut. */
class Link {
  /** ms since invalidations were proved to arrive */
  staleness = 0
  /** What calls of the store come to; `emptied`, another process ended all sessions and nobody told. */
  state: 'up' | 'down' | 'silent' | 'emptied' = 'up'
  /** Answers wait for it. */
  answers: Promise<void> = Promise.resolve()
  readonly store: TokenStore

  constructor (t: Test, now = Date.now) {
    const memory = memoryStore({ now })
    t.teardown(() => memory.close())
    const staleness = (): number => this.staleness
    this.store = decorated(memory, {
      get staleness () { return staleness() },
      insert: async (records, options) => await this.#carry(async () => await memory.insert(records, options)),
      get: async id => await this.#carry(async () => this.state === 'emptied' ? null : await memory.get(id)),
      rotate: async (id, presented, op) => await this.#carry(async () => await memory.rotate(id, presented, op)),
      end: async (ids, cause) => await this.#carry(async () => await memory.end(ids, cause)),
      endAll: async (of, cause, told) => await this.#carry(async () => await memory.endAll(of, cause, told)),
      ending: async id => await this.#carry(async () => await memory.ending(id))
    })
  }

  async #carry<T> (call: () => Promise<T>): Promise<T> {
    if (this.state === 'down') throw new Error('ECONNREFUSED')
    if (this.state === 'silent') return await new Promise(() => {})
    const answer = await call()
    await this.answers
    return answer
  }
}

/** A memory store whose clock is moved by hand. */
function timed (t: Test): { clock: Clock, store: TokenStore } {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now })
  t.teardown(() => store.close())
  return { clock, store }
}

/** What a server logs, at every level. */
function recorder (): { lines: string[], server: FastifyServerOptions } {
  const lines: string[] = []
  return { lines, server: { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } } }
}

function equalAnswers (t: Test, answers: Record<string, LightMyRequestResponse>, expected: object, headers: Record<string, string>): void {
  for (const [name, answer] of Object.entries(answers)) {
    t.same(answer.json(), expected, name)
    t.match(answer.headers, headers, name)
    t.same(Object.keys(answer.headers).sort(), ['connection', 'content-length', 'content-type', 'date', ...Object.keys(headers)].sort(), name)
  }
}

// Tokens

t.test('who presents no token is asked to sign in', async t => {
  const app = await serve(t)
  const token = await tokenOf(app)
  const answers: Record<string, LightMyRequestResponse> = {}
  for (const authorization of [undefined, '', 'Basic YWxpY2U6c2VjcmV0', `Token ${token}`, `Bearer:${token}`, `Bearer${token}`, `Bearer\t${token}`, token, ',']) {
    answers[String(authorization)] = await get(app, '/me', authorization === undefined ? {} : { authorization })
  }
  answers['in the URL'] = await get(app, `/me?access_token=${token}&token=${token}`)
  answers['in a cookie, where cookies are off'] = await get(app, '/me', cookie(token))
  answers['in a header of another name'] = await get(app, '/me', { 'proxy-authorization': `Bearer ${token}`, 'x-authorization': `Bearer ${token}` })

  equalAnswers(t, answers, { statusCode: 401, code: 'FST_TOKEN_MISSING', error: 'Unauthorized', message: 'Sign in: this needs a session token' }, { 'www-authenticate': 'Bearer' })
})

t.test('the scheme is taken in any case, with any number of spaces behind it', async t => {
  const app = await serve(t)
  const token = await tokenOf(app)
  for (const scheme of ['Bearer', 'bearer', 'BEARER', 'bEaReR', 'Bearer ', 'bearer   ']) {
    t.same((await get(app, '/me', { authorization: `${scheme} ${token}` })).json(), { sub: 'alice' }, scheme)
  }
})

t.test('every bad token gets one and the same answer, and the log tells them apart', async t => {
  const { clock, store } = timed(t)
  const secret = newSecret()
  const { lines, server } = recorder()
  const app = await serve(t, { secret, store }, server)
  const registry = app.tokenRegistry
  const good = await tokenOf(app)

  const expired = (await registry.issue({ sub: 'alice', ttl: '1m' })).token
  const idle = (await registry.issue({ sub: 'alice', idleTimeout: '1m' })).token
  const revoked = await tokenOf(app)
  await registry.revoke(revoked)
  const replaced = await tokenOf(app)
  const { token: ended } = await registry.rotate(replaced)
  clock.advance(2 * MINUTE)
  const behind = await tokenOf(app)
  await registry.rotate((await registry.rotate(behind)).token)
  await t.rejects(registry.rotate(replaced), { code: 'FST_TOKEN_REUSED' })

  const bad: Record<string, string> = {
    'no token': '',
    'two tokens': `${good} ${good}`,
    'two tokens, as of two headers that were joined': `${good}, Bearer ${good}`,
    'a token twice': good + good,
    'a token with something behind it': `${good}=`,
    'a token with something before it': `"${good}`,
    'a token that was cut': good.slice(0, -1),
    'a token of another case': good.toUpperCase(),
    short: 'x',
    long: 'x'.repeat(1_000_000),
    'long, and of our form': 'trs_' + 'A'.repeat(1_000_000),
    'no text': '\xff\xfe\x80',
    'of our form': 'trs_' + 'A'.repeat(56),
    'of no form': 'A'.repeat(60),
    'a JWT of nobody': 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.',
    'the id of a session': (await registry.get(good))?.id ?? '',
    'foreign MAC': await tokenOf(await serve(t)),
    'right MAC, unknown session': await tokenOf(await serve(t, { secret })),
    'a refresh token': (await registry.issue({ sub: 'alice', use: 'refresh' })).token,
    'a one-time token': (await registry.issue({ sub: 'alice', use: 'once' })).token,
    expired,
    idle,
    revoked,
    replaced,
    'ended by reuse': ended,
    'two rotations behind': behind
  }
  const answers: Record<string, LightMyRequestResponse> = {}
  for (const [name, token] of Object.entries(bad)) {
    answers[name] = await get(app, '/me', bearer(token))
    answers[`${name}, on an optional route`] = await get(app, '/maybe', bearer(token))
  }
  equalAnswers(t, answers, BAD_TOKEN, { 'www-authenticate': 'Bearer error="invalid_token"' })
  t.equal((await get(app, '/me', bearer(good))).statusCode, 200)

  const log = lines.join('')
  for (const cause of ['The session has expired', 'The session was ended', 'The token was used before']) t.match(log, cause)
})

t.test('a token is refused whichever byte of it was changed, cached or not', async t => {
  const app = await serve(t)
  const token = await tokenOf(app)
  const refused = async () => {
    for (let i = 0; i < token.length; i++) {
      for (const other of [token[i] === 'A' ? 'B' : 'A', '~', ' ']) {
        const { statusCode } = await get(app, '/me', bearer(token.slice(0, i) + other + token.slice(i + 1)))
        if (statusCode !== 401) t.fail(`byte ${i}, ${other}: ${statusCode}`)
      }
    }
  }
  await refused()
  t.equal((await get(app, '/me', bearer(token))).statusCode, 200)
  await refused()
})

t.test('two Authorization headers are refused, whatever is in them', async t => {
  const app = await serve(t, { cookie: true })
  const token = await tokenOf(app)
  const twice = [
    [`Authorization: Bearer ${token}`, `Authorization: Bearer ${token}`],
    [`Authorization: Bearer ${token}`, 'aUTHORIZATION: Basic eDp5'],
    ['authorization: Basic eDp5', `Authorization: Bearer ${token}`],
    ['Authorization:', `X-Between: 1\r\nAuthorization: Bearer ${token}`],
    ['Authorization: a', 'Authorization: b', 'Authorization: c', `Cookie: __Host-session=${token}`]
  ]
  for (const headers of twice) {
    const answer = await speak(app, ...headers)
    t.match(answer, /^HTTP\/1.1 400 /)
    t.match(answer, /"code":"FST_TOKEN_MALFORMED"/)
    t.match(answer, /^www-authenticate: Bearer error="invalid_request"\r$/m)
  }
  t.equal((await get(app, '/open', { authorization: ['a', 'b'] })).statusCode, 200, 'nobody asks on an open route')
})

t.test('the name of the header is taken in any case, and a header that is too large is refused', async t => {
  const app = await serve(t)
  const token = await tokenOf(app)
  for (const name of ['Authorization', 'authorization', 'AUTHORIZATION', 'aUtHoRiZaTiOn']) {
    t.match(await speak(app, 'Cache-Control: no-cache', `${name}:  Bearer ${token}  `), /^HTTP\/1.1 200 [^]*"sub":"alice"/, name)
  }
  t.match(await speak(app, `Authorization: Bearer ${'x'.repeat(1_000_000)}`), /^HTTP\/1.1 431 /)
  t.match(await speak(app, `Authorization: Bearer ${'x'.repeat(15_000)}`), /^HTTP\/1.1 401 /)
  t.match(await speak(app, `Authorization: Bearer ${token}\0`), /^HTTP\/1.1 400 /)
  t.match(await speak(app, ...Array.from({ length: 500 }, (_, i) => `X-${i}: y`), `Authorization: Bearer ${token}`), /^HTTP\/1.1 200 /)
})

t.test('a request over HTTP/2 is served, with a token or a cookie', async t => {
  const app = Fastify({ http2: true })
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret(), cookie: true })
  app.post('/me', guarded, async request => ({ sub: request.requireAuth().session.sub }))
  const { token } = await app.tokenRegistry.issue({ sub: 'alice' })
  const url = await app.listen({ port: 0 })
  const client = connectHttp2(url)
  t.teardown(() => { client.close() })

  const status = async (headers: Record<string, string>): Promise<number | undefined> => {
    const stream = client.request({ ':method': 'POST', ':path': '/me', ...headers })
    stream.end()
    const [head] = await once(stream, 'response') as [Record<':status', number>]
    stream.resume()
    await once(stream, 'close')
    return head[':status']
  }
  t.equal(await status({}), 401)
  t.equal(await status(bearer(token)), 200)
  t.equal(await status({ ...cookie(token), origin: url }), 200)
  t.equal(await status({ ...cookie(token), origin: 'https://evil.example' }), 403)
})

// Routes

t.test('a misspelt config.session is refused when the route is declared, with route and key', async t => {
  const app = await serve(t)
  const wrong: Array<[unknown, string]> = [
    ['true', 'session is \'true\': it may be true, false or { optional, scope, serveCachedFor, noStore }'],
    [1, 'session is 1: it may be true'],
    [null, 'session is null: it may be true'],
    [undefined, 'session is undefined: it may be true'],
    [['read'], 'session is [Array]: it may be true'],
    [() => true, 'session is [Function (anonymous)]: it may be true'],
    [{ optinal: true }, 'session.optinal is not an option: there are optional, scope, serveCachedFor, noStore'],
    [{ secret: 'hush' }, 'session.secret is not an option: there are optional, scope, serveCachedFor, noStore'],
    [{ optional: 'true' }, 'session.optional is \'true\': it may be true or false'],
    [{ noStore: 1 }, 'session.noStore is 1: it may be true or false'],
    [{ scope: '' }, 'session.scope is \'\': it may be a scope, or a list of scopes all of which are needed'],
    [{ scope: 'read write' }, 'session.scope is \'read write\': it may be a scope'],
    [{ scope: 'a"\r\nx: y' }, 'session.scope is'],
    [{ scope: [] }, 'session.scope is []: it may be a scope'],
    [{ scope: ['read', 'a b'] }, 'session.scope.1 is \'a b\': it may be a scope'],
    [{ scope: undefined }, 'session.scope is undefined: leave it out, or give it a value'],
    [{ serveCachedFor: '5 minutes' }, 'session.serveCachedFor is \'5 minutes\': it may be a number of milliseconds, or text such as "15m"'],
    [{ serveCachedFor: -1 }, 'session.serveCachedFor is -1: it may be'],
    [{ serveCachedFor: NaN }, 'session.serveCachedFor is NaN: it may be'],
    [{ optional: true, scope: 'read' }, 'session has scope and optional, which contradict each other']
  ]
  for (const [given, message] of wrong) {
    const config = { session: given as RouteSession }
    for (const method of ['GET', 'POST']) {
      t.throws(() => app.route({ method, url: '/wrong', config, handler: async () => 'open' }), { code: 'FST_SESSION_ROUTE_CONFIG', message: `${method} /wrong: config.${message}` })
    }
    if (given !== undefined) t.throws(() => requireSession(given as true), { code: 'FST_SESSION_ROUTE_CONFIG', message: `requireSession: config.${message}` })
  }
  t.throws(() => requireSession(false as unknown as true), { message: 'requireSession: false asks for nothing' })
  t.equal((await get(app, '/wrong')).statusCode, 404)

  const other = await serve(t)
  await t.rejects(async () => {
    await other.register(async api => { api.route({ method: ['GET', 'PUT'], url: '/wrong', config: { session: 'on' as unknown as true }, handler: async () => 'open' }) }, { prefix: '/api' })
  }, { message: /^GET,PUT \/api\/wrong: / })
})

t.test('each spelling of config.session does what it says', async t => {
  const app = await serve(t)
  const token = await tokenOf(app)
  const routes: Array<[RouteSession, number, number]> = [
    [true, 401, 200], [false, 200, 200], [{}, 401, 200], [{ optional: true }, 200, 200], [{ optional: false }, 401, 200], [{ noStore: true }, 401, 200],
    [{ scope: 'read' }, 401, 403], [{ scope: ['read', 'write'] }, 401, 403], [{ serveCachedFor: '1m', optional: false, scope: 'read', noStore: false }, 401, 403]
  ]
  for (const [index, [session]] of routes.entries()) app.get(`/${index}`, { config: { session } }, async ({ auth }) => ({ auth }))
  for (const [index, [session, nobody, alice]] of routes.entries()) {
    t.equal((await get(app, `/${index}`)).statusCode, nobody, JSON.stringify(session))
    t.equal((await get(app, `/${index}`, bearer(token))).statusCode, alice, JSON.stringify(session))
  }
  t.same((await get(app, '/1', bearer(token))).json(), { auth: null }, 'who is not asked for is not looked for')
})

t.test('HEAD, trailing slashes, lists of methods, and constraints open no way around', async t => {
  const app = await serve(t)
  const token = await tokenOf(app)
  await app.register(async api => { api.get('/', guarded, async () => 'in') }, { prefix: '/api' })
  app.route({ method: ['PUT', 'DELETE'], url: '/many', ...guarded, handler: async () => 'in' })
  app.all('/all', guarded, async () => 'in')
  app.get('/versioned', { ...guarded, constraints: { version: '1.0.0' } }, async () => 'in')

  const requests: InjectOptions[] = [
    { method: 'HEAD', url: '/me' }, { url: '/api' }, { url: '/api/' }, { method: 'HEAD', url: '/api/' }, { method: 'PUT', url: '/many' }, { method: 'DELETE', url: '/many' },
    { method: 'OPTIONS', url: '/all' }, { method: 'HEAD', url: '/all' }, { url: '/versioned', headers: { 'accept-version': '1.x' } }
  ]
  for (const request of requests) {
    t.equal((await app.inject(request)).statusCode, 401, inspect(request))
    t.equal((await app.inject({ ...request, headers: { ...request.headers, ...bearer(token) } })).statusCode, 200, inspect(request))
  }
})

t.test('a route that was declared before the plugin is guarded too, and a misspelt one fails', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  app.get('/early', guarded, async () => 'in')
  app.get('/typo', { config: { session: { scop: 'admin' } as unknown as true } }, async () => 'in')
  app.get('/silent', async () => 'in')
  await app.register(tokenRegistry, { secret: newSecret() })
  const token = await tokenOf(app)

  for (let i = 0; i < 2; i++) {
    t.equal((await get(app, '/early')).statusCode, 401)
    t.equal((await get(app, '/early', bearer(token))).statusCode, 200)
    t.match((await get(app, '/typo', bearer(token))).json(), { statusCode: 500, code: 'FST_SESSION_ROUTE_CONFIG', message: /^GET \/typo: config.session.scop is not an option/ })
    t.equal((await get(app, '/silent')).statusCode, 200)
  }
})

t.test('what a hook of the host makes of a route counts, also where it was added after the plugin', async t => {
  const app = await serve(t)
  app.addHook('onRoute', route => {
    if (route.url.startsWith('/admin')) route.config = { ...route.config, session: { scope: 'admin' } }
  })
  app.get('/admin', { config: { session: false } }, async () => 'in')
  app.get('/admin/typo', async () => 'in')
  app.addHook('onRoute', route => { Object.assign(route, { config: { session: 'yes' } }) })
  app.get('/late', async () => 'in')

  t.equal((await get(app, '/admin')).statusCode, 401)
  t.equal((await get(app, '/admin', bearer(await tokenOf(app)))).statusCode, 403)
  t.equal((await get(app, '/admin/typo')).statusCode, 401)
  t.match((await get(app, '/late')).json(), { statusCode: 500, code: 'FST_SESSION_ROUTE_CONFIG' })
})

t.test('registered with session: true, whatever does not say otherwise is closed', async t => {
  const app = await serve(t, { session: true })
  app.get('/closed', async () => 'in')
  app.get('/public', { config: { session: false } }, async () => 'in')
  const token = await tokenOf(app)

  t.equal((await get(app, '/closed')).statusCode, 401)
  t.equal((await get(app, '/closed', bearer(token))).statusCode, 200)
  t.equal((await get(app, '/public')).statusCode, 200)
  t.equal((await get(app, '/nowhere')).statusCode, 401, 'what exists is nobody\'s business')
  t.equal((await get(app, '/nowhere', bearer(token))).statusCode, 404)

  const optional = await serve(t, { session: { optional: true, noStore: true } })
  t.equal((await get(optional, '/open')).statusCode, 200)
  t.equal((await get(optional, '/open', bearer('bad token'))).statusCode, 401)
  t.match((await get(optional, '/open', bearer(await tokenOf(optional)))).headers, { 'cache-control': 'no-store' })
  t.equal((await get(optional, '/nowhere')).statusCode, 404)
})

t.test('routes of a context that is older than the plugin are guarded too', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(async older => {
    older.decorateRequest('own', null)
    older.get('/me', guarded, async request => request.requireAuth().session.sub)
    older.get('/auth', async ({ auth }) => ({ auth }))
    older.get('/required', async request => request.requireAuth())
    older.get('/typo', { config: { session: 'yes' as unknown as true } }, async () => 'in')
    older.post('/login', async request => await request.startSession({ sub: 'alice' }))
    older.get('/gone', async (_request, reply) => reply.callNotFound())
  })
  await app.register(tokenRegistry, { secret: newSecret(), cookie: true })
  const login = await post(app, '/login')
  t.equal(login.cookies[0]?.value, login.json().token)
  const headers = cookie(login.json().token)

  t.equal((await get(app, '/me')).statusCode, 401)
  t.equal((await get(app, '/me', headers)).body, 'alice')
  t.same((await get(app, '/auth', headers)).json(), { auth: null })
  t.match((await get(app, '/required', headers)).headers, { 'www-authenticate': 'Bearer' })
  t.equal((await get(app, '/typo', headers)).statusCode, 500)
  t.equal((await get(app, '/gone', headers)).statusCode, 404)
})

t.test('a URL that Fastify refuses is answered by the host', async t => {
  const app = await serve(t, { session: true, cookie: true }, { frameworkErrors: (error, _request, reply) => { (reply as FastifyReply).code(400).send({ problem: error.code }) } })
  const answer = await get(app, '/%', cookie(await tokenOf(app)))
  t.same([answer.statusCode, answer.json()], [400, { problem: 'FST_ERR_BAD_URL' }])
})

t.test('registered in a context, it serves that context alone', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  const secret = newSecret()
  const side = async (context: FastifyInstance): Promise<void> => {
    await context.register(tokenRegistry, { secret, cookie: true })
    context.get('/me', guarded, async request => request.requireAuth().session.sub)
    context.post('/login', async request => await request.startSession({ sub: 'alice' }))
    context.setNotFoundHandler(async (request, reply) => reply.code(404).send({ auth: request.auth }))
  }
  await app.register(side, { prefix: '/a' })
  await app.register(side, { prefix: '/b' })
  app.get('/', async request => ({ has: 'auth' in request }))

  const a = (await post(app, '/a/login')).json().token
  t.equal((await get(app, '/a/me', bearer(a))).body, 'alice')
  t.equal((await get(app, '/b/me', bearer(a))).statusCode, 401, 'the other one has a store of its own')
  t.same((await get(app, '/a/nowhere')).json(), { auth: null })
  t.same((await get(app, '/', bearer(a))).json(), { has: false })
  t.notOk('tokenRegistry' in app)
})

t.test('registered twice in one context, the server does not start', async t => {
  const twice = { code: 'FST_TOKEN_OPTIONS', message: /registered here already/ }
  const app = await serve(t)
  await t.rejects(async () => await app.register(tokenRegistry, { secret: newSecret() }), twice)

  const outer = await serve(t)
  await t.rejects(async () => await outer.register(async inner => { await inner.register(tokenRegistry, { secret: newSecret() }) }), twice)
})

t.test('it gets on with sessions, JWTs, cookies, CORS and an error handler that were there before', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  app.setErrorHandler<FastifyError>((error, _request, reply) => reply.code(error.statusCode ?? 500).send({ problem: error.code }))
  await app.register(cors, { origin: 'https://app.example.org', credentials: true })
  await app.register(cookiePlugin)
  await app.register(session, { secret: newSecret(), cookie: { secure: false } })
  await app.register(jwt, { secret: newSecret(), namespace: 'partner', decoratorName: 'partner' })
  app.get('/visits', async ({ session }) => {
    session.set('visits' as never, Number(session.get('visits' as never) ?? 0) + 1 as never)
    return { visits: session.get('visits' as never) }
  })
  await app.register(tokenRegistry, { secret: newSecret(), cookie: true, session: true })
  app.get('/me', async request => ({ sub: request.requireAuth().session.sub }))
  app.get('/admin', { config: { session: { scope: 'admin' } } }, async () => 'in')
  app.post('/login', { config: { session: false } }, async (request, reply) => {
    reply.setCookie('theme', 'dark')
    return await request.startSession({ sub: 'alice' })
  })
  app.get('/required', { config: { session: false } }, async request => request.requireAuth())

  const preflight = await app.inject({
    method: 'OPTIONS', url: '/me', headers: { origin: 'https://app.example.org', 'access-control-request-method': 'GET', 'access-control-request-headers': 'authorization' }
  })
  t.match([preflight.statusCode, preflight.headers], [204, { 'access-control-allow-origin': 'https://app.example.org', 'access-control-allow-headers': 'authorization' }])

  const login = await post(app, '/login')
  const { token } = login.json()
  t.same(login.cookies.map(({ name }) => name).sort(), ['__Host-session', 'sessionId', 'theme'])
  t.same((await get(app, '/me', cookie(token))).json(), { sub: 'alice' })

  for (const [url, headers, statusCode, problem, challenge] of [
    ['/me', {}, 401, 'FST_TOKEN_MISSING', 'Bearer'],
    ['/me', bearer('bad token'), 401, 'FST_TOKEN_INVALID', 'Bearer error="invalid_token"'],
    ['/required', {}, 401, 'FST_TOKEN_MISSING', 'Bearer'],
    ['/admin', bearer(token), 403, 'FST_SESSION_SCOPE', 'Bearer error="insufficient_scope", scope="admin"'],
    ['/me', { authorization: ['a', 'b'] }, 400, 'FST_TOKEN_MALFORMED', 'Bearer error="invalid_request"']
  ] as const) {
    const answer = await get(app, url, headers)
    t.match([answer.statusCode, answer.json(), answer.headers], [statusCode, { problem }, { 'www-authenticate': challenge, 'access-control-allow-origin': 'https://app.example.org' }])
  }

  const first = await get(app, '/visits', bearer(token))
  t.same(first.json(), { visits: 1 })
  const { name, value } = first.cookies[0] ?? { name: '', value: '' }
  t.same((await get(app, '/visits', { ...bearer(token), cookie: `${name}=${encodeURIComponent(value)}` })).json(), { visits: 2 })
  t.equal((await get(app, '/visits', { cookie: `${name}=${encodeURIComponent(value)}` })).statusCode, 401, 'a session of the other plugin is none of ours')
  t.match(app.jwt, { partner: { sign: Function } })
})

t.test('a session that may have been ended is not served without the store', async t => {
  const link = new Link(t)
  const app = await serve(t, { store: link.store, serveCachedFor: '1h' })
  for (const end of [
    async ({ id }: { id: string }): Promise<unknown> => await app.tokenRegistry.revokeById(id),
    async ({ sub }: { sub: string }): Promise<unknown> => await app.tokenRegistry.revokeAll({ sub })
  ]) {
    link.state = 'up'
    link.staleness = 0
    const { token, session } = await app.tokenRegistry.issue({ sub: 'alice' })
    t.equal((await get(app, '/me', bearer(token))).statusCode, 200)
    link.state = 'down'
    link.staleness = Infinity
    t.equal((await get(app, '/me', bearer(token))).headers['session-cache'], 'stale')
    t.match(await end(session).catch((error: unknown) => error), { code: 'FST_STORE_UNAVAILABLE' })
    t.equal((await get(app, '/me', bearer(token))).statusCode, 503)
  }
})

t.test('requireSession does on a route what config.session does', async t => {
  const link = new Link(t)
  const app = await serve(t, { store: link.store, serveCachedFor: '1h' })
  app.get('/plain', { onRequest: requireSession() }, async request => request.requireAuth().session.sub)
  app.get('/optional', { onRequest: [requireSession({ optional: true })] }, async ({ auth }) => ({ auth }))
  app.get('/scope', { onRequest: requireSession({ scope: ['read', 'write'], noStore: true }) }, async () => 'in')
  app.get('/both', { ...guarded, onRequest: requireSession({ scope: 'read' }) }, async () => 'in')
  app.get('/impatient', { onRequest: requireSession({ serveCachedFor: 0 }) }, async () => 'in')
  const { token } = await app.tokenRegistry.issue({ sub: 'alice', scope: ['read'] })

  t.match((await get(app, '/plain')).headers, { 'www-authenticate': 'Bearer' })
  t.equal((await get(app, '/plain', bearer(token))).body, 'alice')
  t.same((await get(app, '/optional')).json(), { auth: null })
  t.equal((await get(app, '/optional', bearer('bad token'))).statusCode, 401)
  t.equal((await get(app, '/scope', bearer(token))).statusCode, 403)
  t.equal((await get(app, '/both', bearer(token))).statusCode, 200)
  t.equal((await get(app, '/both')).statusCode, 401)

  link.state = 'down'
  link.staleness = Infinity
  t.equal((await get(app, '/plain', bearer(token))).headers['session-cache'], 'stale', 'what it does not say is said by the plugin\'s options')
  t.equal((await get(app, '/impatient', bearer(token))).statusCode, 503)

  const bare = Fastify()
  t.teardown(() => bare.close())
  bare.get('/', { onRequest: requireSession() }, async () => 'in')
  t.match((await get(bare, '/', bearer(token))).json(), { statusCode: 500, code: 'FST_SESSION_ROUTE_CONFIG' })
})

t.test('a session without the scope is refused, and told which', async t => {
  const app = await serve(t)
  app.get('/one', { config: { session: { scope: 'read' } } }, async () => 'in')
  app.get('/two', { config: { session: { scope: ['read', 'write'] } } }, async () => 'in')
  const tokenWith = async (...scope: string[]): Promise<string> => (await app.tokenRegistry.issue({ sub: 'alice', scope })).token

  const refusal = { statusCode: 403, code: 'FST_SESSION_SCOPE', error: 'Forbidden', message: 'The session lacks the scope: read write' }
  for (const token of [await tokenWith(), await tokenWith('read'), await tokenWith('write', 'reader', 'READ'), await tokenWith('read,write')]) {
    for (const cached of [false, true]) {
      equalAnswers(t, { [`cached: ${cached}`]: await get(app, '/two', bearer(token)) }, refusal, { 'www-authenticate': 'Bearer error="insufficient_scope", scope="read write"' })
    }
  }
  t.equal((await get(app, '/two', bearer(await tokenWith('write', 'other', 'read')))).statusCode, 200)
  t.equal((await get(app, '/one', bearer(await tokenWith('read')))).statusCode, 200)
})

t.test('no-store is sent where a route asks for it, and to nobody else', async t => {
  const app = await serve(t)
  app.get('/secret', { config: { session: { noStore: true } } }, async () => 'in')
  const token = await tokenOf(app)
  for (const cached of [false, true]) t.equal((await get(app, '/secret', bearer(token))).headers['cache-control'], 'no-store', `cached: ${cached}`)
  t.notOk('cache-control' in (await get(app, '/me', bearer(token))).headers)
})

// request.auth

t.test('request.auth is frozen at every depth, and what a handler tries is not seen by the next request', async t => {
  const app = await serve(t)
  app.tokenRegistry.addTokenType({ name: 'test', matches: token => token.startsWith('test.'), open: token => ({ sid: token.slice(5), expiresAt: Infinity, claims: { act: { sub: 'bob', list: [{ x: 1 }] } } }) })
  const attempts: string[] = []
  app.get('/attack', guarded, async request => {
    for (const [path, object] of objectsIn(request.requireAuth(), 'auth')) {
      for (const [name, attempt] of Object.entries(attacksOn(object))) {
        if (throws(attempt)) attempts.push(`${name} ${path}`)
        else t.fail(`${name} ${path}`)
      }
    }
    t.ok(throws(() => Object.assign(request, { auth: null })), 'request.auth itself')
    t.ok(throws(() => { delete (Object.getPrototypeOf(request) as { auth?: Auth }).auth }), 'its getter')
    return request.auth
  })
  const { token, session: { id } } = await app.tokenRegistry.issue({ sub: 'alice', scope: ['read'], meta: { profile: { tags: ['a', { b: 1 }] } } as SessionMeta })

  for (const presented of [token, `test.${id}`]) {
    attempts.length = 0
    const first = (await get(app, '/attack', bearer(presented))).json()
    const second = (await get(app, '/attack', bearer(presented))).json()
    t.same(first, second)
    t.match(second, { session: { sub: 'alice', scope: ['read'], meta: { profile: { tags: ['a', { b: 1 }] } } }, scope: ['read'] })
    t.ok(attempts.includes('set auth'))
    t.ok(attempts.includes('push auth.session.meta.profile.tags'))
    t.ok(attempts.includes('set auth.session.meta.profile.tags.1'))
    t.equal(attempts.includes('push auth.claims.act.list'), presented !== token)
  }
})

function * objectsIn (value: unknown, path: string): Generator<[string, object]> {
  if (typeof value !== 'object' || value === null) return
  yield [path, value]
  for (const [key, item] of Object.entries(value)) yield * objectsIn(item, `${path}.${key}`)
}

function attacksOn (object: object): Record<string, () => unknown> {
  const [key] = Object.keys(object)
  return {
    add: () => Object.assign(object, { admin: true }),
    'change the prototype of': () => Object.setPrototypeOf(object, { admin: true }),
    ...key !== undefined && {
      set: () => Object.assign(object, { [key]: 'mallory' }),
      delete: () => { delete (object as Record<string, unknown>)[key] },
      redefine: () => Object.defineProperty(object, key, { get: () => 'mallory' })
    },
    ...Array.isArray(object) && { push: () => object.push('admin'), empty: () => { object.length = 0 } }
  }
}

function throws (attempt: () => unknown): boolean {
  try {
    attempt()
    return false
  } catch (error) {
    return error instanceof TypeError
  }
}

t.test('requireAuth and its kin answer 401 to nobody, with a challenge only where that is the answer', async t => {
  const app = await serve(t)
  app.post('/required', async request => request.requireAuth())
  app.post('/rotated', async request => await request.rotateSession())
  app.post('/revoked', async request => await request.revokeSession())
  app.post('/caught', async request => {
    try {
      return request.requireAuth()
    } catch {
      return 'nobody'
    }
  })
  app.post('/replaced', async (request, reply) => {
    t.throws(() => request.requireAuth(), { code: 'FST_TOKEN_MISSING' })
    return reply.code(404).send({})
  })
  const missing = { statusCode: 401, code: 'FST_TOKEN_MISSING', error: 'Unauthorized', message: 'Sign in: this needs a session token' }
  equalAnswers(t, { required: await post(app, '/required'), rotated: await post(app, '/rotated'), revoked: await post(app, '/revoked') }, missing, { 'www-authenticate': 'Bearer' })
  for (const url of ['/caught', '/replaced']) t.notOk('www-authenticate' in (await post(app, url)).headers, url)
})

// Starting, rotating and ending sessions

t.test('a session is started at once, and the answer is kept by no cache', async t => {
  const app = await serve(t)
  app.post('/auth', async request => {
    const { session } = await request.startSession({ sub: 'alice', scope: ['read'], meta: { deviceId: 'phone', ipAddress: '198.51.100.1' } })
    session.sub = 'mallory'
    Object.assign(session.meta, { deviceId: 'stolen' })
    return request.auth
  })
  const login = await app.inject({ method: 'POST', url: '/login', remoteAddress: '203.0.113.7', headers: { 'user-agent': 'x'.repeat(2000) } })
  t.match(login.json(), { token: /^trs_/, session: { sub: 'alice', meta: { ipAddress: '203.0.113.7', userAgent: 'x'.repeat(512) } } })
  t.match(login.headers, { 'cache-control': 'no-store' })
  t.notOk('set-cookie' in login.headers)
  t.same((await get(app, '/me', bearer(login.json().token))).json(), { sub: 'alice' })

  const { session } = (await app.inject({ method: 'POST', url: '/auth' })).json()
  t.match(session, { sub: 'alice', meta: { deviceId: 'phone', ipAddress: '198.51.100.1', userAgent: 'lightMyRequest' } }, 'what the caller says of itself is not what the service knows of it')
})

t.test('an address that is none is not kept, and stops nobody from signing in', async t => {
  const app = await serve(t, {}, { trustProxy: true })
  for (const forwarded of ['203.0.113.7:4711', 'unknown', '_hidden', '"[2001:db8::1]:80"', '\'; DROP TABLE sessions; --']) {
    const login = await post(app, '/login', { 'x-forwarded-for': forwarded })
    t.equal(login.statusCode, 200, forwarded)
    t.notOk('ipAddress' in login.json().session.meta, forwarded)
  }
  for (const forwarded of ['203.0.113.7', '2001:db8::1', '::ffff:203.0.113.7']) {
    t.equal((await post(app, '/login', { 'x-forwarded-for': forwarded })).json().session.meta.ipAddress, forwarded)
  }
})

t.test('a token that makes no requests signs nobody in', async t => {
  const app = await serve(t, { cookie: true })
  app.post('/:use', async request => {
    const { use } = request.params as { use: 'refresh' | 'once' }
    const { token } = await request.startSession({ sub: 'alice', use })
    return { token, auth: request.auth }
  })
  for (const use of ['refresh', 'once']) {
    const answer = await post(app, `/${use}`)
    t.match(answer.json(), { token: /^tr[ro]_/, auth: null })
    t.notOk('set-cookie' in answer.headers)
  }
})

t.test('what a session may not be is refused with 400', async t => {
  const app = await serve(t)
  app.post('/invalid', async request => await request.startSession({ sub: '' }))
  t.match((await post(app, '/invalid')).json(), { statusCode: 400, code: 'FST_TOKEN_VALIDATION' })
})

t.test('a rotated token is replaced by its successor, and serves the other tab for a while', async t => {
  const { clock, store } = timed(t)
  const app = await serve(t, { store })
  const token = await tokenOf(app)
  const rotated = await post(app, '/rotate', bearer(token))
  const successor = rotated.json().token
  t.match(rotated.headers, { 'cache-control': 'no-store' })
  t.not(successor, token)

  t.equal((await post(app, '/rotate', bearer(token))).json().token, successor)
  for (const presented of [token, token, successor, successor]) t.same((await get(app, '/me', bearer(presented))).json(), { sub: 'alice' })
  clock.advance(10_001)
  t.equal((await get(app, '/me', bearer(token))).statusCode, 401, 'also where it was cached')
  t.equal((await get(app, '/me', bearer(successor))).statusCode, 200, 'presenting an old token on a request ends nothing')
})

t.test('the session that a request started or rotated is the one that it goes on with', async t => {
  const app = await serve(t, { reuseWindow: 0, cookie: true })
  app.post('/twice', guarded, async request => {
    await request.rotateSession()
    const { token } = await request.rotateSession()
    return { token, auth: request.auth }
  })
  app.post('/switch', guarded, async request => {
    await request.startSession({ sub: 'bob' })
    const { token } = await request.rotateSession()
    return { token, auth: request.auth }
  })
  app.post('/leave', guarded, async request => {
    const started = await request.startSession({ sub: 'bob' })
    await request.revokeSession()
    t.equal(request.auth, null)
    t.throws(() => request.requireAuth(), { code: 'FST_TOKEN_MISSING' })
    return started
  })
  const alice = await tokenOf(app)

  const switched = await post(app, '/switch', bearer(alice))
  t.match(switched.json().auth, { session: { sub: 'bob', generation: 1 } })
  t.equal(switched.cookies.length, 1)
  t.equal(switched.cookies[0]?.value, switched.json().token)
  t.same((await get(app, '/me', bearer(switched.json().token))).json(), { sub: 'bob' })
  t.same((await get(app, '/me', bearer(alice))).json(), { sub: 'alice' })

  const twice = await post(app, '/twice', bearer(alice))
  t.match(twice.json().auth, { session: { sub: 'alice', generation: 2 } })
  t.same((await get(app, '/me', bearer(twice.json().token))).json(), { sub: 'alice' })

  const left = await post(app, '/leave', bearer(twice.json().token))
  t.match(left.cookies, [{ name: '__Host-session', value: '', maxAge: 0 }])
  t.equal((await get(app, '/me', bearer(left.json().token))).statusCode, 401)
  t.equal((await get(app, '/me', bearer(twice.json().token))).statusCode, 200)
})

t.test('a session that is ended is over when the answer comes, and says who ended it', async t => {
  const app = await serve(t)
  app.post('/again', guarded, async request => {
    const { session: { id } } = request.requireAuth()
    await app.tokenRegistry.revokeById(id, 'disabled')
    return { ended: await request.revokeSession('revoked'), auth: request.auth }
  })
  const { token, session } = await app.tokenRegistry.issue({ sub: 'alice' })
  t.equal((await get(app, '/me', bearer(token))).statusCode, 200)
  const logout = await post(app, '/logout', bearer(token))
  t.same(logout.json(), { ended: true })
  t.match(logout.headers, { 'cache-control': 'no-store' })
  t.match((await post(app, '/logout', bearer(token))).json(), BAD_TOKEN)
  t.match(await app.tokenRegistry.explain(session.id), { reason: 'revoked', by: 'alice' })
  t.same((await post(app, '/again', bearer(await tokenOf(app)))).json(), { ended: false, auth: null })
})

t.test('a token that the service adopted signs in, and cannot be rotated', async t => {
  const app = await serve(t, { cookie: true })
  const adopted = 'an old session id of another system'
  await app.tokenRegistry.save(adopted, { sub: 'alice' })
  for (const headers of [bearer(adopted), cookie(encodeURIComponent(adopted))]) {
    t.same((await get(app, '/me', headers)).json(), { sub: 'alice' })
    t.match((await post(app, '/rotate', headers)).json(), { statusCode: 409, code: 'FST_SESSION_NOT_ROTATABLE' })
  }
})

// Many at once

t.test('100 rotations at once get one and the same successor', async t => {
  const app = await serve(t)
  const token = await tokenOf(app)
  const answers = await Promise.all(Array.from({ length: 100 }, async () => await post(app, '/rotate', bearer(token))))
  t.same(new Set(answers.map(({ statusCode }) => statusCode)), new Set([200]))
  const [successor, ...others] = new Set(answers.map(answer => answer.json().token as string))
  t.same(others, [])
  t.equal((await get(app, '/me', bearer(successor ?? ''))).statusCode, 200)
})

t.test('without a window, one of 100 rotations succeeds, 99 are refused, and one ending is told', async t => {
  const app = await serve(t, { reuseWindow: 0, cookie: true })
  const endings: Ending[] = []
  app.tokenRegistry.addHook('onEnd', (_session, ending) => { endings.push(ending) })
  const token = await tokenOf(app)
  const answers = await Promise.all(Array.from({ length: 100 }, async () => await post(app, '/rotate', bearer(token))))

  const refused = answers.filter(({ statusCode }) => statusCode === 401)
  t.equal(refused.length, 99)
  t.equal(answers.filter(({ statusCode }) => statusCode === 200).length, 1)
  for (const { body, headers } of refused) {
    t.same(JSON.parse(body), BAD_TOKEN)
    t.match(headers, { 'www-authenticate': 'Bearer error="invalid_token"' })
  }
  t.match(endings, [{ reason: 'reuse_recent' }])
  t.equal(endings.length, 1)
})

t.test('a refused rotation takes the cookie away, and leaves nobody signed in', async t => {
  const app = await serve(t, { reuseWindow: 0, cookie: true })
  const token = await tokenOf(app)
  app.post('/late', guarded, async request => {
    await app.tokenRegistry.rotate(token)
    await t.rejects(request.rotateSession(), { code: 'FST_TOKEN_INVALID', cause: { code: 'FST_TOKEN_REUSED' } })
    return { auth: request.auth }
  })
  const answer = await post(app, '/late', cookie(token))
  t.same(answer.json(), { auth: null })
  t.match(answer.cookies, [{ value: '', maxAge: 0 }])
  t.notOk('www-authenticate' in answer.headers)
})

t.test('a revocation that races a request is never cached over', async t => {
  const link = new Link(t)
  const app = await serve(t, { store: link.store })
  const { token, session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const { promise, resolve } = deferred()
  link.answers = promise
  const racing = get(app, '/me', bearer(token))
  await setImmediate()
  link.answers = Promise.resolve()
  t.ok(await app.tokenRegistry.revokeById(session.id))
  resolve()
  await racing
  t.equal((await get(app, '/me', bearer(token))).statusCode, 401)
})

// Cookies

t.test('the cookie is set with all that protects it, and taken away with its session', async t => {
  const app = await serve(t, { cookie: true, ttl: '90s', store: timed(t).store })
  app.post('/logout/everywhere', guarded, async request => {
    await request.revokeSession()
    throw new Error('boom')
  })
  const login = await post(app, '/login')
  const { token } = login.json()
  t.same(login.headers['set-cookie'], `__Host-session=${token}; Max-Age=90; Path=/; HttpOnly; Secure; SameSite=Lax`)
  t.same((await get(app, '/me', cookie(token))).json(), { sub: 'alice' })
  t.notOk('set-cookie' in (await get(app, '/me', cookie(token))).headers)

  const rotated = await post(app, '/rotate', cookie(token))
  t.same(rotated.headers['set-cookie'], `__Host-session=${rotated.json().token}; Max-Age=90; Path=/; HttpOnly; Secure; SameSite=Lax`)
  const away = '__Host-session=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax'
  t.match((await post(app, '/logout', cookie(token))).headers, { 'set-cookie': away, 'cache-control': 'no-store' })

  const failed = await post(app, '/logout/everywhere', bearer((await post(app, '/login')).json().token))
  t.match([failed.statusCode, failed.headers], [500, { 'set-cookie': away, 'cache-control': 'no-store' }], 'what was done is told although the handler failed')
})

t.test('the cookie is as the options say', async t => {
  for (const [options, expected] of [
    [{}, /^__Host-session=trs_[\w-]{56}; Max-Age=2592000; Path=\/; HttpOnly; Secure; SameSite=Lax$/],
    [{ name: 'sid' }, /^sid=trs_.{56}; Max-Age=2592000; Path=\/; HttpOnly; Secure; SameSite=Lax$/],
    [{ secure: false }, /^session=trs_.{56}; Max-Age=2592000; Path=\/; HttpOnly; SameSite=Lax$/],
    [{ sameSite: 'strict' }, /^__Host-session=.* Secure; SameSite=Strict$/],
    [{ sameSite: 'none' }, /^__Host-session=.* Secure; SameSite=None$/]
  ] as const) {
    const app = await serve(t, { cookie: options, store: timed(t).store })
    t.match((await post(app, '/login')).headers['set-cookie'], expected)
  }
})

t.test('the cookie is found among others, and no other is taken for it', async t => {
  const app = await serve(t, { cookie: true })
  const token = await tokenOf(app)
  const me = async (header: string): Promise<number> => (await get(app, '/me', { cookie: header })).statusCode
  for (const header of [`a=b; __Host-session=${token}; c=d`, `__Host-session=${token};`, `;; a; =; __Host-session=${token}`, `__Host-session=${token}; __Host-session=other`]) {
    t.equal(await me(header), 200, header)
  }
  for (const header of [`x__Host-session=${token}`, `__Host-session2=${token}`, `__host-session=${token}`, `a=__Host-session=${token}`, '__Host-session', '__Host-session=', `session=${token}`]) {
    t.match((await get(app, '/me', { cookie: header })).json(), { statusCode: 401, code: 'FST_TOKEN_MISSING' }, header)
  }
  t.same((await get(app, '/maybe', { cookie: '__Host-session=' })).json(), { sub: null })
  for (const header of [`__Host-session=%zz${token}`, `__Host-session="${token}"`, `__Host-session=other; __Host-session=${token}`, `__Host-session=${'%41'.repeat(100_000)}`]) {
    t.equal(await me(header), 401, header.slice(0, 100))
  }
  t.match((await speak(app, `Cookie: __Host-session=${token}`, 'Cookie: __Host-session=other')), /^HTTP\/1.1 200 /)
})

t.test('a cookie that is no longer good is taken away, and counts as none where nobody has to be signed in', async t => {
  const app = await serve(t, { cookie: true })
  app.post('/fresh', { config: { session: { optional: true } } }, async request => await request.startSession({ sub: 'bob' }))
  const token = await tokenOf(app)
  await app.tokenRegistry.revoke(token)
  const away = { 'set-cookie': '__Host-session=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax', 'cache-control': 'no-store' }

  const refused = await get(app, '/me', cookie(token))
  t.same(refused.json(), BAD_TOKEN)
  t.match(refused.headers, { ...away, 'www-authenticate': 'Bearer error="invalid_token"' })

  const served = await get(app, '/maybe', cookie(token))
  t.same([served.statusCode, served.json()], [200, { sub: null }])
  t.match(served.headers, away)
  t.notOk('www-authenticate' in served.headers)

  const fresh = await post(app, '/fresh', cookie(token))
  t.same(fresh.cookies.map(({ value }) => value), [fresh.json().token], 'a session that was started meanwhile stays')

  const presented = await get(app, '/maybe', bearer(token))
  t.equal(presented.statusCode, 401, 'who presents a token on purpose is told')
  t.notOk('set-cookie' in presented.headers)
})

t.test('a failing store takes no cookie away', async t => {
  const link = new Link(t)
  const app = await serve(t, { cookie: true, store: link.store })
  const token = await tokenOf(app)
  t.equal((await get(app, '/me', cookie(token))).statusCode, 200)
  link.state = 'down'
  const cached = [await post(app, '/rotate', cookie(token)), await post(app, '/logout', cookie(token))]
  link.staleness = Infinity
  for (const answer of [...cached, await get(app, '/me', cookie(token)), await get(app, '/maybe', cookie(token))]) {
    t.match(answer.json(), { statusCode: 503, code: 'FST_STORE_UNAVAILABLE' })
    t.notOk('set-cookie' in answer.headers)
  }
})

t.test('of a cookie and an Authorization header the header counts', async t => {
  const app = await serve(t, { cookie: true })
  const [alice, bob] = [await tokenOf(app), await tokenOf(app, 'bob')]
  t.same((await get(app, '/me', { ...cookie(alice), ...bearer(bob) })).json(), { sub: 'bob' })
  t.same((await get(app, '/me', { ...cookie(alice), authorization: 'Basic eDp5' })).json(), { sub: 'alice' }, 'unless it is of another scheme')
  for (const url of ['/me', '/maybe']) {
    const refused = await get(app, url, { ...cookie(alice), ...bearer('bad token') })
    t.equal(refused.statusCode, 401)
    t.notOk('set-cookie' in refused.headers, 'the cookie was not looked at')
  }
})

t.test('an answer is told once, although another onSend hook fails', async t => {
  const app = await serve(t, { cookie: true })
  let failures = 0
  app.post('/flaky', { onSend: async () => { if (failures++ === 0) throw new Error('boom') } }, async request => await request.startSession({ sub: 'alice' }))
  const answer = await post(app, '/flaky')
  t.equal(answer.statusCode, 500)
  t.equal(answer.cookies.length, 1)
  t.match(answer.headers, { 'cache-control': 'no-store' })
})

t.test('a cookie does not count for what another site sends', async t => {
  const app = await serve(t, { cookie: { sameSite: 'none' } })
  app.route({ method: ['PUT', 'PATCH', 'DELETE', 'OPTIONS'], url: '/me', ...guarded, handler: async () => 'in' })
  app.post('/maybe', { config: { session: { optional: true } } }, async () => 'in')
  app.post('/open', async () => 'in')
  const token = await tokenOf(app)
  const sent = async (headers: Headers, method: NonNullable<InjectOptions['method']> = 'POST', url = '/me'): Promise<number> => {
    return (await inject(app, { method, url }, { host: 'app.example.org', ...cookie(token), ...headers })).statusCode
  }

  for (const [headers, status] of [
    [{}, 200],
    [{ 'sec-fetch-site': 'same-origin' }, 200],
    [{ 'sec-fetch-site': 'same-site' }, 200],
    [{ 'sec-fetch-site': 'none' }, 200],
    [{ 'sec-fetch-site': 'cross-site' }, 403],
    [{ 'sec-fetch-site': 'Cross-Site' }, 403],
    [{ 'sec-fetch-site': '' }, 403],
    [{ 'sec-fetch-site': 'new-word' }, 403],
    [{ 'sec-fetch-site': ['same-origin', 'cross-site'] }, 403],
    [{ 'sec-fetch-site': 'cross-site', origin: 'https://app.example.org' }, 403],
    [{ 'sec-fetch-site': 'same-origin', origin: 'https://evil.example' }, 200],
    [{ origin: 'https://app.example.org' }, 200],
    [{ origin: 'https://app.example.org:443' }, 200],
    [{ origin: 'https://APP.example.org' }, 200],
    [{ origin: 'https://app.example.org:8443' }, 403],
    [{ origin: 'https://app.example.org:8443', host: 'app.example.org:8443' }, 200],
    [{ origin: 'https://evil.example' }, 403],
    [{ origin: 'https://app.example.org.evil.example' }, 403],
    [{ origin: 'https://evil.example/app.example.org' }, 403],
    [{ origin: 'https://evil.example#@app.example.org' }, 403],
    [{ origin: 'null' }, 403],
    [{ origin: '' }, 403],
    [{ origin: 'app.example.org' }, 403],
    [{ origin: 'data:text/html,app.example.org' }, 403],
    [{ origin: ['https://app.example.org', 'https://evil.example'] }, 403],
    [{ origin: 'https://evil.example', 'x-forwarded-host': 'evil.example' }, 403]
  ] as const) {
    t.equal(await sent(headers), status, inspect(headers))
  }

  const crossSite = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' }
  for (const method of ['PUT', 'PATCH', 'DELETE'] as const) t.equal(await sent(crossSite, method), 403, method)
  for (const method of ['GET', 'HEAD', 'OPTIONS'] as const) t.equal(await sent(crossSite, method), 200, method)
  t.equal(await sent({ ...crossSite, upgrade: 'websocket', connection: 'upgrade' }, 'GET'), 403, 'a handshake of WebSocket')
  t.equal(await sent({ 'sec-fetch-site': 'same-origin', upgrade: 'websocket', connection: 'upgrade' }, 'GET'), 200)
  t.equal(await sent(crossSite, 'POST', '/maybe'), 403, 'also where nobody has to be signed in')
  t.equal(await sent(crossSite, 'POST', '/open'), 200, 'a route that does not ask does not look')
  t.equal(await sent({ ...crossSite, ...bearer(token) }), 200, 'a page cannot make a browser send a header')
  t.match((await app.inject({ method: 'POST', url: '/me', headers: { ...cookie(token), ...crossSite } })).json(), { statusCode: 403, code: 'FST_SESSION_CROSS_SITE' })
})

t.test('behind a trusted proxy, and no other, the forwarded host is the host', async t => {
  const headers = { host: 'internal:3000', 'x-forwarded-host': 'app.example.org', origin: 'https://app.example.org' }
  for (const [trustProxy, status] of [[true, 200], ['127.0.0.1', 200], ['10.0.0.1', 403], [false, 403]] as const) {
    const app = await serve(t, { cookie: true }, { trustProxy })
    t.equal((await post(app, '/me', { ...cookie(await tokenOf(app)), ...headers })).statusCode, status, String(trustProxy))
  }
})

// Keys

t.test('a session that is bound to a key is served with a proof on every request, and with nothing less', async t => {
  const checks: string[] = []
  const app = await serve(t, {
    cookie: true,
    dpop: async (request, token) => {
      checks.push(token)
      const { dpop } = request.headers
      if (typeof dpop !== 'string') throw new Error('no proof')
      if (dpop === 'down') throw new StoreUnavailable('marks')
      return dpop
    }
  })
  const bound = (await app.tokenRegistry.issue({ sub: 'alice', binding: thumbprint })).token
  const unbound = await tokenOf(app)
  const dpop = (token: string, proof: string) => ({ authorization: `DPoP ${token}`, dpop: proof })

  for (const round of ['not cached', 'cached']) {
    t.equal((await get(app, '/me', dpop(bound, thumbprint))).statusCode, 200, round)
    t.equal((await get(app, '/me', { ...dpop(bound, thumbprint), authorization: `dPoP  ${bound}` })).statusCode, 200, round)
    for (const [name, headers] of Object.entries({
      'as a bearer token': bearer(bound),
      'as a cookie': cookie(bound),
      'without a proof': { authorization: `DPoP ${bound}` },
      'with the proof of another key': dpop(bound, 'y'.repeat(43)),
      'a bearer token, with a proof': { ...bearer(bound), dpop: thumbprint },
      'a token that is bound to none': dpop(unbound, thumbprint),
      'no token': { authorization: 'DPoP', dpop: thumbprint }
    })) {
      const refused = await get(app, '/me', headers)
      t.same(refused.json(), BAD_TOKEN, `${name}, ${round}`)
    }
    t.equal((await get(app, '/me', bearer(unbound))).statusCode, 200, round)
  }
  t.equal(checks.length, 10, 'each time that a token came by DPoP')
  t.match(await get(app, '/me', dpop(bound, 'down')), { statusCode: 503, headers: { 'retry-after': '1' } })

  const rotated = await post(app, '/rotate', dpop(bound, thumbprint))
  t.match(rotated.json(), { session: { binding: thumbprint, generation: 1 } })
  t.equal((await get(app, '/me', dpop(rotated.json().token, thumbprint))).statusCode, 200)
  t.equal((await get(app, '/me', bearer(rotated.json().token))).statusCode, 401)
})

t.test('without the dpop option a bound session is not served at all', async t => {
  const app = await serve(t)
  const bound = (await app.tokenRegistry.issue({ sub: 'alice', binding: thumbprint })).token
  for (const token of [bound, await tokenOf(app)]) t.same((await get(app, '/me', { authorization: `DPoP ${token}`, dpop: thumbprint })).json(), BAD_TOKEN)
  t.same((await get(app, '/me', bearer(bound))).json(), BAD_TOKEN)
})

t.test('a check of proofs may answer at once, and does not hold a request for ever', async t => {
  const answers = { now: (): string | Promise<string> => thumbprint }
  const app = await serve(t, { dpop: () => answers.now(), hookTimeout: 20 })
  const { token } = await app.tokenRegistry.issue({ sub: 'alice', binding: thumbprint })
  const headers = { authorization: `DPoP ${token}` }
  t.equal((await get(app, '/me', headers)).statusCode, 200)
  answers.now = () => new Promise(() => {})
  t.match(await get(app, '/me', headers), { statusCode: 503, headers: { 'retry-after': '1' } })
})

// Tokens of other kinds

t.test('a token of another kind is served from the cache, until it or its session ends', async t => {
  const { clock, store } = timed(t)
  const app = await serve(t, { store })
  let opened = 0
  app.tokenRegistry.addTokenType({
    name: 'test',
    matches: token => token.startsWith('test.'),
    open: async token => {
      opened++
      const [, sid = '', scope] = token.split('.')
      if (sid === 'bad') throw new Error('signature')
      return { sid, expiresAt: clock.now() + MINUTE, claims: { aud: 'api', scope } }
    }
  })
  app.get('/claims', { config: { session: { scope: 'read' } } }, async ({ auth }) => ({ claims: auth?.claims }))
  const { session } = await app.tokenRegistry.issue({ sub: 'alice', scope: ['read', 'write'] })
  const token = `test.${session.id}.read`

  for (let i = 0; i < 3; i++) t.same((await get(app, '/claims', bearer(token))).json(), { claims: { aud: 'api', scope: 'read' } })
  t.equal(opened, 1)
  t.equal((await get(app, '/claims', bearer(`test.${session.id}.write`))).statusCode, 403, 'the scope is that of the token')
  t.match((await post(app, '/rotate', bearer(token))).json(), { statusCode: 409, code: 'FST_SESSION_NOT_ROTATABLE' })
  for (const bad of ['test.bad.read', `test.${'A'.repeat(24)}.read`, 'test.', `${token.slice(0, 10)}.read`]) t.same((await get(app, '/claims', bearer(bad))).json(), BAD_TOKEN, bad)

  clock.advance(MINUTE)
  opened = 0
  t.equal((await get(app, '/claims', bearer(token))).statusCode, 200)
  t.equal(opened, 1, 'it had expired, and was opened again')
  await app.tokenRegistry.revokeById(session.id)
  t.same((await get(app, '/claims', bearer(token))).json(), BAD_TOKEN)
})

// The store is down

t.test('while the store is down nobody is let in and nobody is sent away', async t => {
  const link = new Link(t)
  const app = await serve(t, { store: link.store, operationTimeout: 20 })
  const token = await tokenOf(app)
  t.equal((await get(app, '/me', bearer(token))).statusCode, 200)

  link.staleness = 1001
  t.equal((await get(app, '/me', bearer(token))).statusCode, 200, 'revocations may have been missed: the store is asked')
  for (const [state, code] of [['down', 'FST_STORE_UNAVAILABLE'], ['silent', 'FST_STORE_TIMEOUT']] as const) {
    link.state = state
    for (const url of ['/me', '/maybe']) {
      const answer = await get(app, url, bearer(token))
      t.match(answer.json(), { statusCode: 503, code })
      t.equal(answer.headers['retry-after'], '1')
      t.notOk('www-authenticate' in answer.headers)
    }
    t.match(await post(app, '/login'), { statusCode: 503, headers: { 'retry-after': '1' } })
    t.equal((await get(app, '/maybe')).statusCode, 200, 'who presents nothing needs no store')
    t.equal((await get(app, '/me', bearer(token.slice(0, -1)))).statusCode, 401, 'a forgery needs none either')
  }
  link.staleness = 1000
  t.equal((await get(app, '/me', bearer(token))).statusCode, 200, 'the cache knows')
  for (const url of ['/rotate', '/logout']) t.match(await post(app, url, bearer(token)), { statusCode: 503, headers: { 'retry-after': '1' } })
  link.state = 'up'
  t.equal((await get(app, '/me', bearer(token))).statusCode, 200, 'what failed changed nothing')
})

t.test('a route may serve what was cached while the store is down, for a time, and says so', async t => {
  const link = new Link(t)
  const app = await serve(t, { store: link.store, cookie: true, dpop: request => String(request.headers['dpop']) })
  app.get('/patient', { config: { session: { serveCachedFor: '1h' } } }, async request => request.requireAuth().session.sub)
  app.get('/admin', { config: { session: { serveCachedFor: '1h', scope: 'admin' } } }, async () => 'in')
  app.get('/hasty', { config: { session: { serveCachedFor: 1 } } }, async () => 'in')
  const known = await tokenOf(app)
  const revoked = await tokenOf(app)
  const bound = (await app.tokenRegistry.issue({ sub: 'alice', binding: thumbprint })).token
  const unknown = await tokenOf(app)
  const proved = { authorization: `DPoP ${bound}`, dpop: thumbprint }
  for (const headers of [bearer(known), bearer(revoked), proved]) t.equal((await get(app, '/patient', headers)).statusCode, 200)
  const cachedAt = performance.now()

  link.staleness = Infinity
  await app.tokenRegistry.revoke(revoked)
  link.state = 'down'

  for (const headers of [bearer(known), cookie(known), proved]) {
    const answer = await get(app, '/patient', headers)
    t.match([answer.statusCode, answer.body, answer.headers], [200, 'alice', { 'session-cache': 'stale' }])
  }
  t.equal(app.tokenRegistry.stats.servedStale, 3)
  for (const headers of [bearer(unknown), bearer(revoked), { ...proved, dpop: 'y'.repeat(43) }]) {
    const answer = await get(app, '/patient', headers)
    t.match(answer.json(), { statusCode: 503, code: 'FST_STORE_UNAVAILABLE' })
    t.notOk('session-cache' in answer.headers)
  }
  t.equal((await get(app, '/me', bearer(known))).statusCode, 503, 'a route that did not ask')
  t.equal((await get(app, '/admin', bearer(known))).statusCode, 403, 'the scope is asked for all the same')

  while (performance.now() - cachedAt <= 1) await setImmediate()
  t.equal((await get(app, '/hasty', bearer(known))).statusCode, 503, 'the time is over')

  link.state = 'up'
  const fresh = await get(app, '/patient', bearer(known))
  t.equal(fresh.statusCode, 200)
  t.notOk('session-cache' in fresh.headers)
  t.equal((await get(app, '/patient', bearer(revoked))).statusCode, 401)
})

t.test('a session that ended is not served from the cache, however patient the route', async t => {
  const clock = new Clock()
  const link = new Link(t, clock.now)
  const app = await serve(t, { store: link.store, serveCachedFor: '1h' })
  const idle = (await app.tokenRegistry.issue({ sub: 'alice', idleTimeout: '1m' })).token
  const short = (await app.tokenRegistry.issue({ sub: 'alice', ttl: '1m' })).token
  const kept = await tokenOf(app)
  for (const token of [idle, short, kept]) t.equal((await get(app, '/me', bearer(token))).statusCode, 200)

  Object.assign(link, { state: 'down', staleness: Infinity })
  t.equal((await get(app, '/me', bearer(idle))).headers['session-cache'], 'stale')
  clock.advance(MINUTE)
  for (const token of [idle, short]) t.equal((await get(app, '/me', bearer(token))).statusCode, 503)
  t.equal((await get(app, '/me', bearer(kept))).statusCode, 200)

  link.state = 'emptied'
  t.equal((await get(app, '/me', bearer(kept))).statusCode, 401, 'a store that answers is believed')
})

// What leaks

t.test('no token and no secret is in a log line, an error, or an answer that need not hold it', async t => {
  const secret = newSecret()
  const link = new Link(t)
  const { lines, server } = recorder()
  const app = await serve(t, { secret, store: link.store, cookie: true, reuseWindow: 0, operationTimeout: 20 }, server)
  const failures: unknown[] = []
  app.addHook('onError', async (_request, _reply, error) => { failures.push(error) })
  app.tokenRegistry.addHook('onError', error => { failures.push(error) })
  app.tokenRegistry.addHook('onEnd', () => { throw new Error('a hook that fails') })

  const login = await post(app, '/login')
  const first: string = login.json().token
  const second: string = (await post(app, '/rotate', cookie(first))).json().token
  const foreign = await tokenOf(await serve(t))
  const once = (await app.tokenRegistry.issue({ sub: 'alice', use: 'once' })).token
  const adopted = 'adopted-token-of-another-system'
  await app.tokenRegistry.save(adopted, { sub: 'alice' })
  await app.tokenRegistry.save(adopted, { sub: 'alice' }).catch(error => failures.push(error))
  await app.tokenRegistry.save(first, { sub: 'alice' }).catch(error => failures.push(error))
  const tokens = [first, second, foreign, once, adopted]

  const answers: LightMyRequestResponse[] = []
  for (const state of ['up', 'down', 'silent'] as const) {
    Object.assign(link, { state, staleness: state === 'up' ? 0 : Infinity })
    for (const token of tokens) {
      for (const headers of [bearer(token), cookie(token), bearer(`${token} ${token}`), { authorization: `DPoP ${token}` }, { authorization: [`Bearer ${token}`, token] }]) {
        answers.push(await get(app, '/me', headers), await get(app, '/nowhere', headers), await post(app, '/me', { ...headers, 'sec-fetch-site': 'cross-site' }))
      }
    }
  }
  link.state = 'up'
  answers.push(await post(app, '/logout', cookie(second)))

  const told = lines.join('') + inspect(failures, { depth: Infinity, showHidden: true }) + answers.map(({ headers, body }) => JSON.stringify(headers) + body).join('')
  t.ok(failures.length > 50)
  for (const hidden of [secret, ...tokens, ...tokens.map(token => token.slice(4, 40)), ...tokens.map(token => token.slice(-22))]) t.notOk(told.includes(hidden))
  t.match(login.headers['set-cookie'], first)
})

t.test('an error of a hook reaches the caller as it is, and what is no error as an internal one', async t => {
  const app = await serve(t)
  let thrown: unknown
  app.tokenRegistry.addHook('preGet', () => { throw thrown })
  const token = await tokenOf(app)
  for (thrown of ['text', undefined, null, Object.create(null)]) t.match((await get(app, '/me', bearer(token))).json(), { statusCode: 500, message: 'what was thrown is no error' })
  thrown = Object.assign(new Error('not from there'), { statusCode: 451 })
  t.equal((await get(app, '/me', bearer(token))).statusCode, 451)
  thrown = new TokenReused()
  t.same((await get(app, '/me', bearer(token))).json(), BAD_TOKEN)
})
