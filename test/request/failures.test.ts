import { setImmediate } from 'node:timers/promises'
import { inspect } from 'node:util'
import type { LightMyRequestResponse } from 'fastify'
import t from 'tap'
import { TokenReused } from '../../plugins/token-registry/index.ts'
import { newSecret } from '../support/build.ts'
import { Clock } from '../support/clock.ts'
import { MINUTE, BAD_TOKEN, thumbprint, bearer, cookie, serve, tokenOf, get, post, Link, recorder } from '../support/serve.ts'

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
