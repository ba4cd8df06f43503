import { setTimeout } from 'node:timers/promises'
import t from 'tap'
import {
  hostileStrings, injectAs, malformedStrings, randomStrings, sessionData, sessionRecord, storeContract, type ContractOptions, type OpenedStore
} from '../plugins/testing/index.ts'
import { BoundedStore } from '../plugins/token-registry/bounded-store.ts'
import { Observers } from '../plugins/token-registry/observers.ts'
import { memoryStore, SessionConflict, type InsertOutcome, type PartialStore, type SessionRecord, type TokenStore } from '../plugins/token-registry/index.ts'
import { build } from './support/build.ts'
import { decorated, losing, without } from './support/decorated.ts'
import { MinimalStore } from './support/minimal-store.ts'

/** Opens stores whose clock is moved by hand. */
function opensByHand (make: (now: () => number) => PartialStore): () => OpenedStore {
  return () => {
    let time = 1_700_000_000_000
    const store = make(() => time)
    return { store, advance: async ms => { time += ms }, close: async () => await store.close?.() }
  }
}

/** Opens memory stores, each behind a decorator. */
function opens (decorate: (store: TokenStore) => PartialStore = store => store): () => OpenedStore {
  return opensByHand(now => decorate(memoryStore({ now })))
}

/** A decorator that replaces methods. */
function replacing (replaced: (store: TokenStore) => Partial<TokenStore>): (store: TokenStore) => TokenStore {
  return store => decorated(store, replaced(store))
}

function keepsTheContract (name: string, open: () => OpenedStore, options: ContractOptions = {}): void {
  t.test(name, async t => {
    for (const { name, run } of storeContract(open, options)) await t.test(name, run)
  })
}

keepsTheContract('the memory store', opens())
keepsTheContract('a store whose calls have a deadline', opens(store => new BoundedStore(store, 5000, new Observers(), () => {})))
for (const n of [1, 2, 3]) keepsTheContract(`a store that loses every reply of ${n}`, opens(store => losing(store, n)))
keepsTheContract('a store that tells only that something changed', opens(replacing(store => ({
  onInvalidate: listener => store.onInvalidate(() => listener('all'))
}))))
keepsTheContract('a store that has all but count', opens(store => without(store, 'count', 'name', 'staleness')))
keepsTheContract('a store that has all but update', opens(store => without(store, 'update')), { lacks: ['update'] })
keepsTheContract('a store that has only what it must have', opensByHand(now => new MinimalStore(now)), {
  lacks: ['update', 'touch', 'endAll', 'ending', 'onExpire', 'documents']
})

const anyOp = (): string => crypto.randomUUID()
/** Lets everybody else run in between, as a check and a change in two steps would. */
const pause = async (): Promise<void> => await setTimeout(0)

const broken: Record<string, [(store: TokenStore) => TokenStore, RegExp]> = {
  'keeps what it once returned': [replacing(store => {
    const seen = new Map<string, SessionRecord>()
    return {
      get: async id => {
        const session = await store.get(id) ?? seen.get(id) ?? null
        if (session !== null) seen.set(id, session)
        return session
      }
    }
  }), /from its deadline on/],
  'hands out one object': [replacing(store => {
    const sessions = new Map<string, SessionRecord>()
    return {
      get: async id => {
        const session = await store.get(id)
        if (session !== null && !sessions.has(id)) sessions.set(id, session)
        return session === null ? null : sessions.get(id) ?? null
      }
    }
  }), /caller's own/],
  'makes empty lists of empty objects, as JSON in Lua does': [replacing(store => ({
    insert: async (records, options) => await store.insert(records.map(record => ({ ...record, meta: JSON.parse(JSON.stringify(record.meta).replaceAll('{}', '[]')) })), options)
  })), /comes back as it was stored/],
  'joins tenant and sub': [replacing(store => ({
    insert: async (records, options) => await store.insert(records.map(record => ({ ...record, tenant: '', sub: record.tenant + record.sub })), options),
    find: async ({ tenant = '', sub = '', ...query }, page) => await store.find({ ...query, tenant: '', sub: tenant + sub }, page)
  })), /look alike/],
  'normalises text': [replacing(store => ({
    insert: async (records, options) => await store.insert(records.map(record => ({ ...record, sub: record.sub.normalize() })), options)
  })), /byte for byte/],
  'cuts what is long': [replacing(store => ({
    insert: async (records, options) => await store.insert(records.map(record => ({ ...record, scope: record.scope.slice(0, 100) })), options)
  })), /scopes by the hundred/],
  'has a clock that stands': [replacing(store => {
    const time = store.now()
    return { now: () => time }
  }), /a clock that runs/],
  'answers in another order': [replacing(store => ({
    insert: async (records, options) => {
      const outcome = await store.insert(records, options)
      return { ...outcome, inserted: outcome.inserted.reverse() }
    }
  })), /in the order given/],
  'tells each who takes an id that he has it': [replacing(store => ({
    insert: async (records, options) => {
      const { inserted, evicted, refused } = await store.insert(records, options)
      return { inserted: refused.length > 0 ? [...records] : inserted, evicted, refused: [] }
    }
  })), /of many that take one id/],
  'stores records one by one': [replacing(store => ({
    insert: async (records, options) => {
      const outcomes: InsertOutcome[] = []
      for (const record of records) outcomes.push(await store.insert([record], options))
      return {
        inserted: outcomes.flatMap(({ inserted }) => inserted),
        evicted: outcomes.flatMap(({ evicted }) => evicted),
        refused: outcomes.flatMap(({ refused }) => refused)
      }
    }
  })), /all or none/],
  'does not know an insert again': [replacing(store => ({
    insert: async (records, options) => {
      const op = anyOp()
      return await store.insert(records.map(record => ({ ...record, op })), { ...options, op })
    }
  })), /insert that is repeated/],
  'counts what has ended': [replacing(store => {
    let all = 0
    return {
      insert: async (records, { limits = [], op }) => {
        all += records.length
        return await store.insert(records, { op, limits: limits.map(limit => all > limit.max ? { ...limit, max: 0 } : limit) })
      }
    }
  }), /expired or ended counts in no limit/],
  'ignores limits': [replacing(store => ({ insert: async (records, { op }) => await store.insert(records, { op }) })), /a limit that refuses/],
  'counts all sessions in every limit': [replacing(store => ({
    insert: async (records, { limits = [], op }) => await store.insert(records, { limits: limits.map(({ group, ...limit }) => limit), op })
  })), /a limit on a group/],
  'ends nobody that is named': [replacing(store => ({ insert: async (records, { endOthers, ...options }) => await store.insert(records, options) })), /sessions that are named/],
  'ends whoever is named': [replacing(store => ({
    insert: async (records, { endOthers = [], ...options }) => {
      await store.end(endOthers, { reason: 'replaced', by: null, op: options.op })
      return await store.insert(records, options)
    }
  })), /sessions that are named/],
  'replaces nobody': [replacing(store => ({
    insert: async (records, { limits = [], ...options }) => await store.insert(records, { ...options, limits: limits.map(({ replaces, ...limit }) => limit) })
  })), /replaces what is named/],
  'counts a tenant by subject': [replacing(store => ({
    insert: async (records, { limits = [], ...options }) => await store.insert(records, { ...options, limits: limits.map(({ across, ...limit }) => limit) })
  })), /counts all of its subjects/],
  'brings nobody within the limits': [replacing(store => ({ insert: async (records, { subject, ...options }) => await store.insert(records, options) })), /brought within the limits/],
  'leaves groups as they were': [replacing(store => ({ update: async (id, { groups, ...patch }, revision) => await store.update(id, patch, revision) })), /groups can be changed/],
  'writes documents over others': [replacing(({ documents }) => ({
    documents: documents && {
      read: async (...of) => await documents.read(...of),
      write: async (purpose, key, _before, ...rest) => {
        while (!await documents.write(purpose, key, await documents.read(purpose, key), ...rest));
        return true
      }
    }
  })), /count up at once/],
  'checks limits before it stores': [replacing(store => ({
    insert: async (records, { limits = [], op }) => {
      const [{ tenant, sub } = { tenant: '', sub: '' }] = records
      const count = await store.count({ tenant, sub })
      await pause()
      return limits.some(({ max, onExceed }) => onExceed === 'refuse' && count + records.length > max)
        ? await store.insert(records, { limits, op })
        : await store.insert(records, { limits: limits.filter(({ onExceed }) => onExceed !== 'refuse'), op })
    }
  })), /a limit holds against many/],
  'forgets the origin': [replacing(store => ({
    insert: async (records, options) => await store.insert(records.map(record => ({ ...record, origin: null })), options)
  })), /what came of the token/],
  'compares no clients': [replacing(store => ({ rotate: async (id, { client, ...presented }, op) => await store.rotate(id, presented, op) })), /another client or key is refused/],
  'compares no keys': [replacing(store => ({
    rotate: async (id, presented, op) => await store.rotate(id, { ...presented, binding: (await store.get(id))?.binding ?? null }, op)
  })), /another client or key is refused/],
  'leaves the window open for a millisecond more': [replacing(store => ({
    rotate: async (id, presented, op) => await store.rotate(id, { ...presented, reuseWindow: presented.reuseWindow + 1 }, op)
  })), /window of 0 is never/],
  'does not know a rotation again': [replacing(store => ({ rotate: async (id, presented, _op) => await store.rotate(id, presented, anyOp()) })), /repeated gets its first answer, however late/],
  'makes another successor each time': [replacing(store => ({
    rotate: async (id, presented, op) => {
      const outcome = await store.rotate(id, presented, op)
      return outcome.status === 'repeated' ? { status: 'repeated', session: { ...outcome.session, kid: presented.kid } } : outcome
    }
  })), /gets the same successor/],
  'knows no token newer than the record': [replacing(store => ({
    rotate: async (id, presented, op) => presented.generation > ((await store.get(id))?.generation ?? 0) ? { status: 'unknown' } : await store.rotate(id, presented, op)
  })), /the store has lost/],
  'rotates what is to be consumed': [replacing(store => ({
    rotate: async (id, presented, op) => await store.rotate(id, { ...presented, once: (await store.get(id))?.use === 'once' }, op)
  })), /of another use, is unknown/],
  'gives a new lifetime at each rotation': [replacing(store => ({
    rotate: async (id, presented, op) => {
      const outcome = await store.rotate(id, presented, op)
      return outcome.status === 'rotated' ? { ...outcome, session: { ...outcome.session, expiresAt: outcome.session.expiresAt + 1000 } } : outcome
    }
  })), /does not move the deadline/],
  'ends nothing at reuse': [replacing(store => ({
    rotate: async (id, presented, op) => {
      const session = await store.get(id)
      return session !== null && session.generation > presented.generation + 1 ? { status: 'unknown' } : await store.rotate(id, presented, op)
    }
  })), /before the one before is reuse/],
  'rotates in two steps': [replacing(store => ({
    rotate: async (id, presented, op) => {
      const generation = (await store.get(id))?.generation
      await pause()
      return await store.rotate(id, generation === presented.generation ? { ...presented, generation: (await store.get(id))?.generation ?? 0 } : presented, op)
    }
  })), /are one rotation/],
  'notes uses as they come': [replacing(store => {
    const uses = new Map<string, number>()
    return {
      touch: async all => { for (const { id, at } of all) uses.set(id, at) },
      get: async id => {
        const session = await store.get(id)
        return session === null ? null : { ...session, lastUsedAt: uses.get(id) ?? session.lastUsedAt }
      }
    }
  }), /never noted backwards/],
  'revives what is used': [replacing(store => {
    const sessions = new Map<string, SessionRecord>()
    return {
      touch: async uses => { for (const { id } of uses) sessions.set(id, sessionRecord({ id })) },
      get: async id => await store.get(id) ?? sessions.get(id) ?? null
    }
  }), /a use revives nothing/],
  'notes no uses': [replacing(() => ({ touch: async () => {} })), /one that is used lives on/],
  'does not know an ending again': [replacing(store => ({ end: async (ids, cause) => await store.end(ids, { ...cause, op: anyOp() }) })), /ending that is repeated/],
  'tells an ending to all who asked': [replacing(store => ({
    end: async (ids, cause) => {
      const sessions = await Promise.all(ids.map(async id => await store.get(id)))
      await pause()
      await store.end(ids, cause)
      return sessions.filter(session => session !== null)
    }
  })), /100 that end a session/],
  'keeps no endings': [replacing(() => ({ ending: async () => null })), /how a session ended is kept/],
  'ends what was to be kept': [replacing(store => ({ endAll: async ({ tenant, sub }, cause, told) => await store.endAll({ tenant, sub }, cause, told) })), /but those to be kept/],
  'finds first and ends then, what came in between too': [replacing(store => ({
    endAll: async (of, cause, told) => {
      const { sessions } = await store.find(of, { limit: 500 })
      await pause()
      await store.endAll(of, cause)
      told?.(sessions, store.now())
      return sessions.length
    }
  })), /issued meanwhile nothing is lost/],
  'pages by offset': [replacing(store => ({
    find: async (query, { limit, cursor }) => {
      const { sessions } = await store.find(query, { limit: 500 })
      const start = Number(cursor ?? 0)
      return { sessions: sessions.slice(start, start + limit), cursor: start + limit < sessions.length ? String(start + limit) : null }
    }
  })), /lives throughout the paging/],
  'takes any cursor': [replacing(store => ({
    find: async (query, page) => await store.find(query, page).catch(async () => await store.find(query, { limit: page.limit }))
  })), /cursor that no page gave/],
  'finds what has the text anywhere': [replacing(store => ({
    find: async ({ deviceId, ...query }, page) => {
      const { sessions, cursor } = await store.find(query, page)
      return { sessions: sessions.filter(({ meta }) => deviceId === undefined || JSON.stringify(meta).includes(deviceId)), cursor }
    }
  })), /narrows by subject, client, device/],
  'does not count what it finds': [replacing(store => ({ count: async () => await store.count({}) })), /narrows by subject, client, device/],
  'finds up to a time and with it': [replacing(store => ({
    find: async ({ issuedBefore = Infinity, ...query }, page) => await store.find({ ...query, issuedBefore: issuedBefore + 1 }, page)
  })), /narrows by the time/],
  'updates any revision': [replacing(store => ({ update: async (id, patch, _revision) => await store.update(id, patch) })), /revision that is past/],
  'updates what has ended': [replacing(store => ({
    update: async (id, patch, revision) => await store.update(id, patch, revision) ?? sessionRecord({ id })
  })), /what does not live is not updated/],
  'does not know an update again': [replacing(store => ({
    update: async (id, patch, revision) => {
      const session = await store.get(id)
      if (revision !== undefined && session !== null && session.revision !== revision) throw new SessionConflict()
      return await store.update(id, patch)
    }
  })), /update of a revision that is repeated/],
  'merges meta': [replacing(store => ({
    update: async (id, patch, revision) => await store.update(id, { ...patch, ...patch.meta && { meta: { ...(await store.get(id))?.meta, ...patch.meta } } }, revision)
  })), /replaces each part as a whole/],
  'keeps marks among sessions': [replacing(store => ({
    mark: async (_purpose, _key, expiresAt) => {
      const record = sessionRecord({ sub: 'mark', expiresAt })
      return (await store.insert([record], { op: record.op })).inserted.length > 0
    }
  })), /marks are no sessions/],
  'takes all that says when it was issued for marked': [replacing(store => ({
    marked: (purpose, key, issuedAt) => issuedAt !== undefined || store.marked(purpose, key)
  })), /not taken for marked/],
  'joins purpose and key': [replacing(store => ({
    mark: async (purpose, key, expiresAt) => await store.mark('', purpose + key, expiresAt),
    marked: (purpose, key) => store.marked('', purpose + key)
  })), /marks of different purposes/],
  'looks for a mark and then sets it': [replacing(store => ({
    mark: async (purpose, key, expiresAt) => {
      if (await store.marked(purpose, key)) return false
      await pause()
      await store.mark(purpose, key, expiresAt)
      return true
    }
  })), /100 that set a mark/],
  'keeps a mark for ever': [replacing(store => ({ mark: async (purpose, key) => await store.mark(purpose, key, Infinity) })), /a mark is set once/],
  'tells nobody': [replacing(() => ({ onInvalidate: () => () => {} })), /has told so before it answers/],
  'tells expiries to nobody': [replacing(() => ({ onExpire: () => () => {} })), /expiry that is noticed/]
}

t.test('a store that is broken fails the test of what it breaks', async t => {
  for (const [name, [decorate, rule]] of Object.entries(broken)) {
    const [test, ...more] = storeContract(opens(decorate)).filter(({ name }) => rule.test(name))
    t.equal(more.length, 0)
    await t.rejects(async () => await test?.run(), `a store that ${name}`)
  }
})

t.test('routes are tested as somebody who is signed in', async t => {
  const app = await build(t)
  app.get('/me', { config: { session: { scope: 'admin' } } }, async request => ({ sub: request.requireAuth().session.sub, custom: request.headers['x-custom'] }))
  const inject = await injectAs(app, { sub: 'alice', scope: ['admin'] })
  t.same((await inject('/me')).json(), { sub: 'alice' })
  t.same((await inject({ method: 'GET', url: '/me', headers: { 'X-Custom': 'kept', Authorization: 'Bearer other' } })).json(), { sub: 'alice', custom: 'kept' })

  const asBob = await injectAs(app, sessionData({ sub: 'bob' }))
  t.equal((await asBob('/me')).statusCode, 403)
  t.equal((await app.inject('/me')).statusCode, 401)
  await t.rejects(injectAs(app, { sub: '' }), { code: 'FST_TOKEN_VALIDATION' })
})

t.test('generated data is valid, and each record has an id of its own', async t => {
  const { tokenRegistry } = await build(t, { validator: 'strict' })
  t.match((await tokenRegistry.issue(sessionData({ sub: 'bob', meta: { deviceId: 'tablet' } }))).session, { sub: 'bob', scope: ['read'], meta: { deviceId: 'tablet', ipAddress: '192.0.2.1' } })
  t.equal(new Set(Array.from({ length: 100 }, () => sessionRecord().id)).size, 100)
  t.match(sessionRecord({ use: 'once', issuedAt: 1000 }), { use: 'once', issuedAt: 1000, lastUsedAt: 1000, expiresAt: 3_601_000 })
})

t.test('generated text is what it says', async t => {
  t.equal(new Set(hostileStrings).size, hostileStrings.length)
  t.ok(hostileStrings.every(text => text.isWellFormed() && !text.includes('\0') && text.length >= 1 && text.length <= 256))
  t.ok(malformedStrings.every(text => !text.isWellFormed() || text.includes('\0')))
  t.same(randomStrings(7, 50), randomStrings(7, 50))
  t.notSame(randomStrings(7, 50), randomStrings(8, 50))
  t.ok(randomStrings(7, 1000).every(text => text.isWellFormed() && !text.includes('\0') && text.length >= 1 && text.length <= 64))
})
