import { setImmediate, setTimeout } from 'node:timers/promises'
import Fastify from 'fastify'
import t from 'tap'
import { sessionRecord } from '../plugins/testing/index.ts'
import { keyOf } from '../plugins/token-registry/cache.ts'
import { LastUse } from '../plugins/token-registry/last-use.ts'
import tokenRegistry, { completeStore, memoryStore, type Auth, type IssuedToken, type PartialStore, type SessionUse } from '../plugins/token-registry/index.ts'
import { build, newSecret } from './support/build.ts'
import { decorated, without } from './support/decorated.ts'
import { deferred, soon } from './support/deferred.ts'
import { MinimalStore } from './support/minimal-store.ts'
import { expired, invalid, listen, refused, reused, revoked, rig, statusesOf } from './support/rig.ts'

// The store

t.test('a store that hangs is given up in time, and the process lives on', async t => {
  const timers = () => process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  const before = timers()
  let hung = true
  const { registry } = await rig(t, { operationTimeout: 30, cache: false }, store => new Proxy(store, {
    get: (target, key) => {
      const value: unknown = Reflect.get(target, key)
      if (typeof value !== 'function') return value
      const sync = ['now', 'onInvalidate', 'onExpire'].includes(String(key))
      return (...args: unknown[]) => hung && !sync ? new Promise(() => {}) : Reflect.apply(value, target, args)
    }
  }))
  const errors: Array<[string, string | undefined]> = []
  registry.addHook('onError', (error, { operation }) => { errors.push([(error as Error & { code: string }).code, operation]) })
  hung = false
  const { token, session } = await registry.issue({ sub: 'alice' })
  hung = true
  const timeout = { code: 'FST_STORE_TIMEOUT', statusCode: 503, critical: true }
  const calls: Array<[string, () => Promise<unknown>]> = [
    ['insert', async () => await registry.issue({ sub: 'alice' })], ['get', async () => await registry.verify(token)], ['rotate', async () => await registry.rotate(token)],
    ['end', async () => await registry.revoke(token)], ['endAll', async () => await registry.revokeAll({ sub: 'alice' })], ['find', async () => await registry.list({})],
    ['count', async () => await registry.count({})], ['update', async () => await registry.update(session.id, { scope: [] })], ['ending', async () => await registry.explain(session.id)],
    ['mark', async () => await registry.denylist.add('jti', Date.now() * 2)], ['marked', async () => await registry.denylist.has('jti')]
  ]
  for (const [operation, call] of calls) await t.rejects(call(), { ...timeout, message: new RegExp(`${operation} within 30 ms`) })
  t.match(await registry.health(), { status: 'fail', detail: /health within 30 ms/ })
  t.same(errors, [...calls, ['health'] as const].map(([operation]) => ['FST_STORE_TIMEOUT', operation]))
  t.equal(timers(), before, 'no timer is left')
  hung = false
  t.match((await registry.verify(token)).session, { sub: 'alice' })
  t.match(await registry.health(), { status: 'ok', sessions: 1 })
})

t.test('whatever a store throws is a 503 that is told, never a 401, and holds nothing of it', async t => {
  const thrown = [new Error('connect ECONNREFUSED'), 'secret text', undefined, null, 7, Symbol('x'), Object.create(null), { statusCode: 401, message: 'no' }, Object.assign(new Error('upstream said no'), { statusCode: 401 })]
  for (const garbage of thrown) {
    for (const atOnce of [true, false]) {
      let broken = false
      const fail = (): never => { throw garbage }
      const { registry } = await rig(t, { cache: false }, store => new Proxy(store, {
        get: (target, key) => {
          const value: unknown = Reflect.get(target, key)
          if (typeof value !== 'function') return value
          if (!broken || key === 'now') return value.bind(target)
          return atOnce ? fail : async () => fail()
        }
      }))
      const errors = listen(registry, 'onError')
      const { token } = await registry.issue({ sub: 'alice' })
      broken = true
      const unavailable = { code: 'FST_STORE_UNAVAILABLE', statusCode: 503, critical: true }
      await t.rejects(registry.verify(token), { ...unavailable, message: /\(get\)/, cause: garbage as Error })
      await t.rejects(registry.get(token), unavailable)
      await t.rejects(registry.issue({ sub: 'alice' }), unavailable)
      await t.rejects(async () => await registry.denylist.has('jti'), unavailable)
      t.match(await registry.health(), { status: 'fail', detail: /not available \(health\)/ })
      t.equal(errors.length, 5)
      t.notMatch(JSON.stringify(errors.map(({ args }) => (args[0] as Error).message)), /secret text|upstream|ECONN/)
    }
  }
})

t.test('a fault of the caller is not told as one of the store', async t => {
  const { registry } = await rig(t)
  const errors = listen(registry, 'onError')
  await t.rejects(registry.list({ cursor: '*' }), refused)
  t.same(errors, [])
})

t.test('a store that answers nothing at all is found out', async t => {
  const { registry } = await rig(t, {}, store => decorated(store, { insert: async () => ({ inserted: [], evicted: [], refused: [] }) }))
  await t.rejects(registry.issue({ sub: 'alice' }), TypeError)
})

t.test('what a store of one\'s own counts is told, and nothing where it counts nothing', async t => {
  const figuresOf = async (store: PartialStore) => (await build(t, { store })).tokenRegistry.stats.read()['store']
  t.same(await figuresOf(new MinimalStore()), {})
  t.same(await figuresOf(Object.assign(new MinimalStore(), { figures: () => ({ rows: 7 }) })), { rows: 7 })
})

t.test('a store of one\'s own lacks what cannot be made from the rest', async t => {
  const { tokenRegistry: registry } = await build(t, { store: new MinimalStore() })
  const unsupported = { code: 'FST_STORE_UNSUPPORTED', statusCode: 501 }
  const { token, session } = await registry.issue({ sub: 'alice' })
  await t.rejects(registry.update(session.id, { scope: [] }), unsupported)
  await t.rejects(registry.issue({ sub: 'alice', idleTimeout: '1h' }), unsupported)
  await t.rejects(registry.saveBatch([{ token: 'adopted-token', data: { sub: 'alice', idleTimeout: '1h' } }]), unsupported)
  t.equal(await registry.explain(session.id), null)
  await registry.verify(token)
  await registry.verify(token)
  t.match(registry.stats.read().cache, { hits: 0, misses: 2, tokens: 0 }, 'nobody would tell what other processes end')
  t.equal(await registry.revoke(token), true)
  await t.rejects(registry.verify(token), invalid)
  await t.rejects(build(t, { store: { ...new MinimalStore(), insert: async () => {}, get: 7 } as never }), { code: 'FST_TOKEN_OPTIONS', message: /store lacks get, rotate, end, find, health/ })

  const minimal = new MinimalStore()
  const updating = completeStore({
    insert: async (...args) => await minimal.insert(...args),
    get: async id => await minimal.get(id),
    rotate: async (...args) => await minimal.rotate(...args),
    end: async (...args) => await minimal.end(...args),
    find: async (...args) => await minimal.find(...args),
    health: async () => await minimal.health(),
    update: async id => await minimal.get(id)
  })
  t.equal(updating.name, 'custom')
  t.ok(Math.abs(updating.now() - Date.now()) < 1000)
  const { inserted: [record] } = await updating.insert([sessionRecord({ op: 'op' })], { op: 'op' })
  await t.rejects(updating.update(record?.id ?? '', { idleTimeout: 1000 }), unsupported)
  t.match(await updating.update(record?.id ?? '', { idleTimeout: null }), { id: record?.id })
  t.equal(updating.staleness, Infinity)
  await updating.touch([])
  updating.onExpire(() => {})()
  await updating.close()

  const memory = memoryStore()
  const completed = completeStore(without(memory, 'count'))
  await completed.insert([sessionRecord({ op: 'op' })], { op: 'op' })
  await completed.close()
  t.match(await memory.health(), { sessions: 0 }, 'it is closed with what completes it')
})

t.test('no token that is presented reaches the marks of a store that keeps them among its records', async t => {
  const memory = memoryStore()
  t.teardown(async () => await memory.close())
  for (const store of [new MinimalStore(), without(memory, 'mark', 'marked')]) {
    const { tokenRegistry: registry } = await build(t, { store })
    await registry.denylist.add('jti', Date.now() + 60_000)
    const token = '\0mark 8:denylistjti'
    await t.rejects(registry.consume(token), invalid)
    await t.rejects(registry.consume(token), invalid)
    t.equal(await registry.revoke(token), false)
    t.equal(await registry.get(token), null)
    for (const sub of ['mark denylist', 'denylist']) await registry.revokeAll({ sub })
    t.equal(await registry.denylist.has('jti'), true)
  }
})

t.test('a store without listeners tells this process what it changed, also where the reply was lost', async t => {
  const minimal = new MinimalStore()
  let lost = false
  const losing = async <T>(work: Promise<T>): Promise<T> => {
    const result = await work
    if (lost) throw new Error('reply lost')
    return result
  }
  const endAll: NonNullable<PartialStore['endAll']> = async ({ sub }, cause) => {
    const { sessions } = await minimal.find({ sub }, { limit: 500 })
    return (await losing(minimal.end(sessions.map(({ id }) => id), cause))).length
  }
  const store: PartialStore = {
    name: 'alone',
    staleness: 0,
    insert: async (records, options) => await losing(minimal.insert(records, { ...options, limits: [{ name: 'two', max: 2, onExceed: 'end-oldest' }] })),
    get: async id => await minimal.get(id),
    rotate: async (...args) => await losing(minimal.rotate(...args)),
    end: async (...args) => await losing(minimal.end(...args)),
    find: async (...args) => await minimal.find(...args),
    health: async () => await minimal.health(),
    endAll
  }
  const { tokenRegistry: registry } = await build(t, { store, reuseWindow: 0 })
  const [first, second] = [await registry.issue({ sub: 'alice' }), await registry.issue({ sub: 'alice' })]
  for (const { token } of [first, first, second, second]) await registry.verify(token)
  t.match(registry.stats.read().cache, { hits: 2 }, 'one that says it is alone is cached')
  await registry.issue({ sub: 'alice' })
  await t.rejects(registry.verify(first.token), invalid, 'ended to make room')
  lost = true
  await t.rejects(registry.rotate(second.token), { code: 'FST_STORE_UNAVAILABLE' })
  await t.rejects(registry.verify(second.token), reused)
  lost = false
  const third = await registry.issue({ sub: 'bob' })
  await registry.verify(third.token)
  lost = true
  await t.rejects(registry.revoke(third.token), { code: 'FST_STORE_UNAVAILABLE' })
  await t.rejects(registry.verify(third.token), invalid)

  lost = false
  const [fourth, fifth] = [await registry.issue({ sub: 'carol' }), await registry.issue({ sub: 'carol' })]
  await registry.verify(fourth.token)
  lost = true
  await t.rejects(registry.issue({ sub: 'carol' }), { code: 'FST_STORE_UNAVAILABLE' })
  await t.rejects(registry.verify(fourth.token), invalid, 'it made room for one whose reply was lost')
  lost = false
  await registry.verify(fifth.token)
  await registry.revokeAll({ sub: 'carol' })
  await t.rejects(registry.verify(fifth.token), invalid)
})

// Last use and the cache

t.test('a session that is used lives on, and its uses are written in the background', async t => {
  const written: number[] = []
  let wake = deferred()
  const { registry, store, clock } = await rig(t, { idleTimeout: '1s', reuseWindow: 0, cache: { maxStaleness: 0 } }, store => decorated(store, {
    touch: async uses => {
      await store.touch(uses)
      written.push(uses.length)
      wake.resolve()
    }
  }))
  const { token, session } = await registry.issue({ sub: 'alice' })
  const second = await registry.issue({ sub: 'alice', idleTimeout: null })
  await registry.verify(token)
  await registry.verify(second.token)
  await soon(wake.promise)
  for (let i = 0; i < 3; i++) {
    wake = deferred()
    clock.advance(60)
    for (let hit = 0; hit < 10; hit++) await registry.verify(token)
    await soon(wake.promise)
    t.equal((await store.get(session.id))?.lastUsedAt, clock.now())
  }
  t.same(written, [2, 1, 1, 1], 'ten uses are one write')
  t.equal(registry.stats.read().cache?.hits, 30)
  clock.advance(1000)
  await t.rejects(registry.verify(token), expired)
  t.match(await registry.explain(session.id), { reason: 'idle' })

  const before = clock.now()
  clock.advance(59_000)
  await registry.verify(second.token)
  t.not((await store.get(second.session.id))?.lastUsedAt, clock.now(), 'a minute is one write where there is no idle timeout')
  clock.advance(1_000)
  await registry.verify(second.token)
  await registry.close()
  t.equal((await store.get(second.session.id))?.lastUsedAt, before + 60_000, 'closing writes what waits')
})

t.test('a use just before the idle timeout is written at once', async t => {
  let wake = deferred()
  const { registry, store, clock } = await rig(t, { idleTimeout: '15m', cache: false }, store => decorated(store, {
    touch: async uses => {
      await store.touch(uses)
      wake.resolve()
    }
  }))
  const { token, session } = await registry.issue({ sub: 'alice' })
  for (let i = 0; i < 3; i++) {
    wake = deferred()
    clock.advance(15 * 60_000 - 1)
    await registry.verify(token)
    await soon(wake.promise)
    t.equal((await store.get(session.id))?.lastUsedAt, clock.now())
  }
  clock.advance(15 * 60_000)
  await t.rejects(registry.verify(token), expired)
})

t.test('who is refused does not use a session', async t => {
  const written = deferred()
  const { registry, store, clock } = await rig(t, { idleTimeout: '1s', reuseWindow: 0, cache: { maxStaleness: 0 } }, store => decorated(store, {
    touch: async uses => {
      await store.touch(uses)
      written.resolve()
    }
  }))
  const binding = 'a'.repeat(43)
  const { token, session } = await registry.issue({ sub: 'alice', binding, client: 'app' })
  clock.advance(500)
  await registry.verify(token, { binding, client: 'app' })
  const used = clock.now()
  await soon(written.promise)
  clock.advance(500)
  await t.rejects(registry.verify(token), invalid)
  await t.rejects(registry.verify(token, { binding, client: 'other' }), invalid)
  t.equal(registry.cached(keyOf(token)), undefined)
  clock.advance(500)
  await t.rejects(registry.verify(token, { binding, client: 'app' }), expired)
  t.equal((await store.get(session.id)), null)
  t.match(await registry.explain(session.id), { reason: 'idle', at: used + 1000 })
})

t.test('last uses of many sessions are gathered, one write at a time', async t => {
  let underWay = 0
  let most = 0
  const written: number[] = []
  const { registry } = await rig(t, { idleTimeout: '1s', reuseWindow: 0, cache: false }, store => decorated(store, {
    touch: async uses => {
      most = Math.max(most, ++underWay)
      written.push(uses.length)
      await setImmediate()
      underWay--
      await store.touch(uses)
    }
  }))
  for (let turn = 0; turn < 20; turn++) {
    const issued = await Promise.all(Array.from({ length: 50 }, async () => await registry.issue({ sub: 'alice' })))
    for (const { token } of issued) await registry.verify(token)
    await setImmediate()
  }
  await registry.close()
  t.equal(written.reduce((sum, count) => sum + count, 0), 1000)
  t.equal(most, 1)
  t.ok(written.length <= 40, `${written.length} writes`)
})

t.test('a session that is quiet is forgotten, and one too many is written sooner', async t => {
  let writes: SessionUse[] = []
  const lastUse = new LastUse(async uses => { writes.push(...uses) })
  const alice = { tenant: '', sub: 'alice' }
  const quiet = { ...alice, id: 'quiet', idleTimeout: 10 }
  // Until it is forgotten, the very same use is nothing new.
  while (writes.length < 2) {
    lastUse.note(quiet, 7)
    await setImmediate()
  }
  t.same(writes, [{ id: 'quiet', at: 7 }, { id: 'quiet', at: 7 }])
  await lastUse.flush()

  writes = []
  const [first, ...others] = Array.from({ length: 100_001 }, (_, i) => ({ ...alice, id: String(i), idleTimeout: null }))
  for (const session of [first ?? quiet, ...others.slice(1)]) lastUse.note(session, 1)
  await lastUse.flush()
  t.equal(writes.length, 100_000)

  writes = []
  for (const session of [first ?? quiet, ...others]) lastUse.note(session, 1)
  lastUse.note({ ...alice, id: '1', idleTimeout: null }, 2)
  lastUse.note(first ?? quiet, 3)
  lastUse.note({ ...alice, id: 'one more', idleTimeout: null }, 4)
  await lastUse.flush()
  t.equal(writes.length, 100_002)
  t.match(['0', '1'].map(wanted => writes.find(({ id }) => id === wanted)), [{ at: 3 }, { at: 2 }])
})

t.test('where uses are compared, the last ones of a subject are known until they are written, and forgotten', async t => {
  const lastUse = new LastUse(async () => {})
  const [alice, bob] = [{ tenant: '', sub: 'alice' }, { tenant: '', sub: 'bob' }]
  lastUse.note({ ...alice, id: 'before', idleTimeout: null }, 1)
  t.same(lastUse.usesOf(alice), [])
  lastUse.compare()
  for (const at of [2, 3]) lastUse.note({ ...alice, id: 'a', idleTimeout: null }, at)
  lastUse.note({ ...alice, id: 'quick', idleTimeout: 10 }, 4)
  lastUse.note({ ...bob, id: 'b', idleTimeout: null }, 5)
  t.same(lastUse.usesOf(alice), [{ id: 'a', at: 3 }, { id: 'quick', at: 4 }])
  t.same(lastUse.usesOf(bob), [{ id: 'b', at: 5 }])
  while (lastUse.usesOf(alice).length === 2) await setImmediate()
  t.same(lastUse.usesOf(alice), [{ id: 'a', at: 3 }], 'what was not used again is written')
  await lastUse.flush()
  t.same([...lastUse.usesOf(alice), ...lastUse.usesOf(bob)], [])

  for (const [first, second, left] of [[10, null, 1], [null, 10, 0]] as const) {
    lastUse.note({ ...alice, id: 'a', idleTimeout: first }, 6)
    lastUse.note({ ...alice, id: 'a', idleTimeout: second }, 7)
    t.same(lastUse.usesOf(alice), [{ id: 'a', at: 7 }], 'whose timeout has changed')
    await setTimeout(30)
    t.equal(lastUse.usesOf(alice).length, left)
    await lastUse.flush()
  }
})

t.test('a last use that could not be written is logged, and noted again by the next use', async t => {
  const lines: string[] = []
  const app = Fastify({ logger: { stream: { write: line => { lines.push(line) } } } })
  const store = memoryStore()
  let broken = true
  const tries = [deferred(), deferred()]
  await app.register(tokenRegistry, {
    secret: newSecret(),
    idleTimeout: '1s',
    reuseWindow: 0,
    cache: { maxStaleness: 0 },
    store: decorated(store, {
      touch: async uses => {
        tries.shift()?.resolve()
        if (broken) throw new Error('not now')
        await store.touch(uses)
      }
    })
  })
  t.teardown(async () => await store.close())
  t.teardown(async () => await app.close())
  const [first, second] = tries
  const { token } = await app.tokenRegistry.issue({ sub: 'alice' })
  await app.tokenRegistry.verify(token)
  if (first !== undefined) await soon(first.promise)
  await setImmediate()
  t.match(lines.join(''), /last uses were not written/)
  broken = false
  await app.tokenRegistry.verify(token)
  if (second !== undefined) await soon(second.promise)
})

t.test('a revocation that races a read is never cached over, wherever it comes in between', async t => {
  const { registry, store } = await rig(t)
  let cached = 0
  for (let step = 0; step < 40; step++) {
    const { token, session } = await registry.issue({ sub: 'alice' })
    const verifying = registry.verify(token).then(() => true, () => false)
    for (let i = 0; i < step; i++) await null
    if (registry.cached(keyOf(token)) !== undefined) cached++
    await store.end([session.id], { reason: 'revoked', by: null, op: `op ${step}` })
    await verifying
    t.equal(registry.cached(keyOf(token)), undefined, `after ${step} steps`)
    await t.rejects(registry.verify(token), revoked)
  }
  t.ok(cached > 0 && cached < 40, 'the revocation came before the read, within it, and after it')
})

t.test('a read that a revocation overtook serves who waited for it, and is not shared with who comes later', async t => {
  const latches: Array<() => void> = []
  const { registry } = await rig(t, {}, store => decorated(store, {
    get: async id => {
      const session = await store.get(id)
      await new Promise<void>(resolve => latches.push(resolve))
      return session
    }
  }))
  const { token, session } = await registry.issue({ sub: 'alice' })
  const waiting = [registry.verify(token), registry.verify(token), registry.verify(token)]
  await setImmediate()
  t.equal(latches.length, 1, 'requests that want the same session share the read')

  await registry.revokeById(session.id)
  const late = registry.verify(token)
  await setImmediate()
  t.equal(latches.length, 2)
  for (const open of latches) open()
  for (const auth of await Promise.all(waiting)) t.equal(auth.session.id, session.id)
  await t.rejects(late, revoked)
  t.equal(registry.cached(keyOf(token)), undefined)
  t.match(registry.stats.read().cache, { misses: 4, tokens: 0 })
})

t.test('who asks for a session that is not there does not make it missing for who comes later', async t => {
  const asked = deferred()
  const answer = deferred()
  const { registry } = await rig(t, {}, store => decorated(store, {
    ending: async id => {
      asked.resolve()
      await answer.promise
      return await store.ending(id)
    }
  }))
  const early = registry.verify('adopted-token')
  await asked.promise
  await registry.save('adopted-token', { sub: 'alice' })
  t.match((await registry.verify('adopted-token')).session, { sub: 'alice' })
  answer.resolve()
  await t.rejects(early, invalid)
})

t.test('where nobody tells that sessions end, reads are neither shared nor kept', async t => {
  let staleness = Infinity
  let reads = 0
  const { registry } = await rig(t, { cache: { maxStaleness: 500 } }, store => decorated(store, {
    get staleness () { return staleness },
    get: async id => {
      reads++
      return await store.get(id)
    }
  }))
  const { token } = await registry.issue({ sub: 'alice' })
  await Promise.all([registry.verify(token), registry.verify(token)])
  t.equal(reads, 2)
  t.match(registry.stats.read().cache, { tokens: 0 })

  staleness = 500
  await registry.verify(token)
  t.ok(registry.cached(keyOf(token)))
  staleness = 501
  t.equal(registry.cached(keyOf(token)), undefined, 'kept, but not used')
  await registry.verify(token)
  t.equal(reads, 4)
  t.ok(registry.stale(keyOf(token), 501))
  t.equal(registry.stale(keyOf(token), -1), undefined)
})

t.test('a read that began while sessions were told of is not shared once they are not', async t => {
  let staleness = 0
  const latches: Array<() => void> = []
  const { registry, store } = await rig(t, {}, store => decorated(store, {
    get staleness () { return staleness },
    onInvalidate: () => () => {},
    get: async id => {
      const session = await store.get(id)
      await new Promise<void>(resolve => latches.push(resolve))
      return session
    }
  }))
  const { token, session } = await registry.issue({ sub: 'alice' })
  const early = registry.verify(token)
  await setImmediate()
  staleness = Infinity
  await store.end([session.id], { reason: 'revoked', by: null, op: 'another process' })
  const late = registry.verify(token)
  await setImmediate()
  for (const open of latches) open()
  t.match((await early).session, { sub: 'alice' })
  await t.rejects(late, revoked)
})

t.test('a session that was cached is served while the store is down for as long as is said, and not past its end', async t => {
  let staleness = 0
  const { registry, clock } = await rig(t, { idleTimeout: '1m' }, store => decorated(store, { get staleness () { return staleness } }))
  const { token } = await registry.issue({ sub: 'alice', ttl: '10m' })
  t.equal(registry.stale(keyOf(token), 60_000), undefined, 'never seen')
  await registry.verify(token)
  staleness = 1_000_000
  t.match(registry.stale(keyOf(token), 60_000), { auth: { session: { sub: 'alice' } } })
  t.equal(registry.stale(keyOf(token), -1), undefined, 'it was read longer ago than may be')
  clock.advance(60_000)
  t.equal(registry.stale(keyOf(token), 60_000), undefined, 'idle')

  const short = await registry.issue({ sub: 'alice', ttl: '1s', idleTimeout: null })
  staleness = 0
  await registry.verify(short.token)
  staleness = 1_000_000
  clock.advance(1000)
  t.equal(registry.stale(keyOf(short.token), 60_000), undefined, 'expired')
})

t.test('the cache forgets what was used least recently, and nothing of it stays', async t => {
  const { registry } = await rig(t, { cache: { max: 2 } })
  const kept = () => registry.stats.read().cache?.tokens
  const [first, second, third] = [await registry.issue({ sub: 'a' }), await registry.issue({ sub: 'b' }), await registry.issue({ sub: 'c' })]
  await registry.verify(first.token)
  await registry.verify(second.token)
  await registry.verify(first.token)
  await registry.verify(third.token)
  t.ok(registry.cached(keyOf(first.token)))
  t.equal(registry.cached(keyOf(second.token)), undefined)
  t.equal(kept(), 2)

  const next = await registry.rotate(first.token)
  t.equal(kept(), 1)
  await registry.verify(first.token)
  await registry.verify(next.token)
  t.equal(kept(), 2, 'two tokens of one session')
  await registry.verify(second.token)
  t.equal(kept(), 2)
  await registry.revokeById(first.session.id)
  t.equal(kept(), 1)
  t.ok(registry.cached(keyOf(second.token)))
  await registry.revoke(second.token)
  await registry.revoke(third.token)
  t.equal(kept(), 0)
})

t.test('tokens that end alike are told apart, and each ends by itself', async t => {
  const { registry } = await rig(t, { cache: { max: 4 } })
  const tokens = ['first-0000000', 'other-0000000', 'third-0000000']
  for (const token of tokens) await registry.save(token, { sub: token })
  const served = () => tokens.map(token => registry.cached(keyOf(token))?.session.sub)
  for (const token of tokens) await registry.verify(token)
  for (let i = 0; i < 3; i++) t.same(served(), tokens)
  t.equal(registry.cached(keyOf('forth-0000000')), undefined)
  t.equal(registry.cached(`${keyOf('third-0000000')} `), undefined)

  await registry.revoke('third-0000000')
  t.same(served(), ['first-0000000', 'other-0000000', undefined])
  await registry.revoke('first-0000000')
  for (let i = 0; i < 2; i++) t.same(served(), [undefined, 'other-0000000', undefined])
  for (let i = 0; i < 6; i++) await registry.verify((await registry.issue({ sub: 'alice' })).token)
  t.same(served(), [undefined, undefined, undefined], 'what the cache has forgotten is served from nowhere')
})

t.test('the cache holds no more than it may, and the half that was used last for certain', async t => {
  const max = 8
  const { registry } = await rig(t, { cache: { max } })
  const all = await Promise.all(Array.from({ length: 20 }, async (_, i) => await registry.issue({ sub: `user ${i}` })))
  const read = () => registry.stats.read().cache ?? {}
  let used: IssuedToken[] = []
  for (let step = 0; step < 500; step++) {
    const one = all[(Math.imul(step, 0x9E3779B1) >>> 20) % 20] as IssuedToken
    const { hits = 0 } = read()
    await registry.verify(one.token)
    if (used.slice(0, max / 2).includes(one)) t.equal(read().hits, hits + 1, `step ${step}`)
    used = [one, ...used.filter(other => other !== one)]
    t.ok((read().tokens ?? Infinity) <= max)
  }
  for (const { session: { id } } of all) await registry.revokeById(id)
  t.match(read(), { tokens: 0 })
  t.equal(all.filter(({ token }) => registry.cached(keyOf(token))).length, 0)
})

t.test('all is forgotten where anything may have changed', async t => {
  const listeners: Array<(ids: readonly string[] | 'all') => void> = []
  const gate = deferred()
  let held = false
  const { registry } = await rig(t, {}, store => decorated(store, {
    onInvalidate: listener => {
      listeners.push(listener)
      return () => {}
    },
    get: async id => {
      const session = await store.get(id)
      if (held) await gate.promise
      return session
    }
  }))
  const [first, second] = [await registry.issue({ sub: 'alice' }), await registry.issue({ sub: 'bob' })]
  await registry.verify(first.token)
  held = true
  const reading = registry.verify(second.token)
  await setImmediate()
  for (const listener of listeners) listener('all')
  gate.resolve()
  await reading
  t.equal(registry.cached(keyOf(first.token)), undefined)
  t.equal(registry.cached(keyOf(second.token)), undefined, 'what was being read is not kept')
  t.match(registry.stats.read().cache, { tokens: 0, invalidations: 1 })
})

t.test('without a cache each request asks the store', async t => {
  const { registry } = await rig(t, { cache: false })
  const { token } = await registry.issue({ sub: 'alice' })
  const auth: Auth[] = [await registry.verify(token), await registry.verify(token)]
  t.not(auth[0], auth[1])
  t.match(registry.stats.read().cache, { hits: 0, misses: 2, tokens: 0 })
  await registry.revoke(token)
  await t.rejects(registry.verify(token), revoked)
})

t.test('a failed read is not shared with the next request', async t => {
  let broken = true
  const { registry } = await rig(t, {}, store => decorated(store, {
    get: async id => {
      if (broken) throw new Error('down')
      return await store.get(id)
    }
  }))
  const { token } = await registry.issue({ sub: 'alice' })
  t.same(await statusesOf([registry.verify(token), registry.verify(token)]), { FST_STORE_UNAVAILABLE: 2 })
  broken = false
  t.match((await registry.verify(token)).session, { sub: 'alice' })
})
