import { randomBytes, randomUUID } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { deadlineOf, memoryStore, type InsertOutcome, type SessionLimit, type SessionRecord, type Subject, type TokenStore } from '../../plugins/token-registry/index.ts'
import { newPrefix } from '../support/redis-store.ts'
import { redisCluster, sharedRedis, until } from '../support/redis.ts'

const SEED = Number(process.env['LIMITS_SEED'] ?? randomBytes(4).readUInt32LE())
const alice = { tenant: '', sub: 'alice' }
const because = (reason = 'revoked') => ({ reason, by: null, op: randomUUID() })
const rotation = { once: false, kid: 1, binding: null, reuseWindow: 0, by: null }

/** Numbers that another run gets again. */
function randomly (seed: number): (count: number) => number {
  let state = seed >>> 0
  return count => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * count)
  }
}

/** A store, and a client that looks into its keys. */
interface Bench {
  store: RedisStore
  client: Redis
  keyPrefix: string
  /** A key of alice. */
  key: (kind: string, group?: string) => string
}

async function bench (t: Test, options: Partial<RedisStoreOptions> = {}): Promise<Bench> {
  const [{ url }, keyPrefix] = [await sharedRedis(), newPrefix()]
  const client = new Redis(url)
  t.teardown(() => client.disconnect())
  const store = await createRedisStore({ url, keyPrefix, cleanupInterval: false, ...options })
  t.teardown(async () => await store.close())
  return { store, client, keyPrefix, key: (kind, group) => `${keyPrefix}${kind}:\n"alice"${group === undefined ? '' : `\n${group}`}` }
}

function record (store: TokenStore, draft: Partial<SessionRecord> = {}): SessionRecord {
  const issuedAt = store.now()
  return sessionRecord({ issuedAt, lastUsedAt: issuedAt, expiresAt: issuedAt + 3_600_000, ...draft })
}

async function insert (store: TokenStore, records: readonly SessionRecord[], limits: SessionLimit[] = []): Promise<InsertOutcome> {
  const op = randomUUID()
  return await store.insert(records.map(one => ({ ...one, op })), { limits, op })
}

async function insertMany (store: TokenStore, count: number, draft: Partial<SessionRecord> = {}): Promise<SessionRecord[]> {
  const { inserted } = await insert(store, Array.from({ length: count }, () => record(store, draft)))
  return inserted
}

const limit = (max: number, onExceed: SessionLimit['onExceed'], more: Partial<SessionLimit> = {}): SessionLimit => ({ name: `${onExceed} ${max}`, max, onExceed, ...more })

function idsOf (sessions: ReadonlyArray<{ id: string }>): string[] {
  return sessions.map(({ id }) => id)
}

function evictedOf ({ evicted }: InsertOutcome): string[] {
  return evicted.map(({ session }) => session.id)
}

/** Everything that lives, by the keys of sessions alone. */
async function everybody (store: TokenStore): Promise<SessionRecord[]> {
  const all: SessionRecord[] = []
  let cursor: string | null = null
  do {
    const page: { sessions: SessionRecord[], cursor: string | null } = await store.find({}, { limit: 500, cursor })
    all.push(...page.sessions)
    cursor = page.cursor
  } while (cursor !== null)
  return all
}

/** Checks that what limits count by lists those who live, until they end, and nobody else. */
async function assertAgrees (t: Test, store: RedisStore, clients: readonly Redis[], keyPrefix: string): Promise<void> {
  const wanted = new Map<string, Map<string, number>>()
  for (const session of await everybody(store)) {
    const subject = `${session.tenant === '' ? '' : JSON.stringify(session.tenant)}\n${JSON.stringify(session.sub)}`
    for (const name of [`x:${subject}`, ...session.groups.map(group => `g:${subject}\n${group}`)]) {
      wanted.set(name, (wanted.get(name) ?? new Map<string, number>()).set(session.id, deadlineOf(session)))
    }
  }
  const listed = new Map<string, Map<string, number>>()
  for (const client of clients) {
    for (const key of await client.keys(`${keyPrefix}*`)) {
      const ttl = await client.pttl(key)
      if (ttl < 0 && ttl !== -2) t.fail(`${JSON.stringify(key)} has no end`)
      const name = key.slice(keyPrefix.length).replace(/^(\w+:)\{.*?\}/, '$1')
      if (/^[xg]:/.test(name)) {
        const entries = await client.zrangebyscore(key, `(${store.now()}`, '+inf', 'WITHSCORES')
        const own = new Map(entries.flatMap((id, index) => index % 2 === 0 ? [[id, Number(entries[index + 1])]] : []))
        if (own.size > 0) listed.set(name, own)
      }
      // Where it is kept by age, nobody is missing.
      if (/^g[au]:/.test(name)) {
        const names = new Set((await client.zrange(key, '0', '-1')).map(entry => entry.slice(-24)))
        const [, rest = ''] = /^g[au]:(.*)$/s.exec(name) ?? []
        const own = wanted.get(`${rest.split('\n').length > 2 ? 'g' : 'x'}:${rest}`) ?? new Map<string, number>()
        t.same([...own.keys()].filter(id => !names.has(id)), [], `${name} lacks nobody`)
      }
    }
  }
  t.same(listed, wanted)
}

async function anything (t: Test, store: RedisStore, clients: readonly Redis[], keyPrefix: string, steps: number): Promise<void> {
  t.comment(`LIMITS_SEED=${SEED}`)
  const below = randomly(SEED)
  const subjects: Subject[] = [alice, { tenant: '', sub: 'bob' }, { tenant: 'acme', sub: 'alice' }]
  const names = ['a', 'b', 'c']
  const known: SessionRecord[] = []
  const pick = <T>(items: readonly T[]): T => items[below(items.length)] as T // there is one at least
  const groups = (): string[] => names.filter(() => below(2) === 0)
  const draft = (subject: Subject): SessionRecord => {
    const [use, idleTimeout, ttl] = [pick(['session', 'refresh', 'once'] as const), below(3) === 0 ? pick([150, 60_000]) : null, pick([200, 3_600_000, 7_200_000])]
    return record(store, { ...subject, ...below(4) === 0 && { id: randomBytes(18).toString('base64url') }, groups: groups(), use, idleTimeout, expiresAt: store.now() + ttl })
  }
  const limits = (): SessionLimit[] => Array.from({ length: below(3) }, () => limit(1 + below(150), pick(['refuse', 'end-oldest', 'end-least-recently-used']), {
    ...below(2) === 0 && { group: pick(names) },
    ...below(3) === 0 && { replaces: pick(names) }
  }))
  const acts: Array<() => Promise<unknown>> = [
    async () => {
      const subject = pick(subjects)
      const { inserted } = await insert(store, Array.from({ length: pick([1, 1, 3, 120]) }, () => draft(subject)), limits())
      known.push(...inserted)
    },
    async () => await store.end([pick(known).id, pick(known).id], because()),
    async () => await store.rotate(pick(known).id, { ...rotation, generation: below(3) }, randomUUID()),
    async () => await store.touch(Array.from({ length: 40 }, () => ({ id: pick(known).id, at: store.now() + below(50) }))),
    async () => await store.update(pick(known).id, { groups: groups(), ...below(2) === 0 && { idleTimeout: pick([null, 100, 60_000]) } }),
    async () => await store.insert([], { limits: limits(), subject: pick(subjects), op: randomUUID() }),
    async () => await store.insert([{ ...draft(pick(subjects)), op: 'op' }], { limits: limits(), endOthers: [pick(known).id, pick(known).id], op: 'op' }),
    async () => { if (below(6) === 0) await store.endAll({ ...pick(subjects), except: [pick(known).id] }, because()) }
  ]
  known.push(...await insertMany(store, 10))
  for (let step = 0; step < steps; step++) {
    await Promise.all(Array.from({ length: 5 }, async () => await pick(acts)()))
    if (step % 10 !== 9) continue
    await until('what expires has expired', [], async () => (await everybody(store)).every(session => deadlineOf(session) > store.now() + 1000))
    await assertAgrees(t, store, clients, keyPrefix)
  }
  await store.check({ repair: true })
  t.match(await store.check(), { unlisted: 0, orphans: 0 })
}

t.test('what limits count by agrees with who lives, whatever was done', async t => {
  const { store, client, keyPrefix } = await bench(t)
  await anything(t, store, [client], keyPrefix, 60)
})

t.test('it does so in a Cluster', async t => {
  const { nodes, servers } = await redisCluster(t, { replicas: 0 })
  const keyPrefix = newPrefix()
  const store = await createRedisStore({ nodes, keyPrefix, cleanupInterval: false })
  t.teardown(async () => await store.close())
  const clients = servers.map(({ url }) => new Redis(url))
  t.teardown(() => clients.forEach(client => client.disconnect()))
  await anything(t, store, clients, keyPrefix, 30)
})

t.test('among many sessions limits end the same ones as the memory store', async t => {
  t.comment(`LIMITS_SEED=${SEED}`)
  const below = randomly(SEED)
  const { store } = await bench(t)
  const memory = memoryStore({ now: () => store.now() })
  t.teardown(async () => await memory.close())
  const known: string[] = []
  let [used, times] = [store.now() + 1_000_000, 0]
  const both = async (act: (of: TokenStore) => Promise<InsertOutcome>): Promise<void> => {
    const [one, other] = [await act(store), await act(memory)]
    t.same(evictedOf(one), evictedOf(other), `step ${times}`)
    t.same(one.evicted.map(({ ending: { reason, detail } }) => ({ reason, detail })), other.evicted.map(({ ending: { reason, detail } }) => ({ reason, detail })))
    t.same(one.refused.map(refusal => refusal.reason === 'limit' && [refusal.limit.name, refusal.count]), other.refused.map(refusal => refusal.reason === 'limit' && [refusal.limit.name, refusal.count]))
    known.push(...idsOf(one.inserted))
  }
  const shares = { a: 0.8, b: 0.7, c: 0.6 }
  const draft = (): SessionRecord => record(store, { groups: Object.entries(shares).flatMap(([group, share]) => below(10) < share * 10 ? [group] : []) })
  const pick = <T>(items: readonly T[]): T => items[below(items.length)] as T // there is one at least
  const some = (count: number): string[] => Array.from({ length: count }, () => pick(known))
  const first = Array.from({ length: 300 }, draft)
  await both(async of => await of.insert(first.map(one => ({ ...one, op: 'first' })), { op: 'first' }))
  for (times = 1; times < 250; times++) {
    const count = await memory.count(alice)
    const limits = Array.from({ length: 1 + below(2) }, () => {
      const group = pick([null, null, 'a', 'b', 'c'] as const)
      const share = group === null ? 1 : shares[group]
      const most = count < 200 ? 1000 : Math.round(share * count) - below(count > 400 ? 250 : 12) + below(10)
      return limit(most, pick(['refuse', 'end-oldest', 'end-least-recently-used'] as const), { ...group !== null && { group }, ...below(2) === 0 && { replaces: pick(['a', 'b', 'c']) } })
    })
    const [records, op, endOthers] = [Array.from({ length: 1 + below(20) }, draft), randomUUID(), below(4) === 0 ? some(3) : []]
    await both(async of => await of.insert(records.map(one => ({ ...one, op })), { op, limits, endOthers }))
    // In an order that no clock has a part in.
    const uses = some(60).map(id => ({ id, at: used + below(3) }))
    used += 2
    const [gone, moved] = [some(2), some(2)]
    for (const of of [store, memory]) {
      await of.touch(uses)
      await of.end(gone, because())
      for (const [index, id] of moved.entries()) await of.update(id, { groups: index === 0 ? [] : ['c', 'a'] })
    }
    if (below(10) === 0) await both(async of => await of.insert([], { limits, subject: alice, op: `within ${times}` }))
  }
  t.ok(known.length > 1000)
})

t.test('those that are kept by age are found again where that was lost, and forgotten where they have left', async t => {
  const { store, client, key } = await bench(t)
  const sessions = await insertMany(store, 200)
  const full = limit(200, 'end-oldest')
  t.same(evictedOf(await insert(store, [record(store)], [full])), [sessions[0]?.id])
  t.ok(await client.pttl(key('ga')) > 0)
  await client.del(key('ga'))
  t.same(evictedOf(await insert(store, [record(store)], [full])), [sessions[1]?.id], 'made anew')

  await store.endAll({ ...alice, except: [String(sessions[5]?.id)] }, because())
  t.equal(await client.exists(key('ga'), key('gu')), 0, 'not what was set aside')
  t.same(evictedOf(await insert(store, [record(store)], [limit(1, 'end-oldest')])), [sessions[5]?.id], 'what was kept is found')

  // Who comes and goes by itself, never the first.
  await insertMany(store, 200)
  await insert(store, [record(store)], [limit(1000, 'end-least-recently-used')])
  t.equal(await client.exists(key('gu')), 1)
  for (let i = 0; i < 800; i++) await store.end(idsOf(await insertMany(store, 1)), because())
  const many = await client.zcard(key('gu'))
  t.ok(many < 2 * 202 + 128 + 200, `${many} are kept of 1000 that came`)
})

t.test('all of many can end at once, and no key is left without an end', async t => {
  const { store, client, keyPrefix } = await bench(t)
  for (const onExceed of ['end-oldest', 'end-least-recently-used'] as const) {
    const sessions = await insertMany(store, 300, { groups: ['g'] })
    await insert(store, [record(store, { groups: ['g'] })], [limit(1000, onExceed), limit(1000, onExceed, { group: 'g' })])
    const { evicted } = await insert(store, [record(store, { groups: ['g'] })], [limit(1, onExceed, { group: 'g' }), limit(1, onExceed)])
    t.ok(evicted.length >= sessions.length)
    await assertAgrees(t, store, [client], keyPrefix)
    await store.endAll(alice, because())
  }
})

t.test('limits on the same sessions each find the first that are left', async t => {
  const { store } = await bench(t)
  const sessions = await insertMany(store, 300, { groups: ['g', 'h'] })
  const [first, second] = [limit(297, 'end-oldest'), limit(295, 'end-oldest')]
  t.same(evictedOf(await insert(store, [record(store)], [first, second])), idsOf(sessions.slice(0, 6)))
  // A limit that refuses after others have looked at many changes nothing.
  const refused = await insert(store, [record(store, { groups: ['h'] })], [limit(200, 'end-oldest'), limit(1, 'refuse', { group: 'h' })])
  t.match(refused.refused, [{ reason: 'limit', count: 198 }])
  t.same(evictedOf(await insert(store, [record(store)], [limit(295, 'end-oldest')])), [sessions[6]?.id])
  const { evicted } = await insert(store, [record(store, { groups: ['g', 'h'] })], [limit(293, 'refuse', { group: 'g', replaces: 'h' })])
  t.match(evicted, [{ session: { id: sessions[7]?.id }, ending: { reason: 'replaced' } }])
})

t.test('what is gone, though it is listed, makes room by itself; what cannot be read ends nobody in its place', async t => {
  for (const many of [5, 200]) {
    const { store, client, keyPrefix } = await bench(t)
    const sessions = await insertMany(store, many)
    await insert(store, [record(store)], [limit(1000, 'end-oldest')])
    const [gone, damaged, stranger, third] = idsOf(sessions)
    await client.del(`${keyPrefix}s:${gone}`)
    await client.set(`${keyPrefix}s:${damaged}`, 'garbage', 'KEEPTTL')
    await client.set(`${keyPrefix}s:${stranger}`, String(await client.get(`${keyPrefix}s:${stranger}`)).replace('"alice"', '"bob"'), 'KEEPTTL')
    const next = await insert(store, [record(store)], [limit(many, 'end-oldest')])
    t.same(evictedOf(next), [], `${many}: two that are gone make room`)
    const last = await insert(store, [record(store)], [limit(many - 1, 'end-oldest')])
    t.equal(evictedOf(last)[0], third, `${many}: then the oldest that can be read`)
    t.equal(await client.get(`${keyPrefix}s:${damaged}`), 'garbage')
    t.equal(await client.exists(`${keyPrefix}s:${stranger}`), 1, 'another subject\'s is not ended')
  }
})

t.test('a session that was adopted again is as old as it is now', async t => {
  const { store, client, keyPrefix } = await bench(t, { keepEndings: '1s' })
  const again = randomBytes(18).toString('base64url')
  const [first] = await insertMany(store, 1, { id: again })
  const sessions = await insertMany(store, 200)
  for (const onExceed of ['end-oldest', 'end-least-recently-used'] as const) await insert(store, [record(store)], [limit(1000, onExceed)])
  await store.end([String(first?.id)], because())
  await until('it is forgotten', [], async () => await client.exists(`${keyPrefix}s:${again}`) === 0)
  await insertMany(store, 1, { id: again })
  t.same(evictedOf(await insert(store, [record(store)], [limit(203, 'end-oldest')])), [sessions[0]?.id])
  t.same(evictedOf(await insert(store, [record(store)], [limit(203, 'end-least-recently-used')])), [sessions[1]?.id])
})

t.test('what was evicted and is forgotten is not told again by a repetition', async t => {
  const { store, client, keyPrefix } = await bench(t)
  const [old] = await insertMany(store, 1)
  const one = { ...record(store), op: 'op' }
  const options = { limits: [limit(1, 'end-oldest')], op: 'op' }
  const first = await store.insert([one], options)
  t.same(evictedOf(first), [old?.id])
  t.same(await store.insert([one], options), first)
  await client.del(`${keyPrefix}s:${old?.id}`)
  t.same(await store.insert([one], options), { ...first, evicted: [] })
  await insertMany(store, 1, { id: String(old?.id) })
  t.same(await store.insert([one], options), { ...first, evicted: [] }, 'nor who has its id since')
  t.equal(store.corrupt, 0)
})

t.test('groups have plain names, and change what is counted with a revision', async t => {
  const { store, client, key } = await bench(t)
  const invalid = { code: 'FST_TOKEN_VALIDATION' }
  for (const group of ['', 'a b', 'a\n', '"', 'x'.repeat(33), '\u00e9']) {
    await t.rejects(insert(store, [record(store, { groups: [group] })]), invalid)
    await t.rejects(store.update('x'.repeat(24), { groups: [group] }), invalid)
  }
  const [session] = await insertMany(store, 1, { groups: ['a', 'B_2-c'] })
  const id = String(session?.id)
  t.same((await store.get(id))?.groups, ['a', 'B_2-c'])
  const updated = await store.update(id, { groups: ['c'] }, 0)
  t.match(updated, { groups: ['c'], revision: 1 })
  t.same(await store.update(id, { groups: ['c'] }, 0), updated, 'a repetition gets the first answer')
  await t.rejects(store.update(id, { groups: ['d'] }, 0), { code: 'FST_SESSION_CONFLICT' })
  t.same([await client.exists(key('g', 'a'), key('g', 'B_2-c'), key('g', 'd')), await client.zrange(key('g', 'c'), '0', '-1')], [0, [id]])
  const once = await insertMany(store, 1, { use: 'once', groups: ['e'] })
  t.same(once[0]?.groups, ['e'])
  t.equal(await client.exists(key('g', 'e')), 0, 'one-time tokens are counted nowhere')
})

t.test('a check finds who is missing in a group, or in one that is not its own, and mends that', async t => {
  const { store, client, key } = await bench(t)
  const [missing, wrong] = await insertMany(store, 3, { groups: ['g'] })
  await client.zrem(key('g', 'g'), String(missing?.id))
  await client.zadd(key('g', 'other'), '9999999999999', String(wrong?.id))
  await client.zadd(key('g', 'g'), '9999999999999', randomBytes(18).toString('base64url'))
  const found = { unlisted: 1, orphans: 2 }
  t.match(await store.check(), found)
  t.match(await store.check({ repair: true }), found)
  t.match(await store.check(), { unlisted: 0, orphans: 0 })
  t.equal(await client.zcard(key('g', 'g')), 3)
})

t.test('why a session ended is kept with it, whoever ended it', async t => {
  const { store } = await bench(t)
  const [one, other] = await insertMany(store, 2)
  const cause = { ...because(), detail: { differs: 'binding', device: 'd "1"\n' } }
  await store.end([String(one?.id)], cause)
  t.same(await store.ending(String(one?.id)), { id: one?.id, ...alice, ...cause, at: (await store.ending(String(one?.id)))?.at })
  await store.endAll(alice, { ...cause, op: 'all' })
  t.match(await store.ending(String(other?.id)), { op: 'all', detail: cause.detail })
})

t.test('a Cluster keeps what a limit counts in the slot of its subject', async t => {
  const { nodes } = await redisCluster(t, { replicas: 0 })
  const client = new Cluster([...nodes])
  t.teardown(() => client.disconnect())
  const store = await createRedisStore({ client, keyPrefix: newPrefix() })
  t.teardown(async () => await store.close())
  const adopted = await insertMany(store, 150, { groups: ['g'] })
  const [stranger] = await insertMany(store, 1, { id: randomBytes(18).toString('base64url'), groups: ['g'] })
  for (const onExceed of ['end-oldest', 'end-least-recently-used'] as const) await insert(store, [record(store, { groups: ['g'] })], [limit(500, onExceed, { group: 'g' })])
  t.same(evictedOf(await insert(store, [record(store, { groups: ['g'] })], [limit(4, 'end-oldest', { group: 'g' })])), idsOf(adopted), 'those of adopted tokens keep their place')
  t.same(evictedOf(await insert(store, [record(store)], [limit(4, 'end-oldest')])), [stranger?.id])
})
