import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setImmediate } from 'node:timers/promises'
import { Command, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { Keys } from '../../plugins/redis-store/keys.ts'
import type { TokenStore } from '../../plugins/token-registry/index.ts'
import { childEnv } from '../support/child-env.ts'
import { decorated } from '../support/decorated.ts'
import { deferred } from '../support/deferred.ts'
import { redisProxy } from '../support/redis-proxy.ts'
import { instances, isCached, refusedAfter, statusOf, warm, type Instance } from '../support/redis-instance.ts'
import { redisCluster, redisSentinels, redisServer, sharedRedis, until, type RedisServer } from '../support/redis.ts'
import { bearer, tokenOf } from '../support/serve.ts'

/** What no revocation may take longer than to be seen everywhere, ms. */
const BOUND = 1100
/** ms, where a slot has moved: its old keeper must first hear of it, at the latest after half of `cluster-node-timeout`. */
const MOVED_BOUND = BOUND + 500

/** Ends the session of a token by one instance, and asks another until it knows. @returns ms that this took */
async function revokedAfter (by: Instance, seenBy: Instance, token: string): Promise<number> {
  await by.app.tokenRegistry.revoke(token)
  return await refusedAfter(seenBy, token)
}

/** Counts how often the store says that anything may have changed, and notes how stale it was. */
function countFlushes (t: Test, { store }: Instance): { flushes: number, staleness: number } {
  const seen = { flushes: 0, staleness: NaN }
  t.teardown(store.onInvalidate(ids => {
    if (ids !== 'all') return
    seen.flushes++
    seen.staleness = store.staleness
  }))
  return seen
}

t.test('what one instance revokes, another one refuses within milliseconds', async t => {
  const instance = instances(t, { url: (await sharedRedis()).url })
  const [a, b] = [await instance(), await instance()]
  const times: number[] = []
  for (let i = 0; i < 100; i++) {
    const token = await tokenOf(a.app)
    await warm(b, token)
    times.push(await revokedAfter(a, b, token))
  }
  times.sort((one, other) => one - other)
  t.comment(`ms: median ${times[50]?.toFixed(1)}, 99th percentile ${times[98]?.toFixed(1)}, maximum ${times[99]?.toFixed(1)}`)
  t.ok(Number(times[50]) < 20)
  t.ok(Number(times[99]) < BOUND)
})

t.test('a read that a revocation overtakes is not cached', async t => {
  const [asked, go] = [deferred(), deferred()]
  const held = (store: TokenStore): TokenStore => decorated(store, {
    get: async id => {
      const record = await store.get(id)
      asked.resolve()
      await go.promise
      return record
    }
  })
  const instance = instances(t, { url: (await sharedRedis()).url })
  const [a, b] = [await instance(), await instance({ decorate: held })]
  await until('the cache is used', [], () => b.store.staleness < 500)
  const { token, session } = await a.app.tokenRegistry.issue({ sub: 'alice' })

  const heard = new Promise<void>(resolve => b.store.onInvalidate(ids => { if (ids.includes(session.id)) resolve() }))
  const answer = statusOf(b, token)
  await asked.promise
  await a.app.tokenRegistry.revoke(token)
  await heard
  go.resolve()
  t.equal(await answer, 200, 'it was read before')
  t.notOk(isCached(b, token))
  t.equal(await statusOf(b, token), 401)
})

t.test('where the connection that hears is killed, nothing that was revoked meanwhile is served', async t => {
  const server = await redisServer(t)
  const instance = instances(t, { url: server.url })
  const [a, b] = [await instance(), await instance()]
  const times: number[] = []
  for (let i = 0; i < 10; i++) {
    const [token, kept] = [await tokenOf(a.app), await tokenOf(a.app)]
    for (const each of [token, kept]) await warm(b, each)
    const seen = countFlushes(t, b)
    await server.command('client', 'kill', 'type', 'pubsub')
    times.push(await revokedAfter(a, b, token))
    await until('it hears again', [server], () => seen.flushes > 0)
    await warm(b, kept)
  }
  t.comment(`ms: maximum ${Math.max(...times).toFixed(1)}`)
  t.ok(Math.max(...times) < BOUND)
  t.same(b.log, [], 'that mends itself is not worth a line')
})

t.test('where the connection that hears falls silent, nothing that was revoked is served beyond the bound', async t => {
  const server = await redisServer(t)
  const proxy = await redisProxy(t, server.port)
  const instance = instances(t, { url: server.url })
  const [a, b] = [await instance(), await instance({ where: { url: proxy.url } })]
  for (let i = 0; i < 3; i++) {
    const token = await tokenOf(a.app)
    await warm(b, token)
    const seen = countFlushes(t, b)
    proxy.halt(({ sent }) => sent.includes('TRACKING'))
    const took = await revokedAfter(a, b, token)
    t.comment(`${took.toFixed(1)} ms`)
    t.ok(took < BOUND)
    await until('it hears again', [server], () => seen.flushes > 0 && b.store.staleness < 500)
    t.ok(seen.staleness > 500, 'that anything may have changed is told before it is believed again')
  }
  t.match(b.log, [/does not return heartbeats/])
})

t.test('what an instance was answered to be gone it serves from memory no more, whether it has heard of it or not', async t => {
  const server = await redisServer(t)
  const proxy = await redisProxy(t, server.port)
  const instance = instances(t, { url: server.url })
  const [a, b] = [await instance(), await instance({ where: { url: proxy.url } })]
  for (const ask of ['get', 'ending'] as const) {
    const token = await tokenOf(a.app)
    await warm(b, token)
    const { session: { id } } = await b.app.tokenRegistry.verify(token)
    proxy.halt(({ sent }) => sent.includes('TRACKING'))
    await a.app.tokenRegistry.revoke(token)
    t.ok(isCached(b, token), 'it has not heard of it')
    await b.store[ask](id)
    t.notOk(isCached(b, token), ask)
    await until('it hears again', [server], () => b.store.staleness < 200)
  }
})

t.test('where Redis forgot everything, nobody is served from memory', async t => {
  const server = await redisServer(t)
  const instance = instances(t, { url: server.url })
  const [a, b] = [await instance(), await instance()]
  const token = await tokenOf(a.app)
  await warm(b, token)
  await server.command('flushall')
  t.ok(await refusedAfter(b, token) < BOUND)
})

t.test('where keys may not be watched, changes are published', async t => {
  const server = await redisServer(t)
  await server.command('acl', 'setuser', 'app', 'on', '>app-password', '~*', '&*', '+@all', '-client|tracking')
  const instance = instances(t, { url: `redis://app:app-password@127.0.0.1:${server.port}` })
  const [a, b] = [await instance(), await instance()]
  const times: number[] = []
  for (let i = 0; i < 20; i++) {
    const token = await tokenOf(a.app)
    await warm(b, token)
    times.push(await revokedAfter(a, b, token))
  }
  const kept = await tokenOf(a.app, 'bob')
  await warm(b, kept)
  await a.app.tokenRegistry.revokeAll({ sub: 'bob' })
  times.push(await refusedAfter(b, kept))
  t.equal(await b.store.marked('jti', 'published'), false)
  await a.store.mark('jti', 'published', Date.now() + 60_000)
  await until('the mark is seen', [server], async () => await b.store.marked('jti', 'published'))
  t.comment(`ms: maximum ${Math.max(...times).toFixed(1)}`)
  t.ok(Math.max(...times) < BOUND)

  const lost = await tokenOf(a.app)
  await warm(b, lost)
  const seen = countFlushes(t, b)
  await server.command('client', 'kill', 'type', 'pubsub')
  t.ok(await revokedAfter(a, b, lost) < BOUND)
  await until('it hears again', [server], () => seen.flushes > 0)
  for (const { log } of [a, b]) t.match(log, [/changes are published instead.*NOPERM/], 'said once')
})

t.test('a process that was paused serves nothing that was revoked meanwhile, from its first answer on', async t => {
  const { url } = await sharedRedis()
  const secret = 'QmFzZTY0IG9mIGF0IGxlYXN0IHRoaXJ0eS10d28gYnl0ZXM='
  const keyPrefix = `${randomBytes(6).toString('base64url')}:`
  const a = await instances(t, { url, keyPrefix })({ secret })
  const script = `
    import Fastify from 'fastify'
    import tokenRegistry from './plugins/token-registry/index.ts'
    import redisStore from './plugins/redis-store/index.ts'
    const [url, keyPrefix, secret] = process.argv.slice(1)
    const app = Fastify()
    await app.register(redisStore, { url, keyPrefix })
    await app.register(tokenRegistry, { secret, cache: { max: 1000, maxStaleness: 600 } })
    app.get('/me', { config: { session: true } }, async request => ({ cached: app.tokenRegistry.cached(request.headers.authorization) !== undefined }))
    console.log(await app.listen({ port: 0, host: '127.0.0.1' }))`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script, url, keyPrefix, secret], { env: childEnv, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const [address] = await once(createInterface(child.stdout), 'line')
  const ask = async (token: string) => await fetch(`${address}/me`, { headers: bearer(token) })

  for (let i = 0; i < 2; i++) {
    const token = await tokenOf(a.app)
    await until('it is cached there', [], async () => (await (await ask(token)).text()).includes('true'))
    child.kill('SIGSTOP')
    await a.app.tokenRegistry.revoke(token)
    const revokedAt = performance.now()
    const first = ask(token)
    await until('the bound is over', [], () => performance.now() - revokedAt > 700)
    child.kill('SIGCONT')
    t.equal((await first).status, 401)
  }
})

t.test('an old primary that was cut off from its Sentinels is left, although it answers', async t => {
  const { sentinels, name, servers, primary } = await redisSentinels(t)
  for (const server of servers) await server.command('acl', 'setuser', 'app', 'on', '>app-password', '~*', '&*', '+@all')
  const instance = instances(t, { sentinels, name, username: 'app', password: 'app-password' })
  const [a, b] = [await instance(), await instance()]
  const before = await primary()
  const [token, kept] = [await tokenOf(a.app), await tokenOf(a.app)]
  for (const each of [token, kept]) await warm(b, each)

  // Sentinels and replicas come as the default user: from now on they cannot. The instances can.
  const app = new Redis({ port: before.port, username: 'app', password: 'app-password' })
  app.on('error', () => {})
  t.teardown(() => app.disconnect())
  await app.call('acl', 'setuser', 'default', 'off')
  await app.client('KILL', 'USER', 'default')
  const others = servers.filter(server => server !== before)
  await until('another one is promoted', others, async () => {
    for (const server of others) if (String(await server.command('role')).startsWith('master')) return true
    return false
  })
  const promotedAt = performance.now()
  const c = await instance()
  t.ok(await c.app.tokenRegistry.revoke(token), 'by an instance that knows the new one')
  t.ok(await refusedAfter(b, token) < BOUND)
  t.comment(`left within ${(performance.now() - promotedAt).toFixed(0)} ms of the promotion`)
  t.equal(await app.ping(), 'PONG', 'the old one answered all the time')
  await warm(b, kept)
})

t.test('in a Cluster', async t => {
  const cluster = await redisCluster(t, { replicas: 0 })
  const { servers, nodes } = cluster
  const keyPrefix = `${randomBytes(6).toString('base64url')}:`
  const keys = new Keys(keyPrefix, true)
  const instance = instances(t, { nodes, keyPrefix })
  const [a, b] = [await instance(), await instance()]
  const slotOf = (id: string): number => Number(new Command('get', [`{${id.slice(0, 4)}}`]).getSlot())
  const idOf = async (server: RedisServer): Promise<string> => String(await server.command('cluster', 'myid'))

  /** As redis-cli moves a slot, keys and all. */
  const move = async (slot: number, from: RedisServer, to: RedisServer): Promise<void> => {
    const [source, target] = [await idOf(from), await idOf(to)]
    await to.command('cluster', 'setslot', slot, 'importing', source)
    await from.command('cluster', 'setslot', slot, 'migrating', target)
    const keys = await from.command('cluster', 'getkeysinslot', slot, 1000)
    if (Array.isArray(keys) && keys.length > 0) await from.command('migrate', to.host, to.port, '', 0, 5000, 'keys', ...keys.map(String))
    for (const server of [to, from]) await server.command('cluster', 'setslot', slot, 'node', target)
  }

  await t.test('what one instance revokes, another one refuses within milliseconds, on each primary', async t => {
    const times: number[] = []
    for (let i = 0; i < 30; i++) {
      const token = await tokenOf(a.app, `user ${i}`)
      await warm(b, token)
      times.push(await revokedAfter(a, b, token))
    }
    t.comment(`ms: maximum ${Math.max(...times).toFixed(1)}`)
    t.ok(Math.max(...times) < BOUND)
  })

  await t.test('a primary to which a connection was lost is watched as before', async t => {
    const tokens = await Promise.all(Array.from({ length: 20 }, async (_, i) => await tokenOf(a.app, `user ${i}`)))
    for (const token of tokens) await warm(b, token)
    // ioredis forgets a node that closed its connection.
    await servers[0]?.command('client', 'kill', 'type', 'normal')
    await setImmediate()
    let longest = 0
    for (const token of tokens) longest = Math.max(longest, await revokedAfter(a, b, token))
    t.comment(`ms: maximum ${longest.toFixed(1)}`)
    t.ok(longest < BOUND)
  })

  await t.test('a slot that moves to another primary takes its sessions along', async t => {
    const { token, session } = await a.app.tokenRegistry.issue({ sub: 'mover' })
    await warm(b, token)
    const from = await cluster.primaryOf(`{${session.id.slice(0, 4)}}`)
    const to = servers.find(server => server !== from) as RedisServer // there are three
    await move(slotOf(session.id), from, to)
    await warm(b, token)
    t.ok(await revokedAfter(a, b, token) < BOUND)
  })

  await t.test('a new primary is watched before anything that it keeps is served from memory', async t => {
    const added = await redisServer(t, { 'cluster-enabled': 'yes', 'cluster-node-timeout': '1000', 'cluster-require-full-coverage': 'no' })
    await servers[0]?.command('cluster', 'meet', added.host, added.port)
    await until('they know each other', servers, async () => {
      for (const server of [...servers, added]) {
        const known = String(await server.command('cluster', 'nodes')).trim().split('\n')
        if (known.length !== servers.length + 1 || known.some(line => /handshake|fail/.test(line))) return false
      }
      return String(await added.command('cluster', 'info')).includes('cluster_state:ok')
    })
    // That no mark stands is told by nobody when its slot moves.
    const expiresAt = Date.now() + 60_000
    t.equal(await b.store.marked('jti', 'moved'), false)
    await until('it is answered from memory', servers, () => b.store.marked('jti', 'moved') === false)
    const mark = keys.mark('jti', 'moved')
    const seen = countFlushes(t, b)
    await move(Number(new Command('get', [mark]).getSlot()), await cluster.primaryOf(mark), added)
    t.ok(await a.store.mark('jti', 'moved', expiresAt))
    const markedAt = performance.now()
    await until('the mark is seen', servers, async () => await b.store.marked('jti', 'moved'))
    const took = performance.now() - markedAt
    t.comment(`mark: ${took.toFixed(1)} ms`)
    t.ok(took < MOVED_BOUND)
    await until('it looks who keeps what', servers, () => seen.flushes > 0)
    const { token, session } = await a.app.tokenRegistry.issue({ sub: 'pioneer' })
    await warm(b, token)
    await move(slotOf(session.id), await cluster.primaryOf(`{${session.id.slice(0, 4)}}`), added)
    t.ok(await revokedAfter(a, b, token) < MOVED_BOUND)
    const again = await a.app.tokenRegistry.issue({ sub: 'pioneer' })
    await warm(b, again.token)
    t.ok(await revokedAfter(a, b, again.token) < BOUND)
  })
})
