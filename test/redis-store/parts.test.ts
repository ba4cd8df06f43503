import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as after } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { Confirmed } from '../../plugins/redis-store/confirmed.ts'
import { Connection } from '../../plugins/redis-store/connection.ts'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import { Keys } from '../../plugins/redis-store/keys.ts'
import { resolveOptions } from '../../plugins/redis-store/options.ts'
import { Recent } from '../../plugins/redis-store/recent.ts'
import type { RedisStore } from '../../plugins/redis-store/redis-store.ts'
import { HashTags } from '../../plugins/redis-store/slots.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { redisProxy } from '../support/redis-proxy.ts'
import { redisCluster, redisSentinels, redisServer, sharedRedis, until } from '../support/redis.ts'
import { RecordedRedis } from '../support/recorded.ts'
import { newPrefix } from '../support/redis-store.ts'

const unconfirmed = { code: 'FST_STORE_UNCONFIRMED' }
const log = (): void => {}

async function open (t: Test, where: RedisStoreOptions): Promise<RedisStore> {
  const store = await createRedisStore(where)
  t.teardown(async () => await store.close())
  return store
}

t.test('a client of our own that has ended is replaced', async t => {
  const server = await sharedRedis()
  const connection = new Connection(resolveOptions({ url: server.url }), log)
  t.teardown(() => connection.close())
  await connection.open()
  const { client } = connection
  client.disconnect()
  await until('another client', [server], async () => await connection.ask('ping', client => client.ping()).catch(() => false))
  t.not(connection.client, client)
})

t.test('changes are confirmed on a copy of a host\'s client, which is closed with the store', async t => {
  const { servers } = await redisSentinels(t, { replicas: 1 })
  const [primary] = servers
  const client = new Redis(String(primary?.url))
  t.teardown(() => client.disconnect())
  const store = await open(t, { client, durability: 'replicas' })
  const record = sessionRecord()
  // A Sentinel that has just met a replica may turn it to the primary anew.
  await until('the replica to follow', servers, async () => await store.insert([record], { op: record.op }).then(() => true, () => false))
  t.match(await store.end([record.id], { reason: 'revoked', by: null, op: randomUUID() }), [{ id: record.id }])
  await store.close()
  t.equal(store.staleness, Infinity)
  t.equal(await client.ping(), 'PONG')
  await until('the copy to be gone', servers, async () => !String(await client.client('LIST')).includes('cmd=wait'))

  const keys = new Keys('tr:', false)
  const confirmed = new Confirmed(resolveOptions({ url: String(primary?.url) }), keys, log)
  t.teardown(() => confirmed.close())
  await confirmed.open()
  const released = new AbortController()
  const first = confirmed.run('', async () => { await once(released.signal, 'abort') })
  const waiting = Array.from({ length: 10_000 }, () => confirmed.run('', async () => { throw new Error('let go') }))
  await t.rejects(confirmed.run('', async () => {}), { code: 'FST_STORE_UNAVAILABLE', message: /too many changes wait/ })
  released.abort()
  await t.rejects(Promise.all([first, ...waiting]))
  await Promise.allSettled([first, ...waiting])
  await t.rejects(confirmed.run('', async () => 'as where a new primary has lost the fence'), { ...unconfirmed, message: /a new primary lacks it/ })
  await t.rejects(confirmed.run('', async () => { throw new Error('refused') }), { code: 'FST_STORE_UNAVAILABLE' }, 'what was not made needs no confirmation')
  await t.rejects(confirmed.run('', async client => {
    await primary?.kill()
    await until('the end', [], async () => await client.ping().then(() => false, () => true))
  }), { ...unconfirmed, message: /Redis does not answer/ })
})

t.test('in a Cluster', async t => {
  const { nodes, servers, primaryOf } = await redisCluster(t, { replicas: 0 })
  const keyPrefix = newPrefix()

  await t.test('a host\'s client is copied for what is to be confirmed', async t => {
    const client = new Cluster([...nodes])
    t.teardown(() => client.disconnect())
    const store = await open(t, { client, keyPrefix, durability: 'replicas' })
    const record = sessionRecord()
    await t.rejects(store.insert([record], { op: record.op }), { ...unconfirmed, message: /no replicas/ })
    const prefixed = new Cluster([...nodes], { lazyConnect: true, redisOptions: { keyPrefix: 'x' } })
    await t.rejects(createRedisStore({ client: prefixed }), { code: 'FST_STORE_OPTIONS', message: /keyPrefix of its own/ })
  })

  await t.test('an adopted token is not held by who died before it was saved', async t => {
    const store = await open(t, { nodes, keyPrefix })
    const id = randomBytes(18).toString('base64url')
    const pointer = `${keyPrefix}a:{${id.slice(0, 4)}}${id.slice(4)}`
    const server = await primaryOf(pointer)
    for (const [ago, inserted] of [[1000, 0], [60_000, 1]] as const) {
      await server.command('set', pointer, `{none} ${store.now() - ago} "op"`, 'PX', '60000')
      const record = sessionRecord({ id })
      t.equal(await store.get(id), null)
      t.equal((await store.insert([record], { op: record.op })).inserted.length, inserted)
    }
    t.match(await store.get(id), { id })
  })

  await t.test('keys of others that begin alike are passed over', async t => {
    const store = await open(t, { nodes, keyPrefix })
    const foreign = `${keyPrefix}s:foreign`
    await (await primaryOf(foreign)).command('set', foreign, 'theirs')
    const { sessions } = await store.find({}, { limit: 9 })
    t.ok(sessions.length > 0)
    t.equal(await store.count({}), sessions.length)
    t.equal(store.corrupt, 0)
  })

  await t.test('an entry of an index of which there is no session yet is passed over', async t => {
    const store = await open(t, { nodes, keyPrefix, indexes: ['ip'] })
    const record = sessionRecord({ meta: { ipAddress: '192.0.2.1' } })
    await store.insert([record], { op: record.op })
    const index = new Keys(keyPrefix, true).index('ip', '192.0.2.1')
    await (await primaryOf(index)).command('zadd', index, '9999999999999', randomBytes(18).toString('base64url'))
    t.equal(await store.count({ ipAddress: '192.0.2.1' }), 1)
  })

  await t.test('where one primary comes back empty, marks are taken for set there, and only there', async t => {
    const told: string[] = []
    const store = await createRedisStore({ nodes, keyPrefix }, (_error, message) => { told.push(message) })
    t.teardown(async () => await store.close())
    await until('heartbeats', servers, () => store.staleness < 1000)
    const issuedAt = store.now()
    await servers[0]?.kill()
    await servers[0]?.restartEmpty()
    await until('the loss to be noticed', servers, () => told.some(message => message.includes('has lost')))
    const marks = async (): Promise<boolean[]> => await Promise.all(Array.from({ length: 100 }, async (_, index) => await store.marked('denylist', `jti ${index}`, issuedAt)))
    await until('marks to be taken for set', servers, async () => (await marks()).includes(true))
    t.ok((await marks()).includes(false))
  })

  await t.test('what goes through all primaries fails where one is away', async t => {
    const store = await open(t, { nodes, keyPrefix })
    await store.check()
    await servers[0]?.kill()
    await until('its end to be noticed', servers, async () =>
      await store.check().then(() => false, error => error.code === 'FST_STORE_UNAVAILABLE' && error.message.includes('the primary at')))
  })
})

t.test('no tag leads to a primary that keeps no slot', async t => {
  const cluster = new Cluster(['redis://127.0.0.1:1'], { lazyConnect: true })
  t.throws(() => new HashTags().leadingTo('127.0.0.1:1', cluster), /no slot is known/)
})

t.test('of what was changed a short while ago the newest is made again, and tried again where that fails', async t => {
  let [made, failures, now] = [0, 3, 0]
  const recent = new Recent(() => now)
  for (let index = 0; index < 20_001; index++) recent.add(async () => { made++ })
  recent.add(async () => { if (failures-- > 0) throw new Error('not yet') })
  await recent.again(-Infinity)
  t.equal(made, 10_000)
  recent.add(async () => { throw new Error('never') })
  await t.rejects(recent.again(-Infinity), { code: 'FST_STORE_LOST' })
  await t.rejects(recent.again(1000), { code: 'FST_STORE_LOST' }, 'a replica that was promoted may have lacked a second')
  await recent.again(1001)
  now = 600_000
  recent.add(async () => {})
  await recent.again(-Infinity) // what is older than ten minutes is forgotten
})

t.test('a list of what is under way that is no list fails, and ends nobody', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const record = sessionRecord()
  await store.insert([record], { op: record.op })
  await server.command('set', `${keyPrefix}q`, 'theirs')
  await t.rejects(store.endAll({ tenant: '', sub: 'alice' }, { reason: 'revoked', by: null, op: 'op' }), { code: 'FST_STORE_UNAVAILABLE' })
  t.match(await store.get(record.id), { id: record.id })
})

t.test('a record of which a part cannot be read is ended, counted, and not told', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const record = sessionRecord()
  await store.insert([record], { op: record.op })
  const key = `${keyPrefix}s:${record.id}`
  const value = String(await server.command('get', key))
  await server.command('set', key, value.replace(/\{\}$/, '{'), 'KEEPTTL')
  t.same(await store.end([record.id], { reason: 'revoked', by: null, op: 'op' }), [])
  t.equal(store.corrupt, 1)
})

t.test('where nothing says since when marks are kept, it is from now on', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url })
  const issuedAt = store.now() - 1
  await server.command('del', 'tr:b:')
  t.equal(await store.marked('denylist', 'jti', issuedAt), true)
  t.ok(Number(await server.command('pttl', 'tr:b:')) > 0)
})

t.test('what has expired is neither rotated nor changed, and told once', async t => {
  const server = await sharedRedis()
  const store = await open(t, { url: server.url, keyPrefix: newPrefix() })
  const told: string[] = []
  store.onExpire(({ id }, { reason }) => told.push(`${id} ${reason}`))
  const now = store.now()
  const records = ['a', 'b'].map(sub => sessionRecord({ sub, issuedAt: now, lastUsedAt: now, rotatedAt: now - 7, expiresAt: now + 200 }))
  const { inserted } = await store.insert(records, { op: 'op' })
  for (const { rotatedAt, issuedAt } of inserted) t.equal(rotatedAt, issuedAt - 7, 'times keep their distance')
  await after(300)

  const [rotated, changed] = records.map(({ id }) => id) as [string, string]
  const presented = { once: false, generation: 0, kid: 1, binding: null, reuseWindow: 0, by: null }
  t.same(await store.rotate(rotated, presented, 'other'), { status: 'unknown' })
  t.equal(await store.update(changed, { scope: [] }), null)
  await until('both to be told', [server], () => told.length >= 2)
  t.same(told.sort(), [`${rotated} expired`, `${changed} expired`].sort())
})

t.test('of the uses of a session the last one counts', async t => {
  const server = await sharedRedis()
  const store = await open(t, { url: server.url, keyPrefix: newPrefix() })
  const record = sessionRecord()
  const [{ issuedAt } = record] = (await store.insert([record], { op: record.op })).inserted
  await store.touch([5, 9, 7].map(ms => ({ id: record.id, at: issuedAt + ms })))
  t.equal((await store.get(record.id))?.lastUsedAt, issuedAt + 9)
})

t.test('a session that is gone when its ending is asked for has none', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  const store = await open(t, { client, keyPrefix })
  const now = store.now()
  const record = sessionRecord({ issuedAt: now, lastUsedAt: now, expiresAt: now + 50 })
  await store.insert([record], { op: record.op })
  await after(100)
  const evalsha = client.evalsha.bind(client)
  t.capture(client, 'evalsha', async (...args: Parameters<typeof evalsha>) => {
    await client.del(`${keyPrefix}s:${record.id}`)
    return await evalsha(...args)
  })
  t.equal(await store.ending(record.id), null)
})

t.test('reuse of a session that cannot be shown fails, and ends it', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const record = sessionRecord()
  await store.insert([record], { op: record.op })
  const presented = { once: false, generation: 0, kid: 1, binding: null, reuseWindow: 0, by: null }
  await store.rotate(record.id, presented, 'one')
  const key = `${keyPrefix}s:${record.id}`
  await server.command('set', key, String(await server.command('get', key)).replace(/\{\}$/, '{'), 'KEEPTTL')
  await t.rejects(store.rotate(record.id, presented, 'two'), { code: 'FST_STORE_CORRUPT' })
  t.match(await server.command('get', key), /^E /)
})

t.test('who asks for the same mark at once shares the answer, and ten thousand are remembered', async t => {
  const client = new RecordedRedis((await sharedRedis()).url)
  t.teardown(() => client.disconnect())
  const store = await open(t, { client, keyPrefix: newPrefix() })
  await until('a heartbeat', [], () => store.staleness < 1000)
  const reads = async (work: () => Promise<unknown>): Promise<number> => (await client.recorder.record(work)).commands.filter(name => name === 'mget').length
  const ask = async (jti: string): Promise<boolean> => await store.marked('denylist', jti)

  t.equal(await reads(async () => { await Promise.all(Array.from({ length: 10 }, async () => await ask('first'))) }), 1)
  for (let from = 0; from < 10_000; from += 500) await Promise.all(Array.from({ length: 500 }, async (_, index) => await ask(String(from + index))))
  t.equal(await reads(async () => { await ask('9999') }), 0)
  t.equal(await reads(async () => { await ask('first') }), 1, 'the oldest is forgotten')
})

t.test('a store that hears of nothing says so after a while', async t => {
  const server = await redisServer(t)
  await server.command('acl', 'setuser', 'deaf', 'on', '>pw', '~*', '&*', '+@all', '-evalsha', '-eval')
  const store = await open(t, { url: `redis://deaf:pw@127.0.0.1:${server.port}` })
  t.match(await store.health(), { status: 'ok' }, 'it has just begun')
  await until('it to be degraded', [server], async () => (await store.health()).status === 'degraded')
  t.equal(store.staleness, Infinity)
})

t.test('Sentinels are asked as a user of theirs', async t => {
  const { sentinels, sentinelServers, name } = await redisSentinels(t, { replicas: 0, sentinels: 1 })
  await sentinelServers[0]?.command('acl', 'setuser', 'watcher', 'on', '>pw', '&*', '+@all')
  await sentinelServers[0]?.command('acl', 'setuser', 'default', 'off')
  const store = await open(t, { sentinels, name, sentinelUsername: 'watcher', sentinelPassword: 'pw' })
  t.match(await store.health(), { status: 'ok' })
  await t.rejects(createRedisStore({ sentinels, name }), { code: 'FST_STORE_ABSENT', message: /NOAUTH/ })
  await t.rejects(createRedisStore({ sentinels, name, tls: true, connectTimeout: '500ms' }), { code: 'FST_STORE_ABSENT' }, 'they speak no TLS')
})

t.test('stores whose prefixes begin alike never meet', async t => {
  const server = await redisServer(t)
  const stores = [await open(t, { url: server.url, keyPrefix: 'app:' }), await open(t, { url: server.url, keyPrefix: 'app:s:' })]
  for (const [index, store] of stores.entries()) {
    const record = sessionRecord({ sub: String(index) })
    await store.insert([record], { op: record.op })
  }
  for (const [index, store] of stores.entries()) {
    t.match((await store.find({}, { limit: 9 })).sessions.map(({ sub }) => sub), [String(index)])
    t.equal(await store.count({}), 1)
    t.equal(store.corrupt, 0)
  }
})

t.test('a session that was used until its deadline has expired, and did not go idle', async t => {
  const server = await sharedRedis()
  const store = await open(t, { url: server.url, keyPrefix: newPrefix() })
  const now = store.now()
  const record = sessionRecord({ issuedAt: now, lastUsedAt: now, idleTimeout: 400, expiresAt: now + 900 })
  const { inserted: [session] } = await store.insert([record], { op: record.op })
  for (let times = 0; times < 8; times++) {
    await after(100)
    await store.touch([{ id: record.id, at: store.now() }])
  }
  await after(300)
  t.match(await store.ending(record.id), { reason: 'expired', at: session?.expiresAt })
})

t.test('a Redis that takes no writes at start is absent, whoever\'s the client is', async t => {
  const server = await redisServer(t)
  await server.command('client', 'pause', '60000', 'write')
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  for (const where of [{ client }, { url: server.url }]) await t.rejects(createRedisStore({ ...where, commandTimeout: 300 }), { code: 'FST_STORE_ABSENT' })
})

t.test('where Redis came later than the service, what is issued from then on is not taken for marked', async t => {
  const server = await redisServer(t)
  await server.kill()
  const store = await open(t, { url: server.url, requireAtStart: false })
  await server.start()
  await until('a heartbeat', [server], () => store.staleness < 1000)
  await until('the beginning of marks', [server], async () => await server.command('exists', 'tr:b:') === 1)
  const issuedAt = store.now()
  t.equal(await store.marked('denylist', 'jti', issuedAt + 1), false)
})

t.test('before Sentinels have named a primary nothing else is taken for one', async t => {
  const told: string[] = []
  const store = await createRedisStore({ sentinels: [{ host: '127.0.0.1', port: 1 }], name: 'x', requireAtStart: false }, (_error, message) => told.push(message))
  t.teardown(async () => await store.close())
  await after(700)
  await t.rejects(store.get(sessionRecord().id), { code: 'FST_STORE_UNAVAILABLE' })
  t.same(told.filter(message => message.includes('localhost') || message.includes('heartbeats')), [])
})

t.test('a Sentinel that is silent keeps nobody waiting for the others', async t => {
  const { sentinels, name, servers } = await redisSentinels(t, { replicas: 0 })
  const [first] = servers
  const silent = await redisProxy(t, Number(first?.port))
  silent.haltNew(true)
  const began = performance.now()
  const store = await open(t, { sentinels: [{ host: '127.0.0.1', port: silent.port }, ...sentinels], name, connectTimeout: '10s' })
  t.ok(performance.now() - began < 3000)
  t.match(await store.health(), { status: 'ok' })
})
