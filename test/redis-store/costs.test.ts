import { randomBytes } from 'node:crypto'
import { Redis, type Cluster } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStore } from '../../plugins/redis-store/index.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import type { InsertOutcome, SessionLimit, TokenRegistry } from '../../plugins/token-registry/index.ts'
import { build } from '../support/build.ts'
import { RecordedCluster, RecordedRedis, type Recorder } from '../support/recorded.ts'
import { redisCluster, redisServer, sharedRedis } from '../support/redis.ts'
import { revoked } from '../support/rig.ts'

interface Rig {
  store: RedisStore
  registry: TokenRegistry
  client: RecordedRedis | RecordedCluster
  recorder: Recorder
}

/** A registry on a client whose commands are counted, under keys of its own. */
async function rig (t: Test, client: RecordedRedis | RecordedCluster, keyPrefix = `${randomBytes(6).toString('base64url')}:`): Promise<Rig> {
  t.teardown(() => client.disconnect())
  const store = await createRedisStore({ client, keyPrefix, commandTimeout: '20s' }, (_error, message) => t.comment(message))
  t.teardown(async () => await store.close())
  const { tokenRegistry: registry } = await build(t, { store })
  return { store, registry, client, recorder: client.recorder }
}

async function standalone (t: Test): Promise<Rig> {
  return await rig(t, new RecordedRedis((await sharedRedis()).url))
}

const cluster = redisCluster(t, { replicas: 0 })

async function clustered (t: Test): Promise<Rig> {
  return await rig(t, new RecordedCluster([...(await cluster).nodes]))
}

function adopted (count: number): string[] {
  return Array.from({ length: count }, () => randomBytes(32).toString('hex'))
}

/** The servers learn the scripts. */
async function warm (registry: TokenRegistry): Promise<void> {
  for (let i = 0; i < 50; i++) {
    const { token } = await registry.issue({ sub: `user-${i}` })
    await registry.rotate(token)
    await registry.revoke(token)
  }
  await registry.saveBatch(adopted(100).map(token => ({ token, data: { sub: 'alice' } })))
}

function primariesOf (client: Redis | Cluster): Redis[] {
  return client instanceof Redis ? [client] : client.nodes('master')
}

/** Everything below the prefix, and the ms that it lives. */
async function keysOf (primaries: readonly Redis[], prefix: string): Promise<Map<string, number>> {
  const keys = new Map<string, number>()
  for (const primary of primaries) {
    let cursor = '0'
    do {
      const [next, found] = await primary.scan(cursor, 'MATCH', `${prefix}*`, 'COUNT', 1000)
      for (const key of found) keys.set(key, await primary.pttl(key))
      cursor = next
    } while (cursor !== '0')
  }
  return keys
}

t.test('an operation waits for Redis once', async t => {
  const { registry, recorder } = await standalone(t)
  await warm(registry)
  const { token } = await registry.issue({ sub: 'alice' })
  const code = await registry.issue({ sub: 'alice', use: 'once' })
  const one = { commands: ['evalsha'], trips: 1 }
  t.same(await recorder.record(() => registry.issue({ sub: 'alice' })), one, 'issue')
  t.same(await recorder.record(() => registry.rotate(token)), one, 'rotate')
  t.same(await recorder.record(() => registry.consume(code.token)), one, 'consume')
  t.same(await recorder.record(() => registry.save(randomBytes(32).toString('hex'), { sub: 'alice' })), one, 'save')
  t.same(await recorder.record(() => registry.saveBatch(adopted(500).map(token => ({ token, data: { sub: 'alice' } })))), one, 'saveBatch of one subject')
  const batch = adopted(500).map((token, i) => ({ token, data: { sub: `user-${i}` } }))
  t.same(await recorder.record(() => registry.saveBatch(batch)), { commands: Array(500).fill('evalsha'), trips: 1 }, 'saveBatch of 500 subjects')
  t.same(await recorder.record(() => registry.revoke(token)), one, 'revoke')
  const other = await registry.issue({ sub: 'alice' })
  t.same(await recorder.record(() => registry.verify(other.token)), { commands: ['mget'], trips: 1 }, 'verify of what is not cached: a plain read')
})

t.test('sessions that are asked for at once are read together', async t => {
  const { registry, store, recorder } = await standalone(t)
  const issued = await Promise.all(range(250).map(async i => await registry.issue({ sub: `user-${i}` })))
  const found: string[] = []
  t.same(await recorder.record(async () => {
    for (const { session } of await Promise.all(issued.map(async ({ token }) => await registry.verify(token)))) found.push(session.sub)
  }), { commands: ['mget', 'mget', 'mget'], trips: 1 }, 'a hundred by a command')
  t.same(found, range(250).map(i => `user-${i}`), 'and each gets its own')

  const { token, session: { id } } = issued[0] ?? { token: '', session: { id: '' } }
  await registry.revoke(token)
  t.same(await recorder.record(async () => {
    t.same((await Promise.all([store.get(id), store.ending(id), store.get('of nobody'), store.get('A'.repeat(24))])).map(one => one && 'reason' in one ? one.reason : one), [null, 'revoked', null, null])
  }), { commands: ['mget'], trips: 1 }, 'endings too')
})

t.test('in a Cluster an operation waits once too, and twice for what concerns an adopted token', async t => {
  const { registry, recorder } = await clustered(t)
  await warm(registry)
  const { token } = await registry.issue({ sub: 'alice' })

  const one = { commands: ['evalsha'], trips: 1 }
  t.same(await recorder.record(() => registry.issue({ sub: 'alice' })), one, 'issue')
  t.same(await recorder.record(() => registry.rotate(token)), one, 'rotate')
  t.same(await recorder.record(() => registry.revoke(token)), one, 'revoke')
  const batch = adopted(500).map((token, i) => ({ token, data: { sub: `user-${i}` } }))
  const { commands, trips } = await recorder.record(() => registry.saveBatch(batch))
  t.equal(trips, 2, 'saveBatch of 500 adopted tokens: where they will be, then what they are')
  t.equal(commands.length, 1000)
  const [{ token: known = '' } = {}] = batch
  t.same(await recorder.record(() => registry.verify(known)), { commands: ['mget', 'mget'], trips: 2 }, 'verify: where it is, then what it is')
  t.same(await recorder.record(() => registry.revoke(known)), { commands: ['evalsha', 'evalsha'], trips: 2 }, 'revoke')
})

t.test('what Redis keeps of 100,000 sessions, and the end of 10,000 amid them', async t => {
  const server = await redisServer(t)
  const { registry, store } = await rig(t, new RecordedRedis(server.url), 'tr:')
  const info = async (): Promise<number> => Number(/used_memory:(\d+)/.exec(String(await server.command('INFO', 'memory')))?.[1])

  /** Four of each subject, with 300 bytes of meta. */
  async function saveAll (from: number, count: number): Promise<void> {
    const tokens = adopted(count)
    for (let i = 0; i < count; i += 4000) {
      await registry.saveBatch(tokens.slice(i, i + 4000).map((token, j) => ({ token, data: { sub: `user-${Math.floor((from + i + j) / 4)}`, meta: metaOf(from + i + j) } })))
    }
  }
  // Scripts, buffers and connections are there before.
  await saveAll(0, 4000)
  const before = await info()
  await saveAll(4000, 100_000)
  const bytes = (await info() - before) / 100_000
  t.comment(`${bytes.toFixed(0)} bytes a session, 300 of them meta`)
  // A value of up to 378 bytes takes 384: the next one takes 448.
  t.ok(bytes <= 600, `${bytes} bytes a session`)

  const issued = []
  for (let i = 0; i < 10; i++) issued.push(...await Promise.all(Array.from({ length: 1000 }, async () => await registry.issue({ sub: 'everywhere' }))))
  const [{ token, session } = { token: '', session: { id: '' } }] = issued
  await registry.verify(token)
  await server.command('CONFIG', 'SET', 'slowlog-log-slower-than', 200, 'slowlog-max-len', 10_000)
  await server.command('SLOWLOG', 'RESET')
  const began = performance.now()
  t.equal(await registry.revokeAll({ sub: 'everywhere' }), 10_000)
  const ms = performance.now() - began
  await t.rejects(registry.verify(token), revoked)

  const slowest = Math.max(200, ...(await server.command('SLOWLOG', 'GET', 10_000) as Array<[number, number, number]>).map(([, , micros]) => micros)) // number, time, µs
  t.comment(`revokeAll of 10,000 sessions amid 100,000: ${ms.toFixed(1)} ms, the longest command ${(slowest / 1000).toFixed(2)} ms`)
  t.equal(await registry.count({ sub: 'everywhere' }), 0)
  t.same(await registry.list({ sub: 'everywhere' }), { sessions: [], cursor: null })
  t.equal((await registry.explain(session.id))?.reason, 'revoked')
  const left = await Promise.all(issued.map(async ({ session }) => await store.get(session.id)))
  t.same(left.filter(session => session !== null), [], 'none lives')
  t.equal(await registry.count({ sub: 'user-7' }), 4, 'others do')
})

t.test('among 10,000 sessions of one subject a limit reads no more than among ten, also where each insert ends another', async t => {
  const server = await redisServer(t)
  const { store } = await rig(t, new RecordedRedis(server.url), 'tr:')
  const read = async (): Promise<number> => [...String(await server.command('INFO', 'stats')).matchAll(/keyspace_(?:hits|misses):(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0)
  const insert = async (count: number, sub: string, limits: SessionLimit[] = []): Promise<InsertOutcome> => {
    const op = randomBytes(9).toString('base64url')
    return await store.insert(Array.from({ length: count }, () => sessionRecord({ sub, issuedAt: store.now(), lastUsedAt: store.now(), groups: ['g'], op })), { limits, op })
  }
  for (const onExceed of ['refuse', 'end-oldest', 'end-least-recently-used'] as const) {
    for (const group of [{}, { group: 'g' }]) {
      const sub = `${onExceed} ${Object.keys(group).length}`
      for (let i = 0; i < 20; i++) await insert(500, sub)
      const [roomy, full] = [[{ name: 'many', max: 20_000, onExceed, ...group }], [{ name: 'all', max: 10_010, onExceed, ...group }]]
      await insert(10, sub, roomy)
      const times = 50
      const keys = [await read()]
      for (let i = 0; i < times; i++) await insert(1, `${sub}, another's`)
      keys.push(await read())
      for (let i = 0; i < times; i++) t.equal((await insert(1, sub, full)).evicted.length, onExceed === 'refuse' ? 0 : 1)
      keys.push(await read())
      const [plain = 0, limited = 0] = keys.slice(1).map((count, index) => (count - Number(keys[index])) / times)
      t.comment(`${sub}: ${plain} keys are looked at for an insert, ${limited} for one with a limit`)
      t.ok(limited < plain + 12, 'a few keys, however many sessions there are')
    }
  }

  // Uses cost the next insert a little each, once.
  const { sessions } = await store.find({ tenant: '', sub: 'end-least-recently-used 0' }, { limit: 500 })
  const lru = [{ name: 'all', max: 10_010, onExceed: 'end-least-recently-used' as const }]
  await store.touch(sessions.map(({ id }) => ({ id, at: store.now() + 1000 })))
  await insert(1, 'end-least-recently-used 0', lru)
  const before = await read()
  await insert(1, 'end-least-recently-used 0', lru)
  t.ok(await read() - before < 40)
})

/** 300 bytes as JSON, and like no other. */
function metaOf (i: number): { ipAddress: string, userAgent: string, note: string } {
  const meta = { ipAddress: `10.${i >> 16 & 255}.${i >> 8 & 255}.${i & 255}`, userAgent: 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', note: '' }
  return { ...meta, note: String(i).padEnd(300 - JSON.stringify(meta).length, '.') }
}

for (const [where, open] of [['standalone', standalone], ['in a Cluster', clustered]] as const) {
  t.test(`no key is without an end, at no time, ${where}`, async t => {
    const own = await open(t)
    const { registry, store, recorder } = own
    const prefix = await prefixOf(own)
    const observers = primariesOf(own.client).map(primary => primary.duplicate())
    t.teardown(() => observers.forEach(observer => observer.disconnect()))
    const seen = new Set<string>()
    recorder.afterRound = async () => {
      for (const [key, ttl] of await keysOf(observers, prefix)) {
        // -2: it was gone when it was looked at.
        if (ttl < 0 && ttl !== -2) t.fail(`${JSON.stringify(key)} has no end`)
        seen.add(key.slice(prefix.length).split(':')[0] ?? '')
      }
    }
    await recorder.record(async () => {
      const { token, session } = await registry.issue({ sub: 'alice', ttl: '1h', idleTimeout: '10m' })
      const { token: next } = await registry.rotate(token)
      await registry.verify(next)
      await store.touch([{ id: session.id, at: store.now() + 1 }])
      await registry.update(session.id, { meta: { deviceId: 'phone' }, idleTimeout: '20m' })
      const code = await registry.issue({ sub: 'alice', use: 'once', ttl: '10m' })
      await registry.consume(code.token)
      for (let i = 0; i < 2; i++) await registry.issue({ sub: 'alice', origin: code.session.id })
      await t.rejects(registry.consume(code.token), { code: 'FST_TOKEN_REUSED' })
      await registry.saveBatch(adopted(3).map(token => ({ token, data: { sub: 'alice' } })))
      await registry.issue({ sub: 'alice', use: 'once' })
      await registry.denylist.add('jti', store.now() + 60_000)
      await registry.revoke(next)
      await registry.issue({ sub: 'alice', ttl: '2h' })
      for (const onExceed of ['end-oldest', 'end-least-recently-used'] as const) {
        const counted = (count: number, groups: string[]) => Array.from({ length: count }, () => sessionRecord({ sub: 'bob', issuedAt: store.now(), lastUsedAt: store.now(), groups }))
        const limits = [{ name: 'many', max: 140, onExceed, group: 'g' }, { name: 'all', max: 1000, onExceed: 'refuse' as const, group: 't-all', across: 'tenant' as const }]
        await store.insert(counted(140, ['g', 't-all']), { op: onExceed, limits })
        await store.insert(counted(1, ['g', 't-all']), { op: `${onExceed}, another`, limits })
      }
      t.equal(await registry.revokeAll({ sub: 'alice', except: [session.id] }), 4)
      await registry.list({ sub: 'alice' })
    })
    t.ok(['s', 'u', 'x', 'o', 'g', 'ga', 'gu', 't', 'c', 'd', 'p'].every(kind => seen.has(kind)), `all kinds of keys were seen: ${[...seen].join(' ')}`)
  })

  t.test(`scripts that a server forgets are sent again, ${where}`, async t => {
    const { registry, client } = await open(t)
    const { token } = await registry.issue({ sub: 'alice' })
    const done = new AbortController()
    const forget = (async () => {
      while (!done.signal.aborted) await Promise.all(primariesOf(client).map(async primary => await primary.script('FLUSH')))
    })()
    let last = token
    for (let i = 0; i < 20; i++) {
      last = (await registry.rotate(last)).token
      await Promise.all(adopted(10).map(async token => await registry.save(token, { sub: 'alice' })))
    }
    done.abort()
    await forget
    t.equal((await registry.get(last))?.generation, 20)
    t.equal(await registry.count({ sub: 'alice' }), 201)
    t.equal(await registry.revokeAll({ sub: 'alice' }), 201)
  })
}

t.test('a value that cannot be read fails for its session alone, and is counted', async t => {
  const { registry, store, client } = await standalone(t)
  const corrupt = { code: 'FST_STORE_CORRUPT', statusCode: 500, critical: true }
  const { token: good, session: healthy } = await registry.issue({ sub: 'alice', meta: { deviceId: 'phone' } })

  /** A session of alice whose value is replaced. */
  async function broken (change: (value: string, key: string) => unknown): Promise<{ token: string, id: string }> {
    const { token, session: { id } } = await registry.issue({ sub: 'alice', meta: { deviceId: 'phone' }, idleTimeout: '1h', scope: ['read'] })
    const [key = ''] = await client.keys(`*${id}`)
    await change(await client.get(key) ?? '', key)
    return { token, id }
  }
  const set = (changed: (value: string) => string) => async (value: string, key: string) => await client.set(key, changed(value), 'KEEPTTL')
  /** Replaces a part of the first line, or one of the lines that follow. */
  const part = (index: number) => set(value => value.replace(/^.*/, head => head.split(' ').with(index, 'x').join(' ')))
  const line = (index: number, text = '{x') => set(value => value.split('\n').with(index, text).join('\n'))
  const damages: ReadonlyArray<readonly [string, (value: string, key: string) => unknown]> = [
    ['garbage', set(() => 'garbage')],
    ['nothing', set(() => '')],
    ['bytes', async (_, key) => await client.set(key, randomBytes(300), 'KEEPTTL')],
    ...range(60).map(i => [`the first ${i} %`, set(value => value.slice(0, value.length * i / 100))] as const),
    ...range(10).map(i => [`part ${i}`, part(i)] as const),
    ...range(10).flatMap(i => [[`line ${i + 1}`, line(i + 1)] as const, [`a number in line ${i + 1}`, line(i + 1, '7')] as const])
  ]
  for (const [what, change] of damages) {
    const { token, id } = await broken(change)
    const before = store.corrupt
    await t.rejects(registry.verify(token), corrupt, `verify: ${what}`)
    await t.rejects(registry.getById(id), corrupt, `get: ${what}`)
    t.equal(store.corrupt, before + 2, 'each time it is counted')

    t.same((await registry.list({ sub: 'alice' })).sessions.map(({ id }) => id), [healthy.id], `list: ${what}`)
    t.equal(await registry.count({ sub: 'alice', deviceId: 'phone' }), 1, `count: ${what}`)
    const { inserted, refused } = await store.insert([{ ...healthy, id: `${healthy.id.slice(0, 4)}${randomBytes(15).toString('base64url')}`, op: id }], {
      op: id, limits: [{ name: 'three', max: 3, onExceed: 'refuse' }]
    })
    t.same([inserted.length, refused], [1, []], `limits: ${what}`)
    t.equal((await registry.verify(good)).session.id, healthy.id)
    // What they replace may be what is damaged.
    for (const change of [() => registry.rotate(token), () => registry.update(id, { meta: {} })]) {
      const counted = store.corrupt
      const code = await change().then(() => null, error => error.code)
      t.ok(code === null || code === 'FST_TOKEN_INVALID' || (code === corrupt.code && store.corrupt === counted + 1), `${change}: ${what}, ${code}`)
    }
    // Scripts do not read all of a record: they end some that cannot be shown.
    t.ok([1, 2].includes(await registry.revokeAll({ sub: 'alice', except: [healthy.id] })), `revokeAll: ${what}`)
    t.equal(await registry.getById(id).catch(error => error.code === corrupt.code ? null : error), null, 'it is not there any more')
    t.equal(await registry.count({ sub: 'alice' }), 1)
  }
  const { token, id } = await broken(async (_, key) => await client.multi().del(key).lpush(key, 'x').pexpire(key, 60_000).exec())
  await t.rejects(registry.verify(token), corrupt, 'another type')
  await t.rejects(registry.explain(id), corrupt)
  t.same((await registry.list({ sub: 'alice' })).sessions.map(({ id }) => id), [healthy.id])
  t.equal(await registry.revokeAll({ sub: 'alice' }), 1)
  t.equal(await registry.count({ sub: 'alice' }), 0)
})

function range (count: number): number[] {
  return Array.from({ length: count }, (_, i) => i)
}

/** The prefix of a rig's keys. */
async function prefixOf ({ registry, client }: Rig): Promise<string> {
  const { session } = await registry.issue({ sub: 'somebody' })
  for (const primary of primariesOf(client)) {
    const [key] = await primary.keys(`*${session.id.slice(4)}`)
    if (key !== undefined) return key.slice(0, key.indexOf(':') + 1)
  }
  throw new Error('it was not stored')
}
