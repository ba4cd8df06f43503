import t from 'tap'
import { newSecret } from '../support/build.ts'
import { embeddedDataDir } from '../support/embedded.ts'
import { freshDatabase } from '../support/postgres.ts'
import { redisCluster, redisSentinels, redisServer, until } from '../support/redis.ts'
import { call, register, signIn, testServer } from '../support/server.ts'

t.test('who signed in is still signed in after a restart', async t => {
  const { url } = await redisServer(t)
  const env = { DATA_DIR: await embeddedDataDir(t), REDIS_URL: `${url}/5` }
  const first = await testServer(t, env)
  await register(first.app, 'ada@example.org')
  const { accessToken: token, refreshToken, session } = await signIn(first.app, 'ada@example.org')
  const ended = await signIn(first.app, 'ada@example.org')
  await call(first.app, 'POST', '/api/auth/logout', { token: ended.accessToken })
  await first.app.close()

  const { app, log } = await testServer(t, env)
  t.match(await call(app, 'GET', '/api/auth/me', { token }), { statusCode: 200, body: { session: { id: session.id } } })
  t.match(await call(app, 'GET', '/api/sessions', { token }), { body: { sessions: [{ id: session.id, current: true }] } })
  t.match(await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken } }), { statusCode: 200, body: { session: { id: session.id } } })
  t.equal((await call(app, 'GET', '/api/auth/me', { token: ended.accessToken })).statusCode, 401)
  t.match(log.join(), /sessions are kept in Redis/)
  t.match(log.join(), /TOKEN_SECRET and JWT_SECRET were generated .* the same for every server on this Redis/)
})

t.test('two servers on one Redis and one database see what the other ends', async t => {
  const { url } = await redisServer(t)
  const env = { REDIS_URL: url, DATABASE_URL: await freshDatabase(t), TOKEN_SECRET: newSecret(), JWT_SECRET: newSecret() }
  const one = await testServer(t, env)
  const other = await testServer(t, env)
  const status = async (token: string) => (await call(other.app, 'GET', '/api/auth/me', { token })).statusCode
  await register(one.app, 'ada@example.org')
  const [first, second, third] = [await signIn(one.app, 'ada@example.org'), await signIn(one.app, 'ada@example.org'), await signIn(other.app, 'ada@example.org')]
  await until('sessions are served from the cache', [], async () => {
    for (const { accessToken } of [first, second, third]) t.equal(await status(accessToken), 200)
    return Number(other.app.tokenStore?.staleness) < 1000
  })

  t.equal((await call(one.app, 'POST', '/api/auth/logout', { token: first.accessToken })).statusCode, 204)
  await until('the other server refuses it', [], async () => await status(first.accessToken) === 401)
  t.same((await call(other.app, 'DELETE', '/api/sessions', { token: second.accessToken })).body, { ended: 1 })
  t.equal(await status(third.accessToken), 401)
  await until('the first server refuses it', [], async () => (await call(one.app, 'GET', '/api/auth/me', { token: third.accessToken })).statusCode === 401)
  t.equal((await call(one.app, 'POST', '/api/auth/refresh', { body: { refreshToken: third.refreshToken } })).statusCode, 401)
})

t.test('while Redis is down the answer is 503 and the server is not ready; then all goes on', async t => {
  const redis = await redisServer(t, { appendonly: 'yes', appendfsync: 'always', requirepass: 'hunter2' })
  const operators = 'token-of-operators'
  const { app, log } = await testServer(t, { REDIS_URL: `redis://:hunter2@127.0.0.1:${redis.port}`, METRICS_TOKEN: operators })
  await register(app, 'ada@example.org')
  const { accessToken: token, refreshToken } = await signIn(app, 'ada@example.org')
  const ready = async () => await call(app, 'GET', '/health/ready', { token: operators })
  t.match(await ready(), { statusCode: 200, body: { status: 'ok', checks: { store: { status: 'ok' }, database: { status: 'ok' } } } })

  await redis.kill()
  const unavailable = { statusCode: 503, headers: { 'retry-after': /^\d+$/ }, body: { code: 'FST_STORE_UNAVAILABLE' } }
  await until('nothing is served from the cache', [redis], async () => (await call(app, 'GET', '/api/auth/me', { token })).statusCode === 503)
  t.match(await call(app, 'GET', '/api/auth/me', { token }), unavailable)
  t.match(await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken } }), unavailable)
  await until('it is not ready', [redis], async () => (await ready()).statusCode === 503)
  t.match(await ready(), { body: { status: 'fail', checks: { store: { status: 'fail' }, database: { status: 'ok' } } } })
  t.equal((await call(app, 'GET', '/health/live')).statusCode, 200)

  await redis.start()
  await until('it is served again', [redis], async () => (await call(app, 'GET', '/api/auth/me', { token })).statusCode === 200)
  await until('it is ready', [redis], async () => (await ready()).statusCode === 200)
  t.notMatch(log.join(), /hunter2/)
})

t.test('Redis may be a group that Sentinels watch, or a Cluster', async t => {
  const { name, sentinels, primary, servers } = await redisSentinels(t)
  const { nodes } = await redisCluster(t, { replicas: 0 })
  const hosts = (addresses: ReadonlyArray<{ host: string, port: number }>): string => addresses.map(({ host, port }) => `${host}:${port}`).join()
  for (const url of [`redis+sentinel://${hosts(sentinels)}/${name}`, `redis+cluster://${hosts(nodes)}`]) {
    const { app } = await testServer(t, { REDIS_URL: url })
    await register(app, 'ada@example.org')
    const { accessToken: token } = await signIn(app, 'ada@example.org')
    t.equal((await call(app, 'GET', '/api/auth/me', { token })).statusCode, 200)
    if (url.includes('sentinel')) {
      await (await primary()).kill()
      await until('the next primary serves', servers, async () => (await call(app, 'GET', '/api/sessions', { token })).statusCode === 200)
    }
    t.equal((await call(app, 'POST', '/api/auth/logout', { token })).statusCode, 204)
    t.equal((await call(app, 'GET', '/api/auth/me', { token })).statusCode, 401)
  }
})

t.test('where Redis cannot be used the server does not start, and says so without a secret', async t => {
  const redis = await redisServer(t, { requirepass: 'hunter2' })
  const faults: Array<[string, RegExp]> = [
    ['redis://:hunter2@127.0.0.1:1', /^Redis at REDIS_URL cannot be used: connect ECONNREFUSED 127\.0\.0\.1:1$/],
    [`redis://:hunter3@127.0.0.1:${redis.port}`, /^Redis at REDIS_URL cannot be used: WRONGPASS/],
    [`redis+cluster://:hunter2@127.0.0.1:${redis.port}`, /^Redis at REDIS_URL cannot be used: ERR This instance has cluster support disabled$/]
  ]
  for (const [url, message] of faults) {
    const error: unknown = await testServer(t, { REDIS_URL: url }).then(() => null, error => error)
    t.match(error, { code: 'APP_REDIS_START', message })
    t.notMatch(error, { message: /hunter/ })
  }
})
