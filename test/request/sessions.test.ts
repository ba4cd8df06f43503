import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import type { Auth, Ending, SessionMeta } from '../../plugins/token-registry/index.ts'
import { deferred } from '../support/deferred.ts'
import { BAD_TOKEN, guarded, bearer, cookie, serve, tokenOf, get, post, Link, timed, equalAnswers } from '../support/serve.ts'

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
    t.equal(answer.headers['cache-control'], 'no-store')
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
