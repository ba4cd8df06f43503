import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import { STORED_WITHIN } from '../../plugins/redis-store/places.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import type { InsertOptions, InsertOutcome, SessionLimit, SessionRecord } from '../../plugins/token-registry/index.ts'
import { deferred, type Deferred } from '../support/deferred.ts'
import { RecordedRedis } from '../support/recorded.ts'
import { newPrefix } from '../support/redis-store.ts'
import { redisCluster, redisServer, sharedRedis, until, type RedisServer } from '../support/redis.ts'

/** ms after which a place that no session has is free */
const FREE_AFTER = 5000
const group = 't-all'
const because = () => ({ reason: 'revoked', by: null, op: randomUUID() })
const atMost = (max: number, more: Partial<SessionLimit> = {}): SessionLimit => ({ name: 'all', max, onExceed: 'refuse', group, across: 'tenant', ...more })

/** A client whose commands wait where a test wants that: as in a process that is stopped at this very moment. */
class Holding extends Redis {
  /** Chooses by the arguments of a script. */
  holds: (args: readonly string[]) => boolean = () => false
  readonly reached: Array<Deferred<void>> = []

  override sendCommand (...sent: Parameters<Redis['sendCommand']>): unknown {
    const [{ name, args }] = sent
    if (!name.startsWith('eval') || !this.holds(args.map(String))) return super.sendCommand(...sent)
    const goOn = deferred()
    this.reached.push(goOn)
    return goOn.promise.then(() => super.sendCommand(...sent))
  }
}

const stores = (args: readonly string[]): boolean => args.some(arg => arg.startsWith('s 0 '))
const counts = (args: readonly string[]): boolean => /^[^:]*:t:/.test(String(args[2]))

async function open (t: Test, options: RedisStoreOptions): Promise<RedisStore> {
  const store = await createRedisStore({ cleanupInterval: false, ...options })
  t.teardown(async () => await store.close())
  return store
}

interface Bench {
  store: RedisStore
  /** As another instance. */
  other: RedisStore
  client: Redis
  keyPrefix: string
}

async function bench (t: Test, options: Partial<RedisStoreOptions> = {}): Promise<Bench> {
  const [{ url }, keyPrefix] = [await sharedRedis(), newPrefix()]
  const client = new Redis(url)
  t.teardown(() => client.disconnect())
  return { store: await open(t, { url, keyPrefix, ...options }), other: await open(t, { url, keyPrefix, ...options }), client, keyPrefix }
}

/** One whose commands can be held, beside another. */
async function holding (t: Test): Promise<Bench & { client: Holding }> {
  const [{ url }, keyPrefix] = [await sharedRedis(), newPrefix()]
  const client = new Holding(url)
  t.teardown(() => client.disconnect())
  return { store: await open(t, { client, keyPrefix, commandTimeout: '20s' }), other: await open(t, { url, keyPrefix }), client, keyPrefix }
}

function record (store: RedisStore, draft: Partial<SessionRecord> = {}): SessionRecord {
  const issuedAt = store.now()
  return sessionRecord({ sub: randomUUID(), groups: [group], issuedAt, lastUsedAt: issuedAt, expiresAt: issuedAt + 3_600_000, ...draft })
}

async function insert (store: RedisStore, records: readonly SessionRecord[], limits: SessionLimit[], options: Partial<InsertOptions> = {}): Promise<InsertOutcome> {
  const op = randomUUID()
  return await store.insert(records.map(one => ({ ...one, op })), { limits, op, ...options })
}

async function later (store: RedisStore, ms: number): Promise<void> {
  const then = store.now() + ms
  while (store.now() < then) await setTimeout(then - store.now())
}

/** Whether one more is let in. */
async function letsIn (store: RedisStore, max: number, draft: Partial<SessionRecord> = {}): Promise<boolean> {
  const { inserted, refused } = await insert(store, [record(store, draft)], [atMost(max)])
  for (const refusal of refused) if (refusal.reason !== 'limit') throw new Error(refusal.reason)
  return inserted.length === 1
}

async function fill (store: RedisStore, max: number, draft: Partial<SessionRecord> = {}): Promise<SessionRecord[]> {
  const outcomes = await Promise.all(Array.from({ length: max }, async () => await insert(store, [record(store, draft)], [atMost(max)])))
  return outcomes.flatMap(({ inserted }) => inserted)
}

async function placesOf ({ client, keyPrefix }: Bench): Promise<string[]> {
  const keys = await client.keys(`${keyPrefix}t:*`)
  return (await Promise.all(keys.map(async key => await client.zrange(key, '0', '-1')))).flat()
}

/** Checks at every moment until it is stopped that no more live than may. */
function watch (t: Test, store: RedisStore, max: number): () => Promise<void> {
  const over = new AbortController()
  let [looks, most] = [0, 0]
  const watching = (async () => {
    while (!over.signal.aborted) {
      most = Math.max(most, await store.count({ tenant: '' }))
      looks++
    }
  })()
  return async () => {
    over.abort()
    await watching
    t.ok(most <= max, `at most ${most} in ${looks} looks`)
  }
}

async function rush (t: Test, instances: readonly RedisStore[]): Promise<void> {
  const [first] = instances as [RedisStore]
  const stop = watch(t, first, 20)
  const ended: string[] = []
  const signIn = async (i: number): Promise<void> => {
    const store = instances[i % instances.length] as RedisStore // there are some
    const adopted = i % 5 === 0 ? { id: randomBytes(18).toString('base64url') } : {}
    const { inserted: [session] } = await insert(store, [record(store, adopted)], [atMost(20)])
    // Some leave again: who comes then takes their place.
    if (session !== undefined && i % 4 === 0) ended.push(...(await store.end([session.id], because())).map(({ id }) => id))
  }
  await Promise.all(Array.from({ length: 100 }, async (_, i) => await signIn(i)))
  t.ok(ended.length > 0)
  // What is given back in the background is taken again.
  await until('every place is taken', [], async () => !await letsIn(first, 20) && await first.count({ tenant: '' }) === 20)
  t.equal(await letsIn(first, 20), false)
  await stop()
}

/** Everybody in a full tenant signs in again and again, and strangers try to. */
async function replacing (t: Test, instances: readonly RedisStore[]): Promise<void> {
  const [first] = instances as [RedisStore]
  const store = (i: number): RedisStore => instances[i % instances.length] as RedisStore // there are some
  const limits = [atMost(20), { name: 'own', max: 1, onExceed: 'end-oldest' } as const]
  for (let i = 0; i < 20; i++) await insert(first, [record(first, { sub: `user ${i}` })], limits)
  const outcomes: InsertOutcome[] = []
  for (let round = 0; round < 5; round++) {
    outcomes.push(...await Promise.all(Array.from({ length: 100 }, async (_, i) => await insert(store(i), [record(store(i), { sub: `user ${i % 20}` })], limits))))
  }
  const strangers = await Promise.all(Array.from({ length: 20 }, async (_, i) => await letsIn(store(i), 20)))
  // In one step each: there are never more.
  t.ok(outcomes.every(({ inserted, evicted }) => inserted.length === 1 && evicted.length === 1))
  t.notOk(strangers.some(letIn => letIn))
  t.equal(await first.count({ tenant: '' }), 20)
}

t.test('of 100 subjects at once on three instances exactly as many are let in as may, and never more live', async t => {
  const { url } = await sharedRedis()
  const keyPrefix = newPrefix()
  await rush(t, [await open(t, { url, keyPrefix }), await open(t, { url, keyPrefix }), await open(t, { url, keyPrefix })])
})

t.test('in a full one everybody is let in who ends a session of their own, and never more live', async t => {
  const { url } = await sharedRedis()
  const keyPrefix = newPrefix()
  await replacing(t, [await open(t, { url, keyPrefix }), await open(t, { url, keyPrefix }), await open(t, { url, keyPrefix })])
})

t.test('it is so in a Cluster, whose primaries each keep some of them', async t => {
  const { nodes } = await redisCluster(t, { replicas: 0 })
  const keyPrefix = newPrefix()
  const instances = [await open(t, { nodes, keyPrefix }), await open(t, { nodes, keyPrefix }), await open(t, { nodes, keyPrefix })] as const
  await rush(t, instances)
  for (const { sub } of (await instances[0].find({ tenant: '' }, { limit: 100 })).sessions) await instances[0].endAll({ tenant: '', sub }, because())
  await until('all places are free', [], async () => (await insert(instances[0], Array.from({ length: 20 }, () => record(instances[0], { sub: 'all' })), [atMost(20)])).inserted.length === 20)
  await instances[0].endAll({ tenant: '', sub: 'all' }, because())
  await replacing(t, instances)
  const [store, other] = instances
  const adopted = await fill(store, 3, { tenant: 'adopted', id: randomBytes(18).toString('base64url') })
  t.equal(adopted.length, 1, 'an id is taken once')
  await until('the places of the others to be given back', [], async () => await letsIn(other, 2, { tenant: 'adopted' }))
  await store.end(adopted.map(({ id }) => id), because())
  await until('that place to be given back', [], async () => await letsIn(other, 2, { tenant: 'adopted' }))
  t.equal(await letsIn(other, 2, { tenant: 'adopted' }), false)
})

t.test('a limit of a tenant costs a round trip more', async t => {
  const client = new RecordedRedis((await sharedRedis()).url)
  t.teardown(() => client.disconnect())
  const store = await open(t, { client, keyPrefix: newPrefix() })
  const one = async (limits: SessionLimit[], groups: string[] = []): Promise<unknown> => await client.recorder.record(async () => await insert(store, [record(store, { groups })], limits))
  await one([atMost(9)], [group])
  await one([])
  t.same(await one([atMost(9)], [group]), { commands: ['evalsha', 'evalsha'], trips: 2 })
  t.same(await one([atMost(9), atMost(9, { group: 't-b' })], [group, 't-b']), { commands: ['evalsha', 'evalsha', 'evalsha'], trips: 2 }, 'several at once')
  t.same(await one([atMost(9)]), { commands: ['evalsha'], trips: 1 }, 'not for what it does not count')
  t.same(await one([{ name: 'own', max: 9, onExceed: 'refuse' }]), { commands: ['evalsha'], trips: 1 }, 'nor one of the subject')
})

t.test('a place that was taken for a session that never came is free again', async t => {
  const { store, other, client } = await holding(t)
  t.equal(await letsIn(other, 2), true)
  client.holds = stores
  insert(store, [record(store)], [atMost(2)]).catch(() => {})
  await until('its place is taken', [], () => client.reached.length === 1)
  const began = performance.now()
  t.equal(await letsIn(other, 2), false, 'it may come yet')
  await until('another has it', [], async () => await letsIn(other, 2))
  t.ok(performance.now() - began < FREE_AFTER, `after ${(performance.now() - began).toFixed(0)} ms`)
  t.equal(await letsIn(other, 2), false)
})

t.test('who is stopped between taking a place and storing does not store into what was given away', async t => {
  const { store, other, client } = await holding(t)
  client.holds = stores
  const held = insert(store, [record(store)], [atMost(1)])
  await until('its place is taken', [], () => client.reached.length === 1)
  await until('another has it', [], async () => await letsIn(other, 1))
  client.reached[0]?.resolve()
  await until('it tries again', [], () => client.reached.length === 2)
  client.reached[1]?.resolve()
  t.match(await held, { inserted: [], refused: [{ reason: 'limit', count: 1 }] })
  t.equal(await other.count({}), 1)

  await other.end((await other.find({}, { limit: 9 })).sessions.map(({ id }) => id), because())
  const again = insert(store, [record(store)], [atMost(1)])
  await until('its place is taken', [], () => client.reached.length === 3)
  await later(store, STORED_WITHIN + 100)
  client.reached[2]?.resolve()
  await until('it tries again', [], () => client.reached.length === 4)
  client.reached[3]?.resolve()
  t.match(await again, { inserted: [{}], refused: [] }, 'where nobody took the place it is let in')
})

t.test('who is stopped twice is told that it failed, and keeps no place', async t => {
  const { store, other, client } = await holding(t)
  client.holds = stores
  const held = insert(store, [record(store)], [atMost(1)])
  for (let times = 0; times < 2; times++) {
    await until('its place is taken', [], () => client.reached.length === times + 1)
    await later(store, STORED_WITHIN + 100)
    client.reached[times]?.resolve()
  }
  await t.rejects(held, { code: 'FST_STORE_TIMEOUT', critical: true })
  await until('its place to be given back', [], async () => await letsIn(other, 1))
})

t.test('what is repeated takes no second place, and gets its first answer though all places are taken', async t => {
  const { store, other } = await bench(t)
  const one = { ...record(store), op: 'op' }
  const options = { limits: [atMost(1)], op: 'op' }
  const first = await store.insert([one], options)
  t.equal(first.inserted.length, 1)
  t.same(await other.insert([one], options), first)
  await store.end([one.id], because())
  await until('its place to be given back', [], async () => await letsIn(other, 1))
  t.same(await store.insert([one], options), first, 'also when it has ended, and another has its place')
  t.equal(await letsIn(other, 1), false)
  t.match((await insert(store, [record(store, { id: one.id, sub: one.sub })], [atMost(1)])).refused, [{ reason: 'exists' }], 'an id that is taken comes first')
})

t.test('what is refused gives back no place that another attempt of it has taken', async t => {
  const { store, other, client } = await holding(t)
  const one = { ...record(store), op: 'op' }
  const own: SessionLimit = { name: 'own', max: 1, onExceed: 'refuse' }
  const [living] = (await insert(store, [record(store, { sub: one.sub, groups: [] })], [])).inserted
  // Both are under way; what one was refused is free when the other stores.
  client.holds = stores
  const late = store.insert([one], { limits: [atMost(1), own], op: 'op' })
  await until('its place is taken', [], () => client.reached.length === 1)
  t.match(await other.insert([one], { limits: [atMost(1), own], op: 'op' }), { refused: [{ limit: own }] })
  await other.end([String(living?.id)], because())
  client.reached[0]?.resolve()
  t.match(await late, { inserted: [{ id: one.id }] })
  t.equal(await letsIn(other, 1), false)
})

t.test('whatever ends a session gives back its place at once', async t => {
  const own = await bench(t)
  const { store, other } = own
  const ends: Record<string, (session: SessionRecord) => unknown> = {
    end: async ({ id }) => await store.end([id], because()),
    endAll: async ({ tenant, sub }) => await store.endAll({ tenant, sub }, because()),
    'endAll that tells': async ({ tenant, sub }) => await store.endAll({ tenant, sub }, because(), () => {}),
    'another in its place': async ({ sub }) => await insert(store, [record(store, { sub, groups: [] })], [{ name: 'own', max: 1, onExceed: 'end-oldest' }]),
    'another that names it': async ({ id, sub }) => await insert(store, [record(store, { sub, groups: [] })], [], { endOthers: [id] }),
    'being brought within limits': async ({ tenant, sub }) => await insert(store, [], [{ name: 'own', max: 0, onExceed: 'refuse' }], { subject: { tenant, sub } }),
    reuse: async ({ id }) => {
      for (const generation of [0, 1, 0]) await store.rotate(id, { once: false, generation, kid: 1, binding: null, reuseWindow: 0, by: null }, randomUUID())
    },
    'another group': async ({ id }) => await store.update(id, { groups: ['a'] })
  }
  for (const [name, end] of Object.entries(ends)) {
    const [session] = await fill(store, 1)
    t.ok(session, name)
    if (session === undefined) continue
    await end(session)
    await until('its place is free', [], async () => (await placesOf(own)).length === 0)
    t.equal(await letsIn(other, 1), true, name)
    await other.end(await placesOf(own), because())
    await until('all are free', [], async () => (await placesOf(own)).length === 0)
  }
})

t.test('a session that has expired gives back its place when that is noticed, also by who needs one', async t => {
  const own = await bench(t)
  const { store, other, client, keyPrefix } = own
  const [brief] = await fill(store, 1, { expiresAt: store.now() + 100 })
  await until('it has expired', [], async () => await store.get(String(brief?.id)) === null)
  await until('its place is free', [], async () => (await placesOf(own)).length === 0)

  await fill(store, 1, { expiresAt: store.now() + 100 })
  const told: string[] = []
  other.onExpire(({ id }) => told.push(id))
  // As after 4 s.
  const [key = ''] = await client.keys(`${keyPrefix}t:*`)
  const [id = ''] = await placesOf(own)
  await later(store, 150)
  await client.zadd(key, '1', id)
  t.equal(await letsIn(other, 1), true, 'nobody had noticed')
  t.same(told, [id])
})

t.test('places that nobody has looked at for a while are looked at by who finds none', async t => {
  const own = await bench(t)
  const { store, other, client, keyPrefix } = own
  const sessions = await fill(store, 4)
  const [key = ''] = await client.keys(`${keyPrefix}t:*`)
  const forget = async (...ids: Array<string | undefined>): Promise<void> => { for (const id of ids) await client.zadd(key, '1', String(id)) }
  const [ended, damaged, moved, lives] = sessions.map(({ id }) => id)
  await client.del(`${keyPrefix}s:${ended}`)
  await client.set(`${keyPrefix}s:${damaged}`, 'garbage', 'KEEPTTL')
  await client.set(`${keyPrefix}s:${moved}`, String(await client.get(`${keyPrefix}s:${moved}`)).replace(group, 't-other'), 'KEEPTTL')

  t.equal(await letsIn(store, 4), false, 'they are believed')
  await forget(lives, damaged)
  t.equal(await letsIn(store, 4), false, 'what lives, or may, keeps its place')
  await forget(ended, moved)
  t.equal(await letsIn(other, 4), true)
  t.equal(await letsIn(other, 4), true)
  t.equal(await letsIn(other, 4), false)
  t.same((await placesOf(own)).includes(String(damaged)), true)

  // Of very many, some at a time.
  await client.zadd(key, ...Array.from({ length: 1200 }, () => ['1', randomBytes(18).toString('base64url')]).flat())
  t.equal(await letsIn(other, 5), true, 'all are found that are dead')
  t.equal((await placesOf(own)).length, 5)
})

t.test('who finds only places of those who live gives up after a while', async t => {
  const { store, client, keyPrefix } = await bench(t)
  const sub = 'everywhere'
  await insert(store, Array.from({ length: 2200 }, () => record(store, { sub })), [])
  const [key = ''] = await client.keys(`${keyPrefix}t:*`)
  const ids = await client.zrange(key, '0', '-1')
  t.equal(ids.length, 2200, 'they take places without a limit')
  await client.zadd(key, ...ids.flatMap(id => ['1', id]))
  const dead = randomBytes(18).toString('base64url')
  await client.zadd(key, '2', dead)
  t.equal(await letsIn(store, 2201), false, 'it looked at 2000')
  t.equal(await letsIn(store, 2201), true, 'the next one looks at the others')
})

t.test('a session takes the places of the groups that it is given, and leaves those of others', async t => {
  const own = await bench(t)
  const { store, other, client, keyPrefix } = own
  const [session] = (await insert(store, [record(store, { groups: [] })], [])).inserted
  const id = String(session?.id)
  await fill(store, 1)
  t.match(await store.update(id, { groups: [group, 'a'] }), { groups: [group, 'a'] }, 'whatever the limit is')
  t.equal((await placesOf(own)).length, 2)
  t.equal(await letsIn(other, 2), false)
  t.match(await store.update(id, { groups: [group] }), { groups: [group] })
  t.equal((await placesOf(own)).length, 2)
  await t.rejects(store.update(id, { groups: [group, 't-b'] }, 7), { code: 'FST_SESSION_CONFLICT' })
  await until('what was taken for it is given back', [], async () => (await placesOf(own)).length === 2)
  await store.update(id, { groups: [] })
  t.equal((await placesOf(own)).length, 1)
  t.equal(await store.update(record(store).id, { groups: [group] }), null)
  t.equal(await store.update('no id', { groups: [group] }), null)
  const [once] = (await insert(store, [record(store, { use: 'once' })], [atMost(0)])).inserted
  t.match(await store.update(String(once?.id), { groups: [group, 'b'] }), { groups: [group, 'b'] })
  t.equal((await placesOf(own)).length, 1, 'a one-time token takes none')
  for (const key of await client.keys(`${keyPrefix}t:*`)) t.ok(await client.pttl(key) > 3_000_000, 'places last as long as their sessions')
})

t.test('who is stopped while a session is given a group is told so', async t => {
  const { store, client } = await holding(t)
  const [session] = (await insert(store, [record(store, { groups: [] })], [])).inserted
  client.holds = args => args.includes(`"${group}"`)
  const held = store.update(String(session?.id), { groups: [group] })
  await until('its place is taken', [], () => client.reached.length === 1)
  await later(store, STORED_WITHIN + 100)
  client.reached[0]?.resolve()
  await t.rejects(held, { code: 'FST_STORE_TIMEOUT' })
  t.same((await store.get(String(session?.id)))?.groups, [])
})

/** As though nobody had looked for a while whether a place is taken. */
async function doubt ({ client, keyPrefix }: Bench, id: string): Promise<void> {
  const [key = ''] = await client.keys(`${keyPrefix}t:*`)
  await client.zadd(key, '1', id)
}

t.test('who was stored in the place of another has it also where its process dies before it is given', async t => {
  const own = await holding(t)
  const { store, other, client } = own
  const sub = 'alice'
  const [first] = await fill(other, 1, { sub }) as [SessionRecord]
  client.holds = args => counts(args) && args.includes(first.id)
  const { inserted: [second] } = await insert(store, [record(store, { sub })], [atMost(1)], { endOthers: [first.id] })
  t.equal(client.reached.length, 1, 'it waits to be given')
  t.same(await placesOf(own), [first.id])
  await doubt(own, first.id)
  t.equal(await letsIn(other, 1), false)
  t.same(await placesOf(own), [second?.id])
  await other.end([String(second?.id)], because())
  await until('its place is free', [], async () => await letsIn(other, 1))
})

t.test('the place of who expired, and nobody asked for, is free', async t => {
  const own = await holding(t)
  const { other } = own
  const [first] = await fill(other, 1, { expiresAt: other.now() + 1000 }) as [SessionRecord]
  await later(other, 1010)
  await doubt(own, first.id)
  t.equal(await letsIn(other, 1), true)
})

t.test('the place of who ended, and whose process died before it gave it back, is free', async t => {
  const own = await holding(t)
  const { store, other, client } = own
  const [first] = await fill(other, 1) as [SessionRecord]
  client.holds = args => counts(args) && args.includes(first.id)
  await store.end([first.id], because())
  await doubt(own, first.id)
  t.equal(await letsIn(other, 1), true)
})

t.test('who has come for whom is followed over many sign-ins, some at each look', async t => {
  const own = await holding(t)
  const { store, other, client } = own
  const sub = 'alice'
  const [first] = await fill(other, 1, { sub }) as [SessionRecord]
  client.holds = args => counts(args) && args.includes(first.id)
  const heirs: SessionRecord[] = []
  for (let i = 0; i < 25; i++) {
    const { id } = heirs.at(-1) ?? first
    heirs.push(...(await insert(store, [record(store, { sub })], [atMost(1)], { endOthers: [id] })).inserted)
  }
  t.equal(heirs.length, 25)
  for (const { id } of [first, heirs[19]] as SessionRecord[]) {
    t.same((await placesOf(own)).sort(), [id, heirs[24]?.id].sort())
    await doubt(own, id)
    t.equal(await letsIn(other, 1), false)
  }
  t.same(await placesOf(own), [heirs[24]?.id])
})

t.test('what is given back late is not what was taken since', async t => {
  const { store, other, client, keyPrefix } = await holding(t)
  const quick = await open(t, { url: (await sharedRedis()).url, keyPrefix, keepEndings: '1s' })
  const id = randomBytes(18).toString('base64url')
  t.equal(await letsIn(quick, 1, { id }), true)
  client.holds = args => counts(args)
  await store.end([id], because())
  t.equal(client.reached.length, 1, 'it waits to be given back')
  await client.pexpire(`${keyPrefix}s:${id}`, 1)
  await until('the id is free', [], async () => await client.exists(`${keyPrefix}s:${id}`) === 0)
  t.match(await insert(quick, [record(quick, { id })], [atMost(1)]), { inserted: [{ id }] }, 'the same token comes again')
  client.reached[0]?.resolve()
  await client.ping()
  t.equal(await letsIn(other, 1), false)
})

t.test('a place that was looked at, and is taken meanwhile for what it was taken for before, is given to nobody else', async t => {
  const { store, other, client, keyPrefix } = await holding(t)
  const one = { ...record(store), op: 'op' }
  await fill(other, 1)
  const [key = ''] = await client.keys(`${keyPrefix}t:*`)
  await other.end(await client.zrange(key, '0', '-1'), because())
  // As after the first attempt, whose process hung.
  await client.zadd(key, '1', one.id)
  await client.pexpire(key, 60_000)
  client.holds = args => counts(args) && args.includes(one.id)
  const held = letsIn(store, 1)
  await until('it was found that nobody has it', [], () => client.reached.length === 1)
  t.match(await other.insert([one], { limits: [atMost(1)], op: 'op' }), { inserted: [{ id: one.id }] })
  client.reached[0]?.resolve()
  t.equal(await held, false)
})

t.test('a limit across a tenant names a group; of two on one group the lower counts', async t => {
  const { store } = await bench(t)
  const { group: _, ...nameless } = atMost(1)
  await t.rejects(insert(store, [record(store)], [nameless]), { code: 'FST_TOKEN_VALIDATION' })
  t.equal(await letsIn(store, 2), true)
  const lower = atMost(1, { name: 'lower' })
  t.match(await insert(store, [record(store)], [atMost(2), lower]), { refused: [{ limit: lower, count: 1 }] })
  t.match(await insert(store, [record(store, { groups: [group, 't-b'] })], [atMost(5, { group: 't-b' }), lower]), { refused: [{ limit: lower }] })
})

t.test('places that were lost are taken again by a check', async t => {
  const { store, client, keyPrefix } = await bench(t)
  await fill(store, 2)
  await insert(store, [record(store, { tenant: 'acme' })], [atMost(1)])
  for (const key of await client.keys(`${keyPrefix}t:*`)) await client.del(key)
  await store.check({ repair: true })
  t.equal(await letsIn(store, 2), false)
  t.equal(await letsIn(store, 1, { tenant: 'acme' }), false)
})

t.test('where places cannot be looked at, nobody is let in in place of who may live', async t => {
  const { nodes, servers, primaryOf } = await redisCluster(t, { replicas: 0 })
  const [keyPrefix, cluster] = [newPrefix(), new Cluster([...nodes])]
  t.teardown(() => cluster.disconnect())
  const store = await open(t, { nodes, keyPrefix, commandTimeout: 500 })
  const sessions = await fill(store, 30)
  t.equal(sessions.length, 30)
  const keys = (await Promise.all(cluster.nodes('master').map(async node => await node.keys(`${keyPrefix}t:*`)))).flat()
  const [key = ''] = keys
  const counter = await primaryOf(key)
  const away = servers.find(server => server !== counter) as RedisServer // there are three
  const there = await Promise.all(sessions.map(async ({ id }) => await primaryOf(`${keyPrefix}s:{${id.slice(0, 4)}}`) !== away ? id : null))
  await cluster.zadd(key, ...sessions.flatMap(({ id }) => ['1', id]))
  await cluster.del(...there.filter(id => id !== null).slice(0, 1).map(id => `${keyPrefix}s:{${id.slice(0, 4)}}${id.slice(4)}`))
  away.pause()
  let letIn = 0
  const drafts = Array.from({ length: 20 }, () => record(store))
  for (const draft of drafts) {
    const { inserted } = await insert(store, [draft], [atMost(30)]).catch(() => ({ inserted: [] }))
    letIn += inserted.length
  }
  away.resume()
  t.ok(letIn <= 1, 'only in the place of the one that is gone')
})

t.test('a Redis that was full takes up again', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url })
  const [session] = await fill(store, 1)
  await server.command('config', 'set', 'maxmemory', 1)
  await t.rejects(insert(store, [record(store)], [atMost(2)]), { code: 'FST_STORE_UNAVAILABLE' })
  t.equal((await store.end([String(session?.id)], because())).length, 1)
  t.match(await insert(store, [], [{ name: 'own', max: 0, onExceed: 'refuse' }], { subject: { tenant: '', sub: 'nobody' } }), { evicted: [] })
  await server.command('config', 'set', 'maxmemory', 0)
  t.equal(await letsIn(store, 2), true)
})
