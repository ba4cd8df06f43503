import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import Fastify, { type LightMyRequestResponse } from 'fastify'
import t from 'tap'
import tokenRegistry, { StoreUnavailable } from '../../plugins/token-registry/index.ts'
import { newSecret } from '../support/build.ts'
import { MINUTE, BAD_TOKEN, guarded, thumbprint, bearer, cookie, serve, tokenOf, get, post, speak, timed, recorder, equalAnswers } from '../support/serve.ts'

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
  // Not so large that the server closes before it has read all: that resets the connection, and the answer may be lost.
  t.match(await speak(app, `Authorization: Bearer ${'x'.repeat(20_000)}`), /^HTTP\/1.1 431 /)
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
