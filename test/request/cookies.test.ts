import { inspect } from 'node:util'
import type { InjectOptions } from 'fastify'
import t from 'tap'
import { BAD_TOKEN, guarded, bearer, cookie, serve, tokenOf, inject, get, post, speak, Link, timed, type Headers } from '../support/serve.ts'

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
