import { randomBytes } from 'node:crypto'
import { setTimeout as after } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t from 'tap'
import { createRedisStore } from '../../plugins/redis-store/index.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { soon } from '../support/deferred.ts'
import { redisProxy, type RedisProxy } from '../support/redis-proxy.ts'
import { instances, isCached, statusOf, warm } from '../support/redis-instance.ts'
import { redisServer, until, type RedisServer } from '../support/redis.ts'
import { bearer, get, post, tokenOf } from '../support/serve.ts'

interface Outage {
  name: string
  begin: (server: RedisServer, proxy: RedisProxy) => unknown
  end: (server: RedisServer, proxy: RedisProxy) => unknown
  /** What calls of the store fail with. */
  codes: string[]
  /** Whether sessions can be read all the same. */
  reads?: boolean
  /** Whether sessions are gone after it. */
  loses?: boolean
}

const [DOWN, LATE] = ['FST_STORE_UNAVAILABLE', 'FST_STORE_TIMEOUT']

/** Kills it when it has saved what it holds. */
async function crash (server: RedisServer): Promise<void> {
  await server.command('save')
  await server.kill()
}

const outages: Outage[] = [
  { name: 'down', begin: crash, end: server => server.start(), codes: [DOWN] },
  { name: 'down, and restarted empty', begin: server => server.kill(), end: server => server.restartEmpty(), codes: [DOWN], loses: true },
  { name: 'hung', begin: server => { server.pause() }, end: server => { server.resume() }, codes: [LATE, DOWN] },
  {
    name: 'cut off in silence',
    begin: (_server, proxy) => {
      proxy.halt()
      proxy.haltNew(true)
    },
    end: (_server, proxy) => { proxy.haltNew(false) },
    codes: [LATE, DOWN]
  },
  {
    name: 'read-only',
    // A replica of nobody, which keeps what it has.
    begin: server => server.command('replicaof', '127.0.0.1', 1),
    end: server => server.command('replicaof', 'no', 'one'),
    codes: [DOWN],
    reads: true
  },
  {
    name: 'loading what it saved',
    begin: async server => {
      await server.command('config', 'set', 'key-load-delay', 200_000) // µs
      await server.command('config', 'rewrite')
      await crash(server)
      server.start().catch(() => {})
      await until('it loads', [server], async () => await server.command('ping').then(() => false, ({ message }) => String(message).startsWith('LOADING')))
    },
    end: async server => {
      await server.command('config', 'set', 'key-load-delay', 0)
      await until('it has loaded', [server], async () => await server.command('ping') === 'PONG')
      await server.command('config', 'rewrite')
    },
    codes: [DOWN]
  }
]

for (const { name, begin, end, codes, reads = false, loses = false } of outages) {
  t.test(`while Redis is ${name}`, async t => {
    const server = await redisServer(t, { 'loading-process-events-interval-bytes': '1024' })
    const proxy = await redisProxy(t, server.port)
    const a = await instances(t, { url: proxy.url, commandTimeout: 400 })()
    a.app.get('/patient', { config: { session: { serveCachedFor: '1h' } } }, async () => 'in')
    const token = await tokenOf(a.app)
    for (let i = 0; i < 5; i++) await a.app.tokenRegistry.issue({ sub: 'bulk', meta: { userAgent: 'x'.repeat(500) } })
    await warm(a, token)

    for (let times = 1; times <= 2; times++) {
      await begin(server, proxy)
      const beganAt = performance.now()
      await until('the cache is bypassed', [server], () => !isCached(a, token))
      t.ok(performance.now() - beganAt < 1300, 'within the bound')
      for (let i = 0; i < 10; i++) {
        const answer = await get(a.app, '/me', bearer(token))
        if (reads) t.equal(answer.statusCode, 200)
        else t.match([answer.statusCode, codes.includes(answer.json().code), answer.headers['retry-after']], [503, true, '1'])
      }
      const login = await post(a.app, '/login')
      t.match([login.statusCode, codes.includes(login.json().code), login.headers['retry-after']], [503, true, '1'], 'nobody signs in')
      t.equal((await post(a.app, '/logout', bearer(token))).statusCode, 503, 'nobody is told to be signed out who is not')
      if (!reads) t.match(await get(a.app, '/patient', bearer(token)), { statusCode: 200, headers: { 'session-cache': 'stale' } }, 'a route that asked for it')
      t.equal((await get(a.app, '/maybe')).statusCode, 200, 'who presents nothing needs no store')

      await end(server, proxy)
      const endedAt = performance.now()
      if (loses) {
        await until('the session is gone', [server], async () => await statusOf(a, token) === 401)
        t.equal((await get(a.app, '/patient', bearer(token))).statusCode, 401)
        await warm(a, await tokenOf(a.app))
        break
      }
      await warm(a, token)
      await until('writes succeed', [server], async () => (await post(a.app, '/login')).statusCode === 200)
      await until('that it is over has been proved', [server], () => a.store.staleness < 100)
      t.comment(`in order again after ${(performance.now() - endedAt).toFixed(0)} ms`)
      t.equal(a.log.length, times, `one line an outage: ${a.log.join('; ')}`)
    }
  })
}

t.test('while Redis is full, what is there goes on, and nothing is added', async t => {
  const server = await redisServer(t)
  const { app, store } = await instances(t, { url: server.url })()
  const { tokenRegistry: registry } = app
  const sessions = await Promise.all(Array.from({ length: 5 }, () => registry.issue({ sub: 'alice', idleTimeout: '1h' })))
  const [{ token, session } = { token: '', session: { id: '' } }, other] = sessions
  const code = await registry.issue({ sub: 'alice', use: 'once' })
  await until('what is heard of is known', [server], () => store.staleness < 500)
  await server.command('config', 'set', 'maxmemory', 1)

  const refused = { code: DOWN, statusCode: 503 }
  await t.rejects(registry.issue({ sub: 'alice' }), refused)
  await t.rejects(registry.update(session.id, { meta: {} }), refused)
  const rotated = await registry.rotate(token)
  t.equal((await registry.verify(rotated.token)).session.id, session.id)
  t.equal((await registry.consume(code.token)).sub, 'alice')
  await store.touch([{ id: session.id, at: store.now() }])
  t.equal(await registry.denylist.add('jti', store.now() + 60_000), true)
  t.equal(await registry.denylist.has('jti'), true)
  t.equal(await registry.revoke(other?.token ?? ''), true)
  t.equal(await registry.revokeAll({ sub: 'alice' }), 4)
  await t.rejects(registry.verify(rotated.token), { code: 'FST_TOKEN_REVOKED' })
  await after(1200)
  t.ok(store.staleness < 1000, 'and the cache is as good as before')
})

t.test('a client of the host that queues for ever does not make calls wait for ever, and is the host\'s to close', async t => {
  const server = await redisServer(t)
  const client = new Redis(server.port, { maxRetriesPerRequest: null, retryStrategy: () => 50 })
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  const store = await createRedisStore({ client, keyPrefix: `${randomBytes(6).toString('base64url')}:`, commandTimeout: 200 })
  const record = sessionRecord()
  await store.insert([record], { op: record.op })

  await crash(server)
  await t.rejects(store.get(record.id), { code: LATE, statusCode: 503 })
  await t.rejects(store.end([record.id], { reason: 'revoked', by: null, op: 'op' }), { code: LATE, statusCode: 503 })
  await t.rejects(async () => await store.marked('jti', 'x'), { code: LATE, statusCode: 503 })
  await server.start()
  await until('it answers again', [server], async () => (await store.get(record.id)) !== null || (await store.ending(record.id)) !== null)
  await store.close()
  t.equal(await client.ping(), 'PONG')
})

t.test('closing ends, whatever Redis does, and leaves nothing behind', async t => {
  const server = await redisServer(t)
  const proxy = await redisProxy(t, server.port)
  const left = (): string[] => process.getActiveResourcesInfo().filter(name => /TCPSocketWrap|Timeout/.test(name)).sort()
  const before = left()
  const states: Record<string, { begin: () => unknown, end: () => unknown }> = {
    up: { begin: () => {}, end: () => {} },
    hung: { begin: () => server.pause(), end: () => server.resume() },
    'cut off in silence': {
      begin: () => {
        proxy.halt()
        proxy.haltNew(true)
      },
      end: () => proxy.haltNew(false)
    },
    down: { begin: () => server.kill(), end: () => server.start() }
  }
  for (const [name, { begin, end }] of Object.entries(states)) {
    const store = await createRedisStore({ url: proxy.url, keyPrefix: `${randomBytes(6).toString('base64url')}:`, commandTimeout: 300 })
    await until('it watches', [server], () => store.staleness < 500)
    await begin()
    const underWay = store.get(sessionRecord().id).then(() => 'answered', ({ code }) => String(code))
    const began = performance.now()
    await soon(store.close())
    t.ok(performance.now() - began < 100, `while it is ${name}`)
    t.match(await soon(underWay), /answered|FST_STORE/, 'what was under way ends too')
    await end()
  }
  proxy.end() // its connections count with those of the store
  await until('nothing is left', [server], () => left().length <= before.length)
})

t.test('connections that are lost again and again are all made good', async t => {
  const server = await redisServer(t)
  const instance = await instances(t, { url: server.url })()
  const warnings: unknown[] = []
  const warn = (warning: unknown): void => { warnings.push(warning) }
  process.on('warning', warn)
  t.teardown(() => process.off('warning', warn))
  const token = await tokenOf(instance.app)
  const connections = async (): Promise<number> => String(await server.command('client', 'list')).trim().split('\n').length
  await warm(instance, token)
  const before = await connections()
  for (let i = 0; i < 15; i++) {
    await server.command('client', 'kill', 'type', i % 2 === 0 ? 'normal' : 'pubsub')
    await warm(instance, token)
  }
  await until('there are as many connections as before', [server], async () => await connections() === before)
  t.same(warnings, [], 'no listener was added each time')
})
