import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import type { Ending, SessionRecord } from '../../plugins/token-registry/index.ts'
import type { RedisStore } from '../../plugins/redis-store/redis-store.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { redisCluster, redisServer, sharedRedis, until, type RedisServer } from '../support/redis.ts'
import { newPrefix } from '../support/redis-store.ts'

const alice = { tenant: '', sub: 'alice' }

async function open (t: Test, where: RedisStoreOptions): Promise<RedisStore> {
  const store = await createRedisStore(where)
  t.teardown(async () => await store.close())
  return store
}

async function insert (store: RedisStore, records: readonly SessionRecord[]): Promise<SessionRecord[]> {
  const { inserted } = await store.insert(records, { op: randomUUID() })
  return inserted
}

const clean = { unlisted: 0, orphans: 0, corrupt: 0, endless: 0 }

t.test('a check finds what does not agree, and mends it where it is to', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const records = await insert(store, Array.from({ length: 600 }, () => sessionRecord()))
  const [unlisted, gone, damaged, endless] = records.map(({ id }) => id)
  const index = `${keyPrefix}x:\n"alice"`
  await server.command('zrem', index, String(unlisted))
  await server.command('del', `${keyPrefix}s:${gone}`)
  await server.command('set', `${keyPrefix}s:${damaged}`, 'garbage', 'KEEPTTL')
  await server.command('persist', `${keyPrefix}s:${endless}`)
  // Of nobody, and so to be left alone.
  const foreign = [`${keyPrefix}s:somebody`, `${keyPrefix}x:list`, `other:s:${unlisted}`]
  for (const key of foreign) await server.command('set', key, 'theirs')

  const found = { sessions: 599, unlisted: 1, orphans: 1, corrupt: 1, endless: 1 }
  t.same(await store.check(), found)
  t.same(await store.check(), found, 'to look changes nothing')
  t.equal(await store.count(alice), 599, 'one is missing, one is too many')
  t.same(await store.check({ repair: true }), found)
  t.same(await store.check(), { ...clean, sessions: 599, corrupt: 1 })
  t.equal(await store.count(alice), 599, 'the one that cannot be read is listed still')
  for (const key of foreign) t.equal(await server.command('get', key), 'theirs')
})

t.test('of a subject with many sessions that are gone, a check takes each off the index', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url, keyPrefix: 'tr:' })
  const records = await insert(store, Array.from({ length: 1000 }, () => sessionRecord()))
  for (const { id } of records.slice(0, 700)) await server.command('del', `tr:s:${id}`)
  t.match(await store.check({ repair: true }), { sessions: 300, orphans: 700 })
  t.match(await store.check(), { ...clean, sessions: 300 })
})

t.test('a check goes through all primaries of a Cluster', async t => {
  const { nodes, servers } = await redisCluster(t)
  const store = await open(t, { nodes })
  await insert(store, Array.from({ length: 60 }, (_, index) => sessionRecord({ sub: `user ${index}` })))
  t.match(await store.check(), { ...clean, sessions: 60 })
  await Promise.all(servers.slice(0, 3).map(async (server: RedisServer) => {
    for (const key of await server.command('keys', 'tr:x:*') as string[]) await server.command('del', key)
  }))
  t.match(await store.check({ repair: true }), { unlisted: 60 })
  t.match(await store.check(), { ...clean, sessions: 60 })
})

t.test('what is found gone while a subject is searched is taken off its index', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const [gone] = await insert(store, [sessionRecord(), sessionRecord()])
  await server.command('del', `${keyPrefix}s:${gone?.id}`)
  t.equal(await store.count(alice), 2)
  t.equal((await store.find(alice, { limit: 10 })).sessions.length, 1)
  t.equal(await store.count(alice), 1)
})

t.test('what a process had begun to end when it died, another one ends, and tells', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const [kept, ...doomed] = await insert(store, Array.from({ length: 600 }, () => sessionRecord()))
  const once = (await insert(store, [sessionRecord({ use: 'once' })]))[0]
  const cause = { reason: 'password_changed', by: 'alice', op: 'op' }
  // As it stands after the first step of endAll: the indexes are moved aside, a minute ago.
  const pending = JSON.stringify({ ...alice, except: [kept?.id], cause, at: store.now() - 60_000 })
  await server.command('zadd', `${keyPrefix}q`, String(store.now() - 60_000), pending)
  await server.command('rename', `${keyPrefix}x:\n"alice"`, `${keyPrefix}cx:\n"alice"\n"op"`)
  await server.command('rename', `${keyPrefix}o:\n"alice"`, `${keyPrefix}co:\n"alice"\n"op"`)
  await server.command('set', `${keyPrefix}c:\n"alice"\n"op"`, '')
  await server.command('zrem', `${keyPrefix}cx:\n"alice"\n"op"`, String(kept?.id))
  const [later] = await insert(store, [sessionRecord()])

  const told: Ending[] = []
  store.onExpire((_session, ending) => told.push(ending))
  await Promise.all([store.sweep(), store.sweep()])
  t.equal(told.length, doomed.length + 1, 'each once')
  t.match(told.find(({ id }) => id === once?.id), { ...alice, ...cause })
  t.match(await store.get(String(later?.id)), { id: later?.id }, 'what was issued since lives')
  t.match(await store.get(String(kept?.id)), { id: kept?.id })
  for (const { id } of doomed.slice(0, 5)) t.equal(await store.get(id), null)
  t.equal(await server.command('exists', `${keyPrefix}q`), 0, 'it is done')
})

t.test('what was announced and not begun is not begun later: its caller was told that it failed', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const [record] = await insert(store, [sessionRecord()])
  const cause = { reason: 'revoked', by: null, op: 'op' }
  await server.command('zadd', `${keyPrefix}q`, String(store.now() - 60_000), JSON.stringify({ ...alice, except: [], cause, at: store.now() - 60_000 }))
  await store.sweep()
  t.match(await store.get(String(record?.id)), { id: record?.id })
  t.equal(await server.command('exists', `${keyPrefix}q`), 0, 'it is given up')
})

t.test('a slice whose answer was lost is told by the sweep, and what was told is not', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  const store = await createRedisStore({ client, keyPrefix })
  t.teardown(async () => await store.close())
  const records = await insert(store, Array.from({ length: 300 }, () => sessionRecord()))
  const told: string[] = []
  const cause = { reason: 'revoked', by: null, op: 'op' }
  const slices = (args: readonly unknown[]): boolean => String(args[2]).startsWith(`${keyPrefix}cx:`) && args.length > 10
  const evalsha = client.evalsha.bind(client)
  let seen = 0
  const lossy = t.capture(client, 'evalsha', async (...args: Parameters<typeof evalsha>) => {
    const reply = await evalsha(...args)
    if (slices(args) && ++seen === 2) throw new Error('the answer was lost')
    return reply
  })
  await t.rejects(store.endAll(alice, cause, ended => told.push(...ended.map(({ id }) => id))), { code: 'FST_STORE_UNAVAILABLE' })
  lossy.restore()
  await until('the other slices to be told', [server], () => told.length >= 220)
  const before = told.length
  await server.command('zadd', `${keyPrefix}q`, 'XX', String(store.now() - 60_000), (await client.zrange(`${keyPrefix}q`, '0', '-1'))[0] ?? '')
  store.onExpire(({ id }) => told.push(id))
  await store.sweep()
  t.same([...told].sort(), records.map(({ id }) => id).sort(), 'each once')
  t.ok(before < told.length)
})

t.test('what was begun too long ago is not begun anew', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  const [session] = await insert(store, [sessionRecord()])
  const pending = JSON.stringify({ ...alice, except: [], cause: { reason: 'revoked', by: null, op: 'op' }, at: store.now() - 7 * 86_400_000 })
  await server.command('zadd', `${keyPrefix}q`, String(store.now() - 60_000), pending)
  await store.sweep()
  t.match(await store.get(String(session?.id)), { id: session?.id })
  t.equal(await server.command('exists', `${keyPrefix}q`), 0)
})
