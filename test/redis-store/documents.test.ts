import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import { hostileStrings, malformedStrings, sessionRecord } from '../../plugins/testing/index.ts'
import type { Subject } from '../../plugins/token-registry/index.ts'
import { redisCluster, redisServer, sharedRedis, until, type RedisServer } from '../support/redis.ts'
import { newPrefix } from '../support/redis-store.ts'

const UNAVAILABLE = { code: 'FST_STORE_UNAVAILABLE', statusCode: 503 }

async function open (t: Test, where: RedisStoreOptions): Promise<RedisStore> {
  const store = await createRedisStore(where)
  t.teardown(async () => await store.close())
  return store
}

async function insert (store: RedisStore, subjects: readonly Subject[]): Promise<void> {
  await store.insert(subjects.map(subject => sessionRecord(subject)), { op: randomUUID() })
}

async function subs (store: RedisStore, tenant?: string): Promise<string[]> {
  const found = new Set<string>()
  for await (const { sub } of store.subjects(tenant)) found.add(sub)
  return [...found].sort()
}

t.test('text that is too long, or would come back as another, is refused', async t => {
  const { documents } = await open(t, { url: (await sharedRedis()).url, keyPrefix: newPrefix() })
  const refused = { code: 'FST_TOKEN_VALIDATION', statusCode: 400, message: /at most 64 KiB/ }
  for (const text of ['x'.repeat(65_537), '\u{1f600}'.repeat(16_385), ...malformedStrings.filter(text => !text.isWellFormed())]) {
    await t.rejects(documents.write('a', 'b', null, text, Date.now() + 60_000), refused)
  }
  t.equal(await documents.read('a', 'b'), null)
})

t.test('a document has a key of its own, which has an end and tells nothing of its name, and no cache watches it', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url })
  await until('changes are watched', [server], () => store.staleness < 500)
  const heard: unknown[] = []
  store.onInvalidate(ids => heard.push(ids))
  const expiresAt = store.now() + 60_000
  await store.documents.write('devices', 'alice', null, 'text', expiresAt)
  const [key = '', ...more] = await server.command('keys', 'tr:v:*') as string[]
  t.match(key, /^tr:v:[\w-]{24}$/)
  t.same(more, [])
  t.equal(await server.command('get', key), 'text')
  t.equal(await server.command('pexpiretime', key), expiresAt)
  await store.documents.write('devices', 'alice', 'text', null, expiresAt)
  t.equal(await server.command('exists', key), 0)
  const { staleness } = store
  await until('a heartbeat more has come back', [server], () => store.staleness < staleness)
  t.same(heard, [])
})

t.test('while Redis is full, documents are deleted and none is written, and what expired is removed', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url, cleanupInterval: 100 })
  const later = store.now() + 60_000
  await store.documents.write('devices', 'alice', null, 'text', later)
  await insert(store, [{ tenant: '', sub: 'alice' }])
  const idle = sessionRecord({ sub: 'bob', idleTimeout: 500 })
  await store.insert([idle], { op: 'op' })
  await server.command('config', 'set', 'maxmemory', 1)
  await t.rejects(store.documents.write('devices', 'alice', 'text', 'another', later), UNAVAILABLE)
  t.equal(await store.documents.read('devices', 'alice'), 'text')
  t.equal(await store.documents.write('devices', 'alice', 'text', null, later), true)
  t.equal(await store.documents.read('devices', 'alice'), null)
  await until('what expired is removed', [server], () => store.figures()['removed'] === 1)
})

t.test('where Redis does not answer, that is said in time', async t => {
  const server = await redisServer(t)
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  for (const store of [await open(t, { url: server.url, commandTimeout: 300 }), await open(t, { client, commandTimeout: 300 })]) {
    await store.documents.write('a', 'b', null, 'text', store.now() + 60_000)
    server.pause()
    for (const ask of [() => store.documents.read('a', 'b'), () => store.documents.write('a', 'b', 'text', null, store.now()), () => subs(store)]) {
      t.match(await ask().then(() => 'an answer', ({ code }) => code), /FST_STORE_(TIMEOUT|UNAVAILABLE)/)
    }
    server.resume()
    await until('it answers again', [server], async () => await store.documents.read('a', 'b') !== '')
    await store.documents.write('a', 'b', 'text', null, store.now())
  }
  const store = await open(t, { url: server.url })
  await server.kill()
  await t.rejects(store.documents.read('a', 'b'), UNAVAILABLE)
  await t.rejects(subs(store), UNAVAILABLE)
})

t.test('keys of others that begin as indexes do are no subjects', async t => {
  const server = await sharedRedis()
  const keyPrefix = newPrefix()
  const store = await open(t, { url: server.url, keyPrefix })
  await insert(store, ['alice', 'bob'].map(sub => ({ tenant: '', sub })))
  for (const name of ['list', '"alice"', '\n"alice"\n', '\n7', '7\n"alice"', '""\n"carol"', '\n "carol"', '\n"c\\u0061rol"']) {
    await server.command('zadd', `${keyPrefix}x:${name}`, '9999999999999', 'theirs')
  }
  await server.command('set', `${keyPrefix}x:\n"dave"`, 'theirs')
  t.same(await subs(store), ['alice', 'bob'])
})

t.test('who was idle until now is not told, though nobody has noticed', async t => {
  const server = await sharedRedis()
  const store = await open(t, { url: server.url, keyPrefix: newPrefix(), cleanupInterval: false })
  await store.insert([sessionRecord({ sub: 'idle', idleTimeout: 100 }), sessionRecord({ sub: 'alice', idleTimeout: 60_000 })], { op: 'op' })
  await until('one is idle', [server], async () => (await subs(store)).length === 1)
  t.same(await subs(store), ['alice'])
  t.equal(store.figures()['removed'], 0)
})

t.test('in a Cluster', async t => {
  const { nodes, servers } = await redisCluster(t, { replicas: 0 })
  const store = await open(t, { nodes })
  const counts = async (pattern: string): Promise<number[]> => await Promise.all(servers.map(async (server: RedisServer) => (await server.command('keys', pattern) as string[]).length))

  await t.test('documents are spread over all primaries', async t => {
    const later = store.now() + 60_000
    await Promise.all(hostileStrings.map(async key => await store.documents.write('a', key, null, key, later)))
    t.ok((await counts('tr:v:*')).every(count => count > hostileStrings.length / 10))
    for (const key of hostileStrings) t.equal(await store.documents.read('a', key), key)
  })

  await t.test('subjects of all primaries are told, more than a page of each', async t => {
    const names = Array.from({ length: 3000 }, (_, i) => `user ${i}`)
    await insert(store, names.map((sub, i) => ({ tenant: i % 3 === 0 ? 'acme' : '', sub })))
    t.ok((await counts('tr:x:*')).every(count => count > 500))
    t.same(await subs(store), names.toSorted())
    t.same(await subs(store, 'acme'), names.filter((_, i) => i % 3 === 0).toSorted())
    // A hash tag that is another subject's: nobody would find that index.
    await Promise.all(servers.map(async server => {
      for (const key of (await server.command('keys', 'tr:x:*') as string[]).slice(0, 3)) await server.command('zadd', key.replace(/\n"user (\d+)"$/, '\n"nobody $1"'), '9999999999999', 'theirs')
    }))
    t.same(await subs(store), names.toSorted())
  })

  await t.test('where a primary is away, that is said', async () => {
    await servers[0]?.kill()
    await until('its end is noticed', servers, async () => await subs(store).then(() => false, ({ code }) => code === 'FST_STORE_UNAVAILABLE' || code === 'FST_STORE_TIMEOUT'))
  })
})
