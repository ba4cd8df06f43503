import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { sessionRecord } from '../plugins/testing/index.ts'
import { memoryStore, type MemoryStore, type MemoryStoreOptions, type SessionLimit, type SessionRecord } from '../plugins/token-registry/index.ts'
import { Marks } from '../plugins/token-registry/memory-store/marks.ts'
import { everyCharacter, ShardedMap } from '../plugins/token-registry/memory-store/sharded-map.ts'
import { subjectKey } from '../plugins/token-registry/token.ts'
import { Clock } from './support/clock.ts'
import { deferred, soon } from './support/deferred.ts'

const HOUR = 3_600_000

function open (t: Test, options: MemoryStoreOptions = {}): { store: MemoryStore, clock: Clock } {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now, ...options })
  t.teardown(async () => await store.close())
  return { store, clock }
}

async function insert (store: MemoryStore, count: number, overrides: Partial<SessionRecord> = {}): Promise<SessionRecord[]> {
  const records = Array.from({ length: count }, () => sessionRecord({ issuedAt: store.now(), op: 'insert', ...overrides }))
  const { inserted } = await store.insert(records, { op: records[0]?.op ?? 'insert' })
  return inserted
}

async function end (store: MemoryStore, ...sessions: SessionRecord[]): Promise<void> {
  for (const { id } of sessions) await store.end([id], { reason: 'revoked', by: null, op: `end ${id}` })
}

/** Counts how often others get their turn until work is done. */
async function turnsDuring (work: Promise<unknown>): Promise<number> {
  const state = { done: false }
  work.finally(() => { state.done = true }).catch(() => {})
  let turns = 0
  while (!state.done) {
    await setImmediate()
    turns++
  }
  return turns
}

t.test('what has expired is swept out in slices, each told once, and what lives stays', async t => {
  const { store, clock } = open(t, { sweepInterval: 1 })
  const doomed = await insert(store, 5000, { expiresAt: clock.now() + 1000 })
  const idle = await insert(store, 100, { op: 'idle', sub: 'bob', idleTimeout: 1000 })
  const kept = await insert(store, 100, { op: 'kept', sub: 'carol' })
  const once = await insert(store, 1, { op: 'once', use: 'once', expiresAt: clock.now() + 1000 })
  t.equal((await store.health()).sessions, 5200)

  const told = new Map<string, string>()
  const all = deferred()
  store.onExpire(({ id }, { reason }) => {
    told.set(id, told.has(id) ? 'told twice' : reason)
    if (told.size === doomed.length + idle.length + once.length) all.resolve()
  })
  clock.advance(1000)
  t.ok(await turnsDuring(soon(all.promise)) > 10, 'others get their turn')
  t.same([...told.values()].sort(), [...[...doomed, ...once].map(() => 'expired'), ...idle.map(() => 'idle')])
  t.same(await store.health(), { status: 'ok', latency: 0, sessions: 100 })
  t.equal(await store.count({}), kept.length)
})

t.test('marks that are past are swept out, and no others', async t => {
  const clock = new Clock()
  const marks = new Marks(clock.now)
  for (const [purpose, key, ms] of [['a', 'short', 1000], ['a', 'long', 2000], ['b', 'short', 1000]] as const) marks.add(purpose, key, clock.now() + ms)
  const looked = () => [...marks.sweep()].length
  t.equal(looked(), 3)
  clock.advance(1000)
  t.equal(looked(), 3)
  t.equal(looked(), 1, 'what is past is there no more')
  t.equal(marks.has('a', 'long'), true)
})

t.test('the sweep comes by marks too, and goes on for ever', async t => {
  const { store, clock } = open(t, { sweepInterval: 1 })
  await store.mark('lease', 'a', clock.now() + 1000)
  for (let round = 0; round < 3; round++) {
    const noticed = deferred()
    const stop = store.onExpire(() => noticed.resolve())
    await insert(store, 1, { op: `round ${round}`, expiresAt: clock.now() + 1000 })
    clock.advance(1000)
    await soon(noticed.promise)
    stop()
  }
  t.equal(store.marked('lease', 'a'), false)
  t.equal((await store.health()).sessions, 0)
})

t.test('a store that is closed is empty, and sweeps no more', async t => {
  const { store, clock } = open(t, { sweepInterval: 1 })
  await insert(store, 10, { expiresAt: clock.now() + 1 })
  await store.mark('lease', 'a', clock.now() + 1000)
  store.onExpire(() => t.fail('nobody sweeps'))
  await store.close()
  clock.advance(1)
  t.same(await store.health(), { status: 'ok', latency: 0, sessions: 0 })
  t.equal(await store.count({}), 0)
  t.equal(store.marked('lease', 'a'), false)
})

t.test('an answer to what is marked needs no waiting', async t => {
  const { store, clock } = open(t)
  await store.mark('denylist', 'jti', clock.now() + 1000)
  t.equal(store.marked('denylist', 'jti'), true)
  t.equal(store.marked('denylist', 'other'), false)
  t.equal(store.marked('denylist', 'other', clock.now() - 1), true, 'issued before the store began')
  t.equal(store.staleness, 0)
})

t.test('the system\'s clock is the default', async t => {
  const store = memoryStore()
  t.teardown(async () => await store.close())
  t.ok(Math.abs(store.now() - Date.now()) < 1000)
})

t.test('an option that is not what it may be is refused, and named', t => {
  for (const [options, message] of [
    [{ keepEndings: '1 hour' }, /memoryStore\.keepEndings is '1 hour'/], [{ sweepInterval: 0 }, /memoryStore\.sweepInterval is 0 ms/], [{ sweepInterval: '25d' }, /sweepInterval/],
    [{ maxEndings: 0 }, /memoryStore\.maxEndings is 0: it may be a whole number/], [{ now: 5 }, /memoryStore\.now is 5/], [{ keep: 1 }, /memoryStore\.keep is not an option/]
  ] as Array<[object, RegExp]>) t.throws(() => memoryStore(options), { code: 'FST_TOKEN_OPTIONS', message })
  t.end()
})

t.test('what a rotation ends is told, however few endings are kept', async t => {
  const { store } = open(t, { maxEndings: 1 })
  const once = sessionRecord({ use: 'once', origin: null })
  await store.insert([once], { op: 'insert' })
  const presented = { once: true, generation: 0, kid: 1, binding: once.binding, reuseWindow: 0, by: null }
  await store.rotate(once.id, presented, 'first')
  const came = Array.from({ length: 4 }, () => sessionRecord({ tenant: once.tenant, sub: once.sub, use: 'session', origin: once.id }))
  t.equal((await store.insert(came, { op: 'came' })).inserted.length, 4)
  t.match(await store.rotate(once.id, presented, 'second'), { status: 'reused', ending: { id: once.id, reason: 'reuse_recent' }, ended: { length: 5 } })
})

t.test('the window is open until a millisecond before its end', async t => {
  const { store, clock } = open(t)
  const [session] = await insert(store, 1)
  const rotate = async (generation: number, reuseWindow: number, op: string) =>
    await store.rotate(session?.id ?? '', { once: false, generation, kid: 1, binding: null, reuseWindow, by: null }, op)
  await rotate(0, 1000, 'first')
  clock.advance(999)
  t.match(await rotate(0, 1000, 'second'), { status: 'repeated' })
  clock.advance(1)
  t.match(await rotate(0, 1000, 'third'), { status: 'reused', ending: { reason: 'reuse_recent', at: clock.now() } })
})

t.test('a rotation that the store has lost is said to be recovered', async t => {
  const { store } = open(t)
  const [session] = await insert(store, 1)
  const presented = { once: false, generation: 5, kid: 1, binding: null, reuseWindow: 0, by: null }
  t.match(await store.rotate(session?.id ?? '', presented, 'op'), { status: 'rotated', recovered: true, session: { generation: 6 } })
})

t.test('an ending is kept for its time, and no longer', async t => {
  const { store, clock } = open(t, { keepEndings: HOUR })
  const [early, late] = await insert(store, 2, { expiresAt: clock.now() + 10 * HOUR }) as [SessionRecord, SessionRecord]
  await end(store, early)
  clock.advance(1)
  await end(store, late)
  clock.advance(HOUR - 1)
  t.match(await store.ending(early.id), { reason: 'revoked' })
  clock.advance(1)
  t.equal(await store.ending(early.id), null)
  t.match(await store.ending(late.id), { reason: 'revoked' })
  t.match(await store.insert([early], { op: 'anew' }), { inserted: [{ id: early.id }] }, 'nothing of it is left')
  t.match(await store.insert([late], { op: 'anew' }), { refused: [{ reason: 'exists', id: late.id }] })
})

t.test('the sweep forgets endings that are past too', async t => {
  const { store, clock } = open(t, { sweepInterval: 1, keepEndings: 1000 })
  const [session] = await insert(store, 1) as [SessionRecord]
  await end(store, session)
  for (let turn = 0; turn < 2; turn++) {
    const swept = deferred()
    const stop = store.onExpire(() => swept.resolve())
    await insert(store, 1, { op: `turn ${turn}`, expiresAt: clock.now() + 1000 })
    clock.advance(1000)
    await soon(swept.promise)
    stop()
  }
  t.equal(await store.ending(session.id), null)
})

t.test('endings are bounded: the latest are kept', async t => {
  const { store } = open(t, { maxEndings: 1500 })
  const sessions = await insert(store, 4000)
  /** The position of the first whose ending is known: those of all after it are. */
  const first = async (): Promise<number> => {
    const known = (await Promise.all(sessions.map(({ id }) => store.ending(id)))).map(ending => ending !== null)
    t.equal(known.lastIndexOf(false) + 1, known.indexOf(true))
    return known.indexOf(true)
  }
  await end(store, ...sessions)
  t.equal(await first(), 1000, 'twice as many, while others have not had their turn')
  await setImmediate()
  t.equal(await first(), 2000, 'a slice was forgotten')
  await setImmediate()
  t.equal(await first(), 2500)
})

t.test('an expiry that is noticed late does not cost others their ending', async t => {
  const { store, clock } = open(t, { maxEndings: 4, keepEndings: HOUR })
  const [old] = await insert(store, 1, { op: 'old', expiresAt: clock.now() + 1 }) as [SessionRecord]
  const sessions = await insert(store, 3)
  clock.advance(10 * HOUR)
  const [first, second, third] = await insert(store, 3, { op: 'later' }) as [SessionRecord, SessionRecord, SessionRecord]
  await end(store, first, second)
  t.equal(await store.get(old.id), null)
  await end(store, third)
  for (const { id } of [first, second, third]) t.match(await store.ending(id), { reason: 'revoked' })
  t.match(await store.ending(old.id), { reason: 'expired', at: old.expiresAt })
  t.equal(sessions.length, 3)
})

t.test('an insert that is repeated when an ending is forgotten is refused, and doubles nothing', async t => {
  const { store } = open(t, { maxEndings: 2 })
  const records = [sessionRecord({ issuedAt: store.now(), op: 'op' }), sessionRecord({ issuedAt: store.now(), op: 'op' })]
  const { inserted: [kept, ended] } = await store.insert(records, { op: 'op' })
  if (ended !== undefined) await end(store, ended, ...await insert(store, 3, { sub: 'bob' }))
  await setImmediate()
  t.match(await store.insert(records, { op: 'op' }), { inserted: [], refused: [{ reason: 'exists', id: kept?.id }] })
  t.equal(await store.count({}), 1)
  t.equal((await store.health()).sessions, 1)
})

t.test('while many sessions end together others get their turn, and each ending is told once', async t => {
  const { store } = open(t)
  const sessions = await insert(store, 12_000)
  const told: string[] = []
  const all = store.endAll({ tenant: '', sub: 'alice' }, { reason: 'revoked', by: null, op: 'all' }, ended => told.push(...ended.map(({ id }) => id)))
  // Ended by somebody else while it waits for its slice.
  const last = sessions.at(-1)?.id ?? ''
  const ended = await store.end([last], { reason: 'limit', by: null, op: 'other' })
  await insert(store, 1, { op: 'meanwhile' })
  t.equal(await turnsDuring(all) > 1, true)

  t.equal(await all, 11_999)
  t.equal(new Set(told).size, 11_999)
  t.same(ended.map(({ id }) => id), [last])
  t.match(await store.ending(last), { reason: 'limit' })
  t.equal(await store.count({ tenant: '', sub: 'alice' }), 1)
})

t.test('where every session is kept, nothing is told', async t => {
  const { store } = open(t)
  const [session] = await insert(store, 1) as [SessionRecord]
  const told = () => t.fail('nothing ended')
  t.equal(await store.endAll({ tenant: '', sub: 'alice', except: [session.id] }, { reason: 'revoked', by: null, op: 'all' }, told), 0)
})

t.test('of two that end all sessions at the same time each returns when all have ended', async t => {
  const { store } = open(t)
  const sessions = await insert(store, 12_000)
  const endAll = async (op: string) => {
    const count = await store.endAll({ tenant: '', sub: 'alice' }, { reason: 'revoked', by: null, op })
    const left = await Promise.all(sessions.map(async ({ id }) => await store.get(id)))
    t.same(left.filter(session => session !== null), [])
    return count
  }
  const [first, second] = await Promise.all([endAll('first'), endAll('second')])
  t.equal(first + second, 12_000)
})

t.test('a search through all sessions lets others have their turn', async t => {
  const { store } = open(t)
  for (let i = 0; i < 10; i++) await insert(store, 10_000, { op: `insert ${i}`, sub: `user-${i}` })
  const found = store.find({ client: 'none' }, { limit: 10 })
  t.ok(await turnsDuring(found) > 1)
  t.same(await found, { sessions: [], cursor: null })
})

t.test('a subject\'s memory is given back with its last session', async t => {
  const { store } = open(t)
  for (let i = 0; i < 3; i++) {
    const [session] = await insert(store, 1, { op: `insert ${i}` }) as [SessionRecord]
    await end(store, session)
    t.equal(await store.endAll({ tenant: '', sub: 'alice' }, { reason: 'revoked', by: null, op: `all ${i}` }), 0)
  }
  t.equal((await store.health()).sessions, 0)
})

t.test('keys are spread over the shards, also those that end alike', async t => {
  const keys = Array.from({ length: 10_000 }, (_, i) => subjectKey({ tenant: '', sub: `user${i}@example.com` }))
  const shards = new Map<number, number>()
  for (const key of keys) shards.set(everyCharacter(key) & 255, (shards.get(everyCharacter(key) & 255) ?? 0) + 1)
  t.equal(shards.size, 256)
  t.ok(Math.max(...shards.values()) < 100, 'none holds much more than its 39')

  const map = new ShardedMap<number>()
  for (const [i, key] of ['', 'a', 'ab', ...keys].entries()) map.set(key, i)
  t.equal(map.get(''), 0)
  t.equal(map.get(keys[7] ?? ''), 10)
  t.equal(map.delete('ab'), true)
  t.equal(map.delete('ab'), false)
  t.equal([...map].length, 10_002)
  map.clear()
  t.same([...map], [])
})

t.test('documents that have expired leave memory without anyone reading them', async t => {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now, sweepInterval: 1 })
  t.teardown(() => store.close())
  await store.documents.write('devices', 'alice', null, 'a', clock.now() + 1000)
  await store.documents.write('devices', 'bob', null, 'b', Infinity)
  clock.advance(1000)
  while (store.documents.size > 1) await setImmediate()
  t.equal(await store.documents.read('devices', 'bob'), 'b')
})

t.test('who comes first among many is noted anew where most of what was noted has ended', async t => {
  const { store, clock } = open(t)
  const one = async (limits: SessionLimit[] = []) => {
    clock.advance(1)
    const { inserted: [session], evicted } = await store.insert([sessionRecord({ sub: 'alice', issuedAt: clock.now(), lastUsedAt: clock.now(), expiresAt: clock.now() + HOUR })], { limits, op: String(clock.now()) })
    return { id: String(session?.id), evicted: evicted.map(({ session: { id } }) => id) }
  }
  const limits: SessionLimit[] = [{ name: 'oldest', max: 100, onExceed: 'end-oldest' }, { name: 'used', max: 99, onExceed: 'end-least-recently-used' }]
  const ids: string[] = []
  while (ids.length < 100) ids.push((await one()).id)
  t.same((await one(limits)).evicted, ids.splice(0, 2))
  for (let i = 0; i < 300; i++) await store.end([(await one()).id], { reason: 'revoked', by: null, op: `end ${i}` })
  t.same((await one(limits)).evicted, ids.splice(0, 1))
  t.same((await one(limits)).evicted, ids.splice(0, 1))
})
