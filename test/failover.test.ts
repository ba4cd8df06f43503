import { randomUUID } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createRedisStore } from '../plugins/redis-store/index.ts'
import { failover, type FailoverOptions, type FailoverStore, type Switch } from '../plugins/resilience/index.ts'
import { sessionRecord, storeContract, type OpenedStore } from '../plugins/testing/index.ts'
import {
  memoryStore, SessionConflict, StoreCorrupt, StoreUnavailable, TokenValidation, type MemoryStore, type Presented, type SessionQuery, type SessionRecord, type StoreHealth, type TokenStore
} from '../plugins/token-registry/index.ts'
import { build } from './support/build.ts'
import { Clock } from './support/clock.ts'
import { decorated, without } from './support/decorated.ts'
import { deferred, soon } from './support/deferred.ts'
import { redisServer, until } from './support/redis.ts'

const unavailable = { code: 'FST_STORE_UNAVAILABLE', statusCode: 503, critical: true }
const alice = { tenant: '', sub: 'alice' }
const presented: Presented = { once: false, generation: 0, kid: 1, binding: null, reuseWindow: 10_000, by: null }
const answering = ['insert', 'get', 'update', 'rotate', 'touch', 'end', 'endAll', 'ending', 'find', 'count', 'mark', 'marked', 'health', 'close'] as const

/** What becomes of calls: each is made, refused, fails as drivers do, is never answered, or is made and its answer lost. */
type Mode = 'up' | 'down' | 'raw' | 'hung' | 'lossy'

class Fallible {
  mode: Mode = 'up'
  readonly store: TokenStore
  /** Names of the calls that were made. */
  readonly calls: string[] = []

  constructor (store: TokenStore) {
    const methods = Object.fromEntries(answering.map(name => [name, async (...args: unknown[]) => {
      this.calls.push(name)
      const call = (): unknown => Reflect.apply(store[name], store, args)
      switch (this.mode) {
        case 'up': return await call()
        case 'down': throw new StoreUnavailable(name)
        case 'raw': throw new Error('ECONNREFUSED')
        case 'hung': return await new Promise(() => {})
        case 'lossy':
          await call()
          throw new StoreUnavailable(name)
      }
    }]))
    this.store = decorated(store, methods)
  }
}

interface Rig {
  store: FailoverStore
  primary: Fallible
  secondary: Fallible
  /** What stands behind them. */
  stores: { primary: MemoryStore, secondary: MemoryStore }
  clock: Clock
  switches: Switch[]
  /** Lets the primary go away, and waits until that is noticed. */
  goAway (mode?: Mode): Promise<void>
  comeBack (): Promise<void>
  record (draft?: Partial<SessionRecord>): SessionRecord
  insert (draft?: Partial<SessionRecord>): Promise<SessionRecord>
}

/** Two memory stores on one clock that is moved by hand, checked each millisecond. */
function rig (t: Test, options: Partial<FailoverOptions> = {}): Rig {
  const clock = new Clock()
  const stores = { primary: memoryStore({ now: clock.now }), secondary: memoryStore({ now: clock.now }) }
  const [primary, secondary] = [new Fallible(stores.primary), new Fallible(stores.secondary)]
  const switches: Switch[] = []
  const store = failover({
    primary: primary.store, secondary: secondary.store, checkInterval: 1, checkTimeout: 50, failAfter: 2, recoverAfter: 2, onSwitch: event => { switches.push(event) }, ...options
  })
  t.teardown(async () => {
    primary.mode = secondary.mode = 'up'
    await store.close()
  })
  const record = (draft: Partial<SessionRecord> = {}): SessionRecord => sessionRecord({ issuedAt: clock.now(), ...draft })
  return {
    store,
    primary,
    secondary,
    stores,
    clock,
    switches,
    goAway: async (mode = 'down') => {
      primary.mode = mode
      await becomes(store, 'secondary')
      clock.advance(1)
    },
    comeBack: async () => {
      primary.mode = 'up'
      await becomes(store, 'primary')
      clock.advance(1)
    },
    record,
    insert: async draft => await inserted(store, record(draft))
  }
}

async function inserted (store: TokenStore, record: SessionRecord): Promise<SessionRecord> {
  const { inserted: [session] } = await store.insert([record], { op: record.op })
  if (session === undefined) throw new Error('it was refused')
  return session
}

async function becomes (store: FailoverStore, active: FailoverStore['active']): Promise<void> {
  await until(`the ${active} is in use`, [], () => store.active === active)
}

function because (op: string = randomUUID()): { reason: string, by: null, op: string } {
  return { reason: 'revoked', by: null, op }
}

function idsOf (sessions: ReadonlyArray<{ id: string }>): string[] {
  return sessions.map(({ id }) => id).sort()
}

async function findAll (store: TokenStore, query: SessionQuery, limit: number): Promise<SessionRecord[]> {
  const all: SessionRecord[] = []
  let cursor: string | null = null
  do {
    const page = await store.find(query, { limit, cursor })
    all.push(...page.sessions)
    cursor = page.cursor
  } while (cursor !== null)
  return all
}

// The contract

/** Opens a failover on two memory stores that is not checked while a test runs. */
function opens (wrap: (store: FailoverStore, secondary: MemoryStore) => TokenStore): () => OpenedStore {
  return () => {
    const clock = new Clock()
    const secondary = memoryStore({ now: clock.now })
    const store = failover({ primary: memoryStore({ now: clock.now }), secondary })
    return { store: wrap(store, secondary), advance: async ms => clock.advance(ms), close: async () => await store.close() }
  }
}

t.test('the store contract, while both are healthy', async t => {
  for (const { name, run } of storeContract(opens(store => store))) await t.test(name, run)
})

t.test('the store contract, for all that was issued while the primary was away, now that it is back', async t => {
  const asIssuedOnSecondary = opens((store, secondary) => decorated(store, { insert: async (records, options) => await secondary.insert(records, options) }))
  for (const { name, run } of storeContract(asIssuedOnSecondary)) await t.test(name, run)
})

t.test('the store contract, while the primary is away from the start, but for what only the primary knows', async t => {
  const open = async (): Promise<OpenedStore> => {
    const made = rig(t)
    await made.goAway()
    return { store: butForWhatThePrimaryKnows(made), advance: async ms => made.clock.advance(ms), close: async () => {} }
  }
  for (const { name, run } of storeContract(open)) await t.test(name, run)
})

/** Answers from the secondary what is rightly refused, and only that. */
function butForWhatThePrimaryKnows ({ store, stores: { secondary } }: Rig): TokenStore {
  const issued = new Set<string>()
  const refused = async <T> (call: () => Promise<T>, isRight: boolean, answer: () => Promise<T> | T): Promise<T> => {
    try {
      return await call()
    } catch (error) {
      if (!isRight || !(error instanceof StoreUnavailable)) throw error
      return await answer()
    }
  }
  const about = async <T> (id: string, call: (on: TokenStore) => Promise<T>): Promise<T> => await refused(() => call(store), !issued.has(id), () => call(secondary))
  const always = async <T> (call: (on: TokenStore) => Promise<T> | T): Promise<T> => await refused(async () => {
    await call(store)
    throw new Error('it is never answered')
  }, true, () => call(secondary))
  return decorated(store, {
    insert: async (records, options) => {
      const isRight = records.some(({ kid, origin }) => kid === null || (origin !== null && !issued.has(origin)))
      const outcome = await refused(() => store.insert(records, options), isRight, () => secondary.insert(records, options))
      for (const { id } of outcome.inserted) issued.add(id)
      return outcome
    },
    get: async id => await about(id, on => on.get(id)),
    update: async (id, ...args) => await about(id, on => on.update(id, ...args)),
    rotate: async (id, ...args) => await about(id, on => on.rotate(id, ...args)),
    ending: async id => await about(id, on => on.ending(id)),
    end: async (ids, cause) => await refused(() => store.end(ids, cause), !ids.every(id => issued.has(id)), () => secondary.end(ids, cause)),
    endAll: async (of, cause, told) => {
      // The first call tells it, the second counts it.
      let calls = 0
      return await always(async on => await on.endAll(of, cause, calls++ === 0 ? told : undefined))
    },
    find: async (...args) => await always(async on => await on.find(...args)),
    count: async query => await always(async on => await on.count(query)),
    mark: async (...args) => await always(async on => await on.mark(...args)),
    marked: async (...args) => await always(on => on.marked(...args)),
    subjects: tenant => secondary.subjects(tenant),
    documents: secondary.documents,
    health: async () => ({ ...await store.health(), status: 'ok' })
  })
}

// When it switches

/** Which store was in use at each of the checks, whose outcomes are given. */
async function activeAt (t: Test, outcomes: ReadonlyArray<Partial<StoreHealth> | Error | 'hung'>, options: Partial<FailoverOptions> = {}): Promise<{ seen: string[], switches: Switch[] }> {
  const seen: string[] = []
  const switches: Switch[] = []
  const done = deferred()
  const store: FailoverStore = failover({
    primary: decorated(memoryStore(), {
      health: async () => {
        const outcome = outcomes[seen.length]
        seen.push(store.active)
        if (outcome === undefined) done.resolve()
        if (outcome === 'hung') return await new Promise(() => {})
        if (outcome instanceof Error) throw outcome
        return { status: 'ok', latency: 0, ...outcome }
      }
    }),
    secondary: memoryStore(),
    checkInterval: 1,
    checkTimeout: 20,
    failAfter: 3,
    recoverAfter: 2,
    onSwitch: event => { switches.push(event) },
    ...options
  })
  t.teardown(async () => await store.close())
  await soon(done.promise)
  return { seen: seen.slice(0, outcomes.length + 1), switches }
}

const ok = {}
const fail: Partial<StoreHealth> = { status: 'fail' }
const [p, s] = ['primary', 'secondary']

t.test('it switches after so many failed checks in a row, and back after so many good ones', async t => {
  const { seen, switches } = await activeAt(t, [ok, fail, fail, fail, ok, ok, ok])
  t.same(seen, [p, p, p, p, s, s, p, p])
  t.same(switches, [{ to: s, reason: 'its health is "fail"' }, { to: p, reason: '2 checks in a row succeeded' }])
})

t.test('a check that fails, throws or is not answered in time counts alike, and the last one gives the reason', async t => {
  const { seen, switches: [away] } = await activeAt(t, ['hung', new Error('refused'), { status: 'fail', detail: 'disk full' }])
  t.same([seen, away], [[p, p, p, s], { to: s, reason: 'disk full' }])
  const { switches: [hung] } = await activeAt(t, [fail, fail, 'hung'])
  t.match(hung?.reason, /did not answer health within 20 ms/)
  const { switches: [odd] } = await activeAt(t, [fail, fail, Object.assign(new Error(''), { message: 'odd' })])
  t.equal(odd?.reason, 'odd')
})

t.test('a flapping primary is left where it is: only checks in a row count, either way', async t => {
  t.same((await activeAt(t, [fail, fail, ok, fail, fail, ok, fail, fail])).seen, Array(9).fill(p))
  t.same((await activeAt(t, [fail, fail, fail, ok, fail, ok, fail, ok])).seen, [p, p, p, ...Array(6).fill(s)])
})

t.test('a primary that is degraded works', async t => {
  t.same((await activeAt(t, Array(5).fill({ status: 'degraded' }))).seen, Array(6).fill(p))
})

t.test('onSwitch may throw, at once or later: the switch stands, and the process is warned', async t => {
  const warnings: string[] = []
  const heard = (warning: Error): void => { warnings.push(warning.message) }
  process.on('warning', heard)
  t.teardown(() => process.off('warning', heard))
  const { seen } = await activeAt(t, [fail, fail, fail, ok, ok], {
    onSwitch: ({ to }) => {
      if (to === 'secondary') throw new Error('thrown')
      // eslint-disable-next-line prefer-promise-reject-errors
      return Promise.reject('rejected')
    }
  })
  t.same(seen, [p, p, p, s, s, p])
  await until('both are told', [], () => warnings.length === 2)
  t.same(warnings, ['thrown', 'rejected'])
})

/** Whether a primary that says it is healthy stays in use, while calls of it come out so: before each check, the last list before all that follow. */
async function withstands (t: Test, ...rounds: ReadonlyArray<readonly unknown[]>): Promise<boolean> {
  let checks = 0
  let next: unknown = null
  const store: FailoverStore = failover({
    primary: decorated(memoryStore(), {
      health: async () => {
        for (next of rounds[checks++] ?? rounds.at(-1) ?? []) await store.update('', {}).catch(() => {})
        return { status: 'ok', latency: 0 }
      },
      update: async () => {
        if (next !== null) throw next
        return null
      }
    }),
    secondary: memoryStore(),
    checkInterval: 1,
    failAfter: 3
  })
  t.teardown(async () => await store.close())
  await until('it was checked', [], () => checks > 10 || store.active === 'secondary')
  return store.active === 'primary'
}

t.test('it switches when every call fails, though the primary says it is healthy', async t => {
  t.notOk(await withstands(t, [new StoreUnavailable('update')]))
  t.notOk(await withstands(t, [new Error('READONLY')]), 'with an error that has no code')
  t.notOk(await withstands(t, ['text']), 'with what is no error')
  t.notOk(await withstands(t, [null], [new StoreUnavailable('update')]), 'and none is answered any more')
})

t.test('it never switches for what the caller did wrong, for a damaged record, or for some calls of many', async t => {
  t.ok(await withstands(t, [new SessionConflict()]))
  t.ok(await withstands(t, [new TokenValidation('meta: is too long')]))
  t.ok(await withstands(t, [new StoreCorrupt('id')]))
  t.ok(await withstands(t, [new StoreUnavailable('update'), null, new Error('READONLY')]))
  t.ok(await withstands(t, [new StoreUnavailable('update')], []), 'nor for a call of some time ago')
})

t.test('calls that end late say nothing of how the primary is now', async t => {
  const { store, stores, goAway, comeBack, switches } = rig(t)
  const late: Array<(error: Error) => void> = []
  stores.primary.get = async () => await new Promise((_resolve, reject) => { late.push(reject) })
  const { health } = stores.primary
  // One of them ends at each check.
  stores.primary.health = async () => {
    late.pop()?.(new Error('late'))
    return await health.call(stores.primary)
  }
  const gets = Array.from({ length: 100 }, async () => { await t.rejects(store.get('id'), { message: 'late' }) })
  await goAway()
  await comeBack()
  t.ok(late.length > 0)
  t.equal(switches.length, 2)
  for (const end of late) end(new Error('late'))
  await Promise.all(gets)
})

t.test('a primary that hangs is left', async t => {
  const { store, insert, goAway, comeBack, switches } = rig(t, { checkTimeout: 5 })
  await goAway('hung')
  t.match(switches[0]?.reason, /within 5 ms/)
  const { id } = await soon(insert())
  t.ok(await soon(store.get(id)))
  await comeBack()
})

// While the primary is away

t.test('while the primary is away, sign-ins go on: what is issued works, rotates once, changes and ends', async t => {
  const { store, stores, insert, goAway } = rig(t)
  await goAway()
  const { id } = await insert({ idleTimeout: 60_000 })
  t.match(await store.get(id), { id })
  t.equal(await stores.primary.get(id), null)

  const rotated = await store.rotate(id, presented, 'op')
  t.match(rotated, { status: 'rotated', session: { generation: 1 } })
  t.same(await store.rotate(id, presented, 'op'), rotated, 'a repetition gets the first answer')
  t.match(await store.rotate(id, { ...presented, once: true }, 'other'), { status: 'unknown' })
  t.match(await store.update(id, { version: '2' }), { version: '2' })
  await store.touch([{ id, at: store.now() + 5 }])
  t.equal((await store.get(id))?.lastUsedAt, store.now() + 5)

  t.equal(await store.ending(id), null)
  t.same(idsOf(await store.end([id], because())), [id])
  t.same(await store.end([id], because()), [], 'it had ended')
  t.match(await store.ending(id), { id, reason: 'revoked' })
  t.equal(await store.get(id), null, 'that it has ended is known')
  t.equal(await store.update(id, {}), null)
})

t.test('while the primary is away, what it may know is answered 503: never null, never done', async t => {
  const { store, stores, insert, record, goAway, comeBack } = rig(t)
  const session = await insert()
  const { id } = session
  await goAway()
  const mine = await insert()

  const refused: Record<string, () => Promise<unknown>> = {
    get: () => store.get(id),
    update: () => store.update(id, { version: '2' }),
    rotate: () => store.rotate(id, presented, 'op'),
    ending: () => store.ending(id),
    end: () => store.end([id], because()),
    find: () => store.find(alice, { limit: 10 }),
    count: () => store.count(alice),
    mark: () => store.mark('denylist', 'jti', store.now() + 60_000),
    marked: async () => await store.marked('denylist', 'jti', store.now()),
    'what comes of a one-time token of before': () => insert({ origin: id }),
    'an adopted token': () => insert({ kid: null })
  }
  for (const [name, call] of Object.entries(refused)) await t.rejects(call(), unavailable, name)
  await store.touch([{ id, at: store.now() }])
  await t.rejects(store.get(record().id), unavailable, 'nor is it known that there is no such session')

  await comeBack()
  t.same(await store.get(id), session, 'nothing was done')
  t.equal(await store.marked('denylist', 'jti'), false)
  t.equal(await stores.secondary.count({}), 1)
  t.same(idsOf(await store.end([id, mine.id], because())), idsOf([session, mine]), 'repeated, it is done')
  t.equal(await store.mark('denylist', 'jti', store.now() + 60_000), true)
  t.equal(await store.marked('denylist', 'jti'), true)
})

t.test('a primary that answers again is not asked before it counts as back, and proves nothing', async t => {
  const { store, primary, insert, goAway } = rig(t, { recoverAfter: 1000 })
  const { id } = await insert()
  await goAway()
  primary.mode = 'up'
  primary.calls.length = 0
  await t.rejects(store.get(id), unavailable)
  await t.rejects(store.end([id], because()), unavailable)
  await t.rejects(store.endAll(alice, because()), unavailable)
  await t.rejects(store.find(alice, { limit: 10 }), unavailable)
  await t.rejects(store.count(alice), unavailable)
  await t.rejects(store.mark('lease', 'sweep', store.now() + 60_000), unavailable)
  await t.rejects(async () => await store.marked('denylist', 'jti'), unavailable)
  await store.touch([{ id, at: store.now() }])
  await insert()
  t.match(await store.health(), { status: 'degraded' })
  await until('it is not believed that changes are heard of', [], () => store.staleness > 300)
  t.same(primary.calls.filter(name => name !== 'health'), [])
})

t.test('to end sessions of both ends those that can be ended, and says that it is not all', async t => {
  const { store, insert, goAway, comeBack } = rig(t)
  const old = await insert()
  await goAway()
  const [fresh, freshToo] = [await insert(), await insert()]
  await t.rejects(store.end([old.id, fresh.id], because('one')), unavailable)
  t.equal(await store.get(fresh.id), null)

  const told: SessionRecord[] = []
  await t.rejects(store.endAll(alice, because('all'), slice => told.push(...slice)), unavailable)
  t.same(idsOf(told), [freshToo.id], 'what ended is told')
  t.equal(await store.get(freshToo.id), null)

  await comeBack()
  t.same((await store.end([old.id, fresh.id], because('one'))).map(({ id }) => id), [old.id, fresh.id], 'the repetition tells both, in the order given')
  const another = await insert()
  const again: SessionRecord[] = []
  t.equal(await store.endAll(alice, because('all'), slice => again.push(...slice)), 2)
  t.same(idsOf(again), idsOf([freshToo, another]))
})

t.test('endAll ends what it can also where one of the stores fails, and then says so', async t => {
  const { store, primary, secondary, stores, record } = rig(t, { checkInterval: '1h' })
  for (const [failing, other] of [[primary, 'secondary'], [secondary, 'primary']] as const) {
    const { id } = await inserted(stores[other], record())
    failing.mode = 'raw'
    await t.rejects(store.endAll(alice, because()), { message: 'ECONNREFUSED' })
    t.equal(await stores[other].get(id), null)
    failing.mode = 'up'
  }
})

t.test('a secondary that keeps no endings does not know what has ended on it', async t => {
  const clock = new Clock()
  const secondary = memoryStore({ now: clock.now })
  const { store, insert, goAway } = rig(t, { secondary: without(secondary, 'ending') })
  await goAway()
  const { id } = await insert({ issuedAt: clock.now() + 1 })
  t.ok(await store.get(id))
  t.same(idsOf(await store.end([id], because())), [id])
  await t.rejects(store.get(id), unavailable)
})

// A call whose outcome is unknown

t.test('a rotation whose answer was lost is never made on the other store', async t => {
  const { store, primary, stores, insert, goAway, comeBack } = rig(t)
  const { id } = await insert()
  primary.mode = 'lossy'
  await t.rejects(store.rotate(id, presented, 'op'), unavailable)
  await goAway()
  await t.rejects(store.rotate(id, presented, 'op'), unavailable)
  await t.rejects(store.rotate(id, { ...presented, generation: 1 }, 'next'), unavailable)
  await comeBack()
  t.match(await store.rotate(id, presented, 'op'), { status: 'rotated', session: { generation: 1 } }, 'repeated where it was made, it gets its first answer')
  t.equal(await stores.secondary.count({}), 0)
})

t.test('an insert that was begun on one store is never made on the other', async t => {
  const { store, primary, secondary, stores, record, goAway, comeBack } = rig(t)
  const first = record()
  primary.mode = 'lossy'
  await t.rejects(store.insert([first], { op: first.op }), unavailable)
  await goAway()
  await t.rejects(store.insert([first], { op: first.op }), unavailable)
  t.equal(await stores.secondary.get(first.id), null)

  const second = record()
  secondary.mode = 'lossy'
  await t.rejects(store.insert([second], { op: second.op }), unavailable)
  secondary.mode = 'up'
  await comeBack()
  await t.rejects(store.insert([second], { op: second.op }), unavailable)
  t.equal(await stores.primary.get(second.id), null)
  t.match([await store.get(first.id), await store.get(second.id)], [{ id: first.id }, { id: second.id }], 'both live, each once')
  t.equal(await store.count({}), 2)
})

// When it is back

t.test('what was issued during the outage goes on where it lives, beside what is issued since', async t => {
  const { store, stores, insert, goAway, comeBack, clock } = rig(t)
  const before = await insert()
  clock.advance(1)
  await goAway()
  const during = await insert()
  await comeBack()
  const after = await insert()

  t.same((await store.find(alice, { limit: 10 })).sessions.map(({ id }) => id), [after, during, before].map(({ id }) => id), 'newest first')
  t.equal(await store.count({}), 3)
  t.match(await store.rotate(during.id, presented, 'op'), { status: 'rotated', session: { generation: 1 } })
  t.match(await store.update(during.id, { version: '2' }), { generation: 1, version: '2' })
  await store.touch([{ id: during.id, at: clock.now() + 5 }, { id: after.id, at: clock.now() + 5 }])
  t.match([await store.get(during.id), await store.get(after.id)], [{ lastUsedAt: clock.now() + 5 }, { lastUsedAt: clock.now() + 5 }])
  t.equal(await stores.primary.get(during.id), null, 'it was not moved')

  await goAway()
  t.match(await store.rotate(during.id, { ...presented, generation: 1 }, 'op2'), { status: 'rotated', session: { generation: 2 } }, 'another outage does not concern it')
  await comeBack()
  t.equal(await store.endAll(alice, because()), 3)
  t.match(await store.ending(during.id), { reason: 'revoked' })
  t.same(await findAll(store, {}, 10), [])
})

t.test('what comes of a one-time token lives where that does, and ends with it', async t => {
  const { store, stores, insert, record, goAway, comeBack } = rig(t)
  const consume = async (id: string) => await store.rotate(id, { ...presented, once: true, reuseWindow: 0 }, randomUUID())
  const old = await insert({ use: 'once' })
  await consume(old.id)
  await goAway()
  const code = await insert({ use: 'once' })
  const codeToo = await insert({ use: 'once' })
  await consume(code.id)
  const during = await insert({ origin: code.id })
  await comeBack()
  await consume(codeToo.id)

  const records = [record({ sub: 'bob', op: 'op' }), record({ origin: codeToo.id, op: 'op' }), record({ sub: 'carol', origin: old.id, op: 'op' })]
  const { inserted, refused } = await store.insert(records, { op: 'op' })
  t.same(inserted.map(({ id }) => id), records.slice(0, 2).map(({ id }) => id), 'in the order given')
  t.match(refused, [{ reason: 'origin', id: old.id, sub: 'carol' }], 'which is not her token')
  t.equal((await stores.secondary.count({})), 2)
  t.same(await store.insert(records, { op: 'op' }), { inserted, evicted: [], refused }, 'a repetition gets the first answer')

  const came = await insert({ origin: old.id })
  t.ok(await stores.primary.get(came.id))
  for (const [token, of] of [[code, during], [codeToo, records[1]], [old, came]] as const) {
    const reused = await consume(token.id)
    t.same(reused.status === 'reused' && reused.ended.map(({ id }) => id), [token.id, of?.id])
    t.equal(await store.get(of?.id ?? ''), null)
    await t.rejects(insert({ origin: token.id }), { message: 'it was refused' })
  }
})

t.test('a list of both holds each session once, the newest first, whatever begins and ends meanwhile', async t => {
  const { store, stores, record, clock } = rig(t)
  const both = [stores.primary, stores.secondary]
  let seed = 7
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor(seed / 2 ** 31 * below)
  }
  for (let round = 0; round < 60; round++) {
    const limit = 1 + random(7)
    const sessions: SessionRecord[] = []
    const add = async (): Promise<SessionRecord> => {
      clock.advance(random(3))
      return await inserted(both[random(2)] as TokenStore, record()) // there are two
    }
    for (let i = random(30); i > 0; i--) sessions.push(await add())
    const settled = await findAll(store, alice, limit)
    t.same(idsOf(settled), idsOf(sessions), `round ${round}, pages of ${limit}`)
    const times = settled.map(({ issuedAt }) => issuedAt)
    t.same(times, times.toSorted((a, b) => b - a), 'the newest first')
    t.same(idsOf(await findAll(store, {}, limit)), idsOf(sessions), 'of everybody, too')
    t.equal(await store.count(alice), sessions.length)

    const ended = new Set<string>()
    const found: string[] = []
    let cursor: string | null = null
    do {
      const page: { sessions: SessionRecord[], cursor: string | null } = await store.find(alice, { limit, cursor })
      t.ok(page.sessions.length <= limit)
      t.notOk(page.sessions.some(({ id }) => ended.has(id)))
      found.push(...idsOf(page.sessions))
      cursor = page.cursor
      await add()
      const [victim] = sessions.slice(random(30))
      if (victim !== undefined) {
        ended.add(victim.id)
        await store.end([victim.id], because())
      }
    } while (cursor !== null)
    t.equal(new Set(found).size, found.length, 'nothing twice')
    t.same(sessions.filter(({ id }) => !ended.has(id) && !found.includes(id)), [], 'nothing missed')
    await store.endAll(alice, because())
  }
})

t.test('what ends between two looks at one page shifts nothing', async t => {
  const { store, stores, record, clock, primary } = rig(t, { checkInterval: '1h' })
  const sessions: SessionRecord[] = []
  for (let i = 0; i < 12; i++) {
    clock.advance(1)
    sessions.push(await inserted(i % 2 === 0 ? stores.primary : stores.secondary, record()))
  }
  const live = new Map(sessions.map(session => [session.id, session]))
  const find = stores.primary.find.bind(stores.primary)
  // The newest of the page ends each time when it was looked at.
  stores.primary.find = async (query, page) => {
    const found = await find(query, page)
    const [newest] = found.sessions
    if (newest !== undefined && primary.calls.length % 2 === 1) {
      live.delete(newest.id)
      await stores.primary.end([newest.id], because())
    }
    return found
  }
  const found = (await findAll(store, alice, 4)).map(({ id }) => id)
  t.same([...live.keys()].filter(id => !found.includes(id)), [])
  t.equal(new Set(found).size, found.length)
})

t.test('a cursor of one of the stores is none of both', async t => {
  const { store, stores, record } = rig(t)
  for (let i = 0; i < 3; i++) await inserted(stores.primary, record())
  const { cursor } = await stores.primary.find(alice, { limit: 1 })
  const asJson = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  for (const wrong of [cursor, asJson('x'), asJson([null]), asJson([true, null]), asJson([null, null, null]), asJson(['?', null]), `${asJson([null, false])}=`]) {
    await t.rejects(store.find(alice, { limit: 1, cursor: wrong }), { code: 'FST_TOKEN_VALIDATION' }, String(wrong))
  }
})

// The cache

t.test('nothing is taken from the cache while the primary is away, and all of it is forgotten before it counts again', async t => {
  const { store, stores, insert, goAway, comeBack } = rig(t)
  t.equal(store.staleness, 0)
  const told: Array<[readonly string[] | 'all', boolean]> = []
  const tell = (ids: readonly string[] | 'all'): void => { told.push([ids, store.staleness > 0]) }
  const [stop, stopToo] = [store.onInvalidate(tell), store.onInvalidate(tell)]
  await goAway()
  t.ok(store.staleness > 0)
  await until('it grows', [], () => store.staleness > 20)
  const { id } = await insert()
  await store.end([id], because())
  t.same(told.splice(0), [[[id], true], [[id], true]])
  await comeBack()
  t.equal(store.staleness, 0)
  t.same(told.splice(0), [['all', true], ['all', true]])

  stop()
  const { id: other } = await insert()
  await stores.primary.end([other], because())
  t.same(told.splice(0), [[[other], false]], 'the other is told still')
  stopToo()
  await goAway()
  await comeBack()
  t.same(told, [])
})

t.test('a secondary that misses what others change matters only where something is known to live on it', async t => {
  const { stores, clock } = rig(t)
  const secondary = without(stores.secondary, 'staleness', 'onInvalidate')
  const { store } = rig(t, { secondary, primary: stores.primary })
  const { id } = await inserted(store, sessionRecord({ issuedAt: clock.now() }))
  await store.get(id)
  await store.touch([{ id, at: clock.now() }])
  t.equal(store.staleness, 0)
  const { id: other } = await inserted(stores.secondary, sessionRecord({ issuedAt: clock.now() }))
  t.ok(await store.get(other), 'another process issued it there')
  t.equal(store.staleness, Infinity)

  const again = rig(t, { secondary: without(memoryStore(), 'staleness', 'onInvalidate') })
  await again.goAway()
  await again.insert()
  await again.comeBack()
  t.equal(again.store.staleness, Infinity, 'this process did')
})

t.test('the secondary is not needed while the primary is there and knows the session', async t => {
  const { store, primary, secondary, insert } = rig(t)
  secondary.mode = 'hung'
  const { id } = await soon(insert())
  t.ok(await soon(store.get(id)))
  t.match(await soon(store.rotate(id, presented, 'op')), { status: 'rotated' })
  await soon(store.touch([{ id, at: 5 }]))
  t.equal(await soon(store.mark('denylist', 'jti', store.now() + 1000)), true)
  t.equal(await soon((async () => await store.marked('denylist', 'jti'))()), true)
  t.equal((await soon(store.end([id], because()))).length, 1)
  t.same(primary.calls.filter(name => name !== 'health'), ['insert', 'get', 'rotate', 'touch', 'mark', 'marked', 'end'])
  t.same(secondary.calls, ['touch'])
})

t.test('that a use could not be noted on the secondary matters only where something lives there', async t => {
  const { store, secondary, insert, goAway, comeBack } = rig(t)
  const { id } = await insert()
  secondary.mode = 'raw'
  await store.touch([{ id, at: 5 }])
  await setImmediate() // else an unhandled rejection would not be seen
  secondary.mode = 'up'
  await goAway()
  await insert()
  await comeBack()
  secondary.mode = 'raw'
  await t.rejects(store.touch([{ id, at: 5 }]), { message: 'ECONNREFUSED' })
})

t.test('expiries are told of both', async t => {
  const { store, insert, clock, goAway } = rig(t)
  const told: string[] = []
  const stop = store.onExpire(({ id }) => told.push(id))
  const old = await insert({ expiresAt: clock.now() + 1000 })
  clock.advance(1000)
  t.equal(await store.get(old.id), null)
  await goAway()
  const fresh = await insert({ expiresAt: clock.now() + 1000 })
  clock.advance(1000)
  t.equal(await store.get(fresh.id), null)
  t.match(await store.ending(fresh.id), { reason: 'expired' })
  t.same(told, [old.id, fresh.id])
  stop()
  const last = await insert({ expiresAt: clock.now() + 1000 })
  clock.advance(1000)
  t.equal(await store.get(last.id), null)
  t.equal(told.length, 2)
})

t.test('the clock is that of the primary', async t => {
  const clock = new Clock(5)
  const { store, goAway } = rig(t, { secondary: memoryStore({ now: clock.now }) })
  await goAway()
  t.not(store.now(), 5)
})

// Health, closing, options

t.test('health tells which store is in use, and since when and why it is the other', async t => {
  const { store, primary, secondary, stores, goAway, clock } = rig(t, { checkTimeout: 5, failAfter: 50 })
  t.equal(store.name, 'failover(memory, memory)')
  t.match(await store.health(), { status: 'ok', sessions: 0 })
  secondary.mode = 'hung'
  t.match(await soon(store.health()), { status: 'degraded', detail: /^the secondary \(memory\) could not take over: .* within 5 ms/ })
  secondary.mode = 'up'
  stores.secondary.health = async () => ({ status: 'degraded', latency: 0 })
  t.match(await store.health(), { status: 'degraded', detail: /its health is "degraded"/ })
  stores.secondary.health = async () => ({ status: 'fail', latency: 0, detail: 'disk full' })
  t.match(await store.health(), { status: 'degraded', detail: /take over: disk full$/ })
  const { health } = stores.primary
  stores.primary.health = async () => ({ status: 'fail', latency: 0, detail: 'gone' })
  t.match(await store.health(), { status: 'fail', detail: 'gone' })
  stores.primary.health = health
  primary.mode = 'down'
  await t.rejects(store.health(), unavailable)

  const since = new Date(clock.now()).toISOString()
  await goAway()
  t.match(await store.health(), { status: 'fail', detail: `the primary (memory) is away since ${since}: The session store is not available (health): try again; disk full` })
  stores.secondary.health = async () => ({ status: 'ok', latency: 0 })
  t.match(await store.health(), { status: 'degraded', detail: /^the primary \(memory\) is away since .*: try again$/ })
})

/** Waits as long as another failover needs for some checks. */
async function checksElsewhere (): Promise<void> {
  let checks = 0
  const primary = decorated(memoryStore(), {
    health: async () => {
      checks++
      return { status: 'ok', latency: 0 }
    }
  })
  const store = failover({ primary, secondary: memoryStore(), checkInterval: 1 })
  await until('it was checked', [], () => checks >= 5)
  await store.close()
}

t.test('closing ends the checks, and closes both stores, also where one fails', async t => {
  for (const failing of [null, 'primary', 'secondary'] as const) {
    const closed: string[] = []
    let checks = 0
    const closing = (name: string): TokenStore => decorated(memoryStore(), {
      health: async () => {
        checks++
        return { status: 'ok', latency: 0 }
      },
      close: async () => {
        closed.push(name)
        if (name === failing) throw new Error(name)
      }
    })
    const store = failover({ primary: closing('primary'), secondary: closing('secondary'), checkInterval: 1 })
    await until('it is checked', [], () => checks > 0)
    if (failing === null) await store.close()
    else await t.rejects(store.close(), { message: failing })
    t.same(closed, ['primary', 'secondary'])
    const before = checks
    await checksElsewhere()
    t.equal(checks, before)
  }
})

t.test('a check that is under way when it is closed switches nothing', async t => {
  const [asked, answer] = [deferred(), deferred()]
  const store = failover({
    primary: decorated(memoryStore(), {
      health: async () => {
        asked.resolve()
        await answer.promise
        throw new Error('closed')
      }
    }),
    secondary: memoryStore(),
    checkInterval: 1,
    failAfter: 1,
    onSwitch: () => t.fail('it switches')
  })
  await soon(asked.promise)
  await store.close()
  answer.resolve()
  await checksElsewhere()
  t.equal(store.active, 'primary')
})

t.test('options that are not what they may be are refused, and named', async t => {
  const memory = memoryStore()
  t.teardown(async () => await memory.close())
  const both = { primary: memory, secondary: memoryStore() }
  t.teardown(async () => await both.secondary.close())
  const cases: Array<[object, RegExp]> = [
    [{ primary: memory }, /secondary/],
    [{ ...both, primary: 'redis://' }, /failover.primary is 'redis:\/\/': it may be a store/],
    [{ ...both, secondary: {} }, /failover.secondary is not a store: it must have insert/],
    [{ ...both, secondary: memory }, /same store/],
    [{ ...both, checkInterval: 0 }, /checkInterval is 0 ms: it may be 1 to 3600000/],
    [{ ...both, checkTimeout: '2h' }, /checkTimeout is 7200000 ms/],
    [{ ...both, checkTimeout: 'soon' }, /checkTimeout is 'soon': it may be a number of milliseconds/],
    [{ ...both, failAfter: 0 }, /failAfter is 0: it may be a whole number/],
    [{ ...both, recoverAfter: 1.5 }, /recoverAfter is 1.5/],
    [{ ...both, onSwitch: 'log' }, /onSwitch is 'log': it may be a function/],
    [{ ...both, fallback: memory }, /fallback is not an option/]
  ]
  for (const [options, message] of cases) t.throws(() => failover(options as FailoverOptions), { code: 'FST_RESILIENCE_OPTIONS', message }) // what callers without types give
})

// Races

t.test('of calls that race a switch, each is made on one store: no session lives twice, none has two successors', async t => {
  const { store, primary, stores, clock, insert, record, switches } = rig(t)
  const old = await insert()
  const issued: SessionRecord[] = []
  const successors = new Map<string, Set<number>>()
  const rotate = async (id: string, generation: number): Promise<void> => {
    const outcome = await store.rotate(id, { ...presented, generation, reuseWindow: 0 }, randomUUID())
    if (outcome.status !== 'rotated') return
    const of = successors.get(id) ?? new Set()
    successors.set(id, of)
    t.notOk(of.has(outcome.session.generation), 'each generation is issued once')
    of.add(outcome.session.generation)
  }
  for (let round = 0; round < 12; round++) {
    primary.mode = (['down', 'up', 'lossy', 'up', 'raw', 'up'] as const)[round % 6] ?? 'up'
    const target = primary.mode === 'up' ? 'primary' : 'secondary'
    do {
      clock.advance(1)
      await Promise.allSettled(Array.from({ length: 100 }, async (_, index) => {
        if (index % 2 === 0) issued.push(await inserted(store, record({ sub: `user ${index}` })))
        else await rotate(index % 4 === 1 ? old.id : issued.at(-1)?.id ?? '', 0)
      }))
      await setImmediate()
    } while (store.active !== target)
  }
  t.equal(switches.length, 12)
  for (const { id } of [old, ...issued]) {
    const homes = [await stores.primary.get(id), await stores.secondary.get(id), await stores.primary.ending(id), await stores.secondary.ending(id)]
    t.equal(homes.filter(home => home !== null).length, 1)
  }
  t.ok(await stores.primary.count({}) > 0)
  t.ok(await stores.secondary.count({}) > 0)
})

// As a service uses it

t.test('through HTTP, with a Redis that is killed and started again', async t => {
  const server = await redisServer(t, { appendonly: 'yes', appendfsync: 'always' })
  const primary = await createRedisStore({ url: server.url })
  const switches: Switch[] = []
  const store = failover({ primary, secondary: memoryStore({ now: () => primary.now() }), checkInterval: 20, failAfter: 2, recoverAfter: 3, onSwitch: event => { switches.push(event) } })
  t.teardown(async () => await store.close())
  const app = await build(t, { store })
  app.post('/login', async request => {
    const { token, session: { id } } = await request.startSession({ sub: 'alice' })
    return { token, id }
  })
  app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.id)
  app.get('/kept', { config: { session: { serveCachedFor: '1m' } } }, async request => request.requireAuth().session.id)
  app.post('/rotate', { config: { session: true } }, async request => ({ token: (await request.rotateSession()).token }))
  app.post('/logout', { config: { session: true } }, async request => await request.revokeSession())
  app.get('/sessions', async () => (await app.tokenRegistry.list({ sub: 'alice' })).sessions.map(({ id }) => id))
  app.delete('/sessions', async () => await app.tokenRegistry.revokeAll({ sub: 'alice' }))
  const ask = async (method: 'GET' | 'POST' | 'DELETE', url: string, token?: string) => {
    const { statusCode, headers, body } = await app.inject({ method, url, ...token !== undefined && { headers: { authorization: `Bearer ${token}` } } })
    return { status: statusCode, retryAfter: headers['retry-after'], body, json: () => JSON.parse(body) }
  }
  const login = async (): Promise<{ token: string, id: string }> => (await ask('POST', '/login')).json()

  const old = await login()
  await until('the cache is in use', [], () => store.staleness < 1000)
  t.match(await ask('GET', '/me', old.token), { status: 200, body: old.id })
  t.match(await ask('GET', '/kept', old.token), { status: 200 })

  await server.kill()
  await becomes(store, 'secondary')
  await until('nothing is served from the cache', [], () => store.staleness > 1000)
  t.match(await ask('GET', '/me', old.token), { status: 503, retryAfter: /\d/ }, 'never 401')
  t.match(await ask('GET', '/kept', old.token), { status: 200, body: old.id }, 'a route that allows it goes on')
  t.match(await ask('POST', '/logout', old.token), { status: 503 })
  t.match(await ask('GET', '/sessions'), { status: 503 })
  t.match(await app.tokenRegistry.health(), { status: 'degraded', detail: /^the primary \(redis\) is away since/ })

  const [first, second] = [await login(), await login()]
  t.match(await ask('GET', '/me', first.token), { status: 200, body: first.id })
  const { token: rotated } = (await ask('POST', '/rotate', first.token)).json()
  t.match(await ask('GET', '/me', rotated), { status: 200, body: first.id })
  t.match(await ask('POST', '/logout', second.token), { status: 200, body: 'true' })
  t.match(await ask('GET', '/me', second.token), { status: 401 })

  await server.start()
  await becomes(store, 'primary')
  t.same(switches.map(({ to }) => to), ['secondary', 'primary'])
  t.match(await ask('GET', '/me', old.token), { status: 200, body: old.id }, 'nobody was signed out')
  t.match(await ask('GET', '/me', rotated), { status: 200, body: first.id })
  t.match(await ask('GET', '/me', second.token), { status: 401 })
  const next = (await ask('POST', '/rotate', rotated)).json().token
  t.match(await ask('GET', '/me', next), { status: 200, body: first.id })
  const last = await login()
  t.same((await ask('GET', '/sessions')).json().sort(), [old.id, first.id, last.id].sort())
  t.match(await ask('DELETE', '/sessions'), { status: 200, body: '3' })
  for (const token of [old.token, next, last.token]) t.match(await ask('GET', '/me', token), { status: 401 })
  t.match(await app.tokenRegistry.health(), { status: 'ok' })
})

t.test('while the primary is away, who has sessions and what documents say is not known', async t => {
  const { store, stores: { primary }, goAway, comeBack } = rig(t)
  t.equal(await store.documents?.write('devices', 'alice', null, 'a', Infinity), true)
  t.equal(await primary.documents?.read('devices', 'alice'), 'a')
  t.match(store.figures(), { removed: Number, away: 0, switches: 0 })
  await goAway()
  const unavailable = { code: 'FST_STORE_UNAVAILABLE' }
  await t.rejects(async () => await store.documents?.read('devices', 'alice'), unavailable)
  await t.rejects(async () => await store.documents?.write('devices', 'alice', 'a', 'b', Infinity), unavailable)
  await t.rejects(async () => { for await (const subject of store.subjects()) t.fail(subject.sub) }, unavailable)
  t.match(store.figures(), { away: 1, switches: 1 })
  await comeBack()
  t.equal(await store.documents?.read('devices', 'alice'), 'a')
})
