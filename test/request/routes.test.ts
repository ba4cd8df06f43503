import { inspect } from 'node:util'
import cookiePlugin from '@fastify/cookie'
import cors from '@fastify/cors'
import jwt from '@fastify/jwt'
import session from '@fastify/session'
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type InjectOptions } from 'fastify'
import t from 'tap'
import tokenRegistry, { requireSession, type RouteSession } from '../../plugins/token-registry/index.ts'
import { newSecret } from '../support/build.ts'
import { guarded, bearer, cookie, serve, tokenOf, get, post, Link, equalAnswers } from '../support/serve.ts'

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
