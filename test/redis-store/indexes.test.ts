import { randomBytes, randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import type { RedisStore } from '../../plugins/redis-store/redis-store.ts'
import type { SessionRecord } from '../../plugins/token-registry/index.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { redisCluster, redisServer, type RedisServer } from '../support/redis.ts'
import { newPrefix } from '../support/redis-store.ts'

const ip = { ipAddress: '192.0.2.1' }
const indexes = ['ip', 'client'] as const

async function open (t: Test, where: RedisStoreOptions): Promise<RedisStore> {
  const store = await createRedisStore(where)
  t.teardown(async () => await store.close())
  return store
}

async function insert (store: RedisStore, ...records: SessionRecord[]): Promise<SessionRecord[]> {
  return (await store.insert(records, { op: randomUUID() })).inserted
}

async function found (store: RedisStore, query: object): Promise<string[]> {
  const { sessions } = await store.find(query, { limit: 500 })
  return sessions.map(({ id }) => id)
}

/** How often a command ran. */
async function calls (server: RedisServer, command: string): Promise<number> {
  const stats = String(await server.command('info', 'commandstats'))
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stats)?.[1] ?? 0)
}

t.test('an index answers without going through all keys', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url, indexes })
  const sessions = Array.from({ length: 1200 }, (_, index) => sessionRecord({ sub: `user ${index}`, client: index % 2 === 0 ? 'app' : 'site', meta: index < 700 ? ip : {} }))
  await insert(store, ...sessions)
  t.equal(await store.count(ip), 700)
  t.equal(await store.count({ client: 'app' }), 600)
  t.equal(await store.count({ ...ip, client: 'site' }), 350)
  const ids: string[] = []
  let cursor: string | null = null
  do {
    const page: { sessions: SessionRecord[], cursor: string | null } = await store.find(ip, { limit: 150, cursor })
    ids.push(...page.sessions.map(({ id }) => id))
    cursor = page.cursor
  } while (cursor !== null)
  t.same(ids.toSorted(), sessions.slice(0, 700).map(({ id }) => id).toSorted(), 'page by page, each once')
  t.equal(await calls(server, 'scan'), 0)
  await store.count({ deviceId: 'phone' })
  t.ok(await calls(server, 'scan') > 0, 'what has no index is searched for among all')
})

t.test('an entry whose session has ended is never shown, and is taken off', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url, indexes, keyPrefix: 'tr:' })
  const [ended, lives] = await insert(store, sessionRecord({ meta: ip }), sessionRecord({ meta: ip }))
  const plain = await open(t, { url: server.url, keyPrefix: 'tr:' })
  await plain.end([String(ended?.id)], { reason: 'revoked', by: null, op: 'op' })
  const [index] = await server.command('keys', 'tr:i:ip:*') as string[]
  t.equal(await server.command('zcard', String(index)), 2, 'one without indexes leaves it')
  t.same(await found(store, ip), [lives?.id])
  t.equal(await server.command('zcard', String(index)), 1)
  t.ok(Number(await server.command('pttl', String(index))) > 0)

  // As while a session is about to be stored.
  await server.command('zadd', String(index), '9999999999999', randomBytes(18).toString('base64url'))
  t.same(await found(store, ip), [lives?.id])
  t.equal(await server.command('zcard', String(index)), 2, 'what may be about to be stored stays listed')
})

t.test('a session that moves to another address is found there, and not where it was', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url, indexes })
  const [session] = await insert(store, sessionRecord({ meta: ip }))
  await store.update(String(session?.id), { meta: { ipAddress: '2001:db8::1' } })
  t.same(await found(store, ip), [])
  t.same(await found(store, { ipAddress: '2001:db8::1' }), [session?.id])
  t.equal(await store.update(sessionRecord().id, { meta: ip }), null)
})

t.test('an index that is asked for later is filled by a check', async t => {
  const server = await redisServer(t)
  const plain = await open(t, { url: server.url, keyPrefix: 'tr:' })
  const sessions = await insert(plain, ...Array.from({ length: 300 }, () => sessionRecord({ meta: ip })))
  await plain.end([String(sessions[0]?.id)], { reason: 'revoked', by: null, op: 'op' })
  await server.command('set', `tr:s:${sessions[1]?.id}`, 'garbage', 'KEEPTTL')
  const store = await open(t, { url: server.url, keyPrefix: 'tr:', indexes })
  t.equal(await store.count(ip), 0)
  await store.check({ repair: true })
  t.equal(await store.count(ip), 298)
})

t.test('in a Cluster sessions are found wherever they are kept, those of adopted tokens too', async t => {
  const { nodes } = await redisCluster(t)
  const keyPrefix = newPrefix()
  const store = await open(t, { nodes, indexes, keyPrefix })
  const minted = Array.from({ length: 30 }, (_, index) => sessionRecord({ sub: `user ${index}`, meta: ip }))
  const adopted = Array.from({ length: 30 }, (_, index) => sessionRecord({ id: randomBytes(18).toString('base64url'), sub: `user ${index}`, meta: ip, client: 'app' }))
  await insert(store, ...minted, ...adopted)
  t.equal(await store.count(ip), 60)
  t.same((await found(store, { client: 'app' })).toSorted(), adopted.map(({ id }) => id).toSorted())
  await store.end(adopted.map(({ id }) => id), { reason: 'revoked', by: null, op: 'op' })
  t.equal(await store.count(ip), 30)
})
