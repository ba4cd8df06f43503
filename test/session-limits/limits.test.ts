import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { holdingsOf, judgeLimits, memoryStore } from '../../plugins/token-registry/index.ts'
import type { LimitedSession, LimitOption, SessionLimitsOptions } from '../../plugins/session-limits/index.ts'
import sessionLimits from '../../plugins/session-limits/index.ts'
import { build } from '../support/build.ts'
import { Clock } from '../support/clock.ts'
import { decorated } from '../support/decorated.ts'
import { limited, refusalOf } from '../support/limited.ts'
import { endings } from '../support/rig.ts'

const full = { code: 'FST_SESSION_LIMIT', statusCode: 429, critical: false }
const onDevice = (deviceId: string) => ({ meta: { deviceId } })

t.test('what is no option, or contradicts another, is refused at registration, with its path', async t => {
  const limit = (given: object) => ({ limits: [{ per: 'user', max: 3, onExceed: 'refuse' }, { per: 'client', max: 3, ...given }] })
  const cases: Array<[object, string]> = [
    ...[0, -1, 1.5, NaN, -Infinity, Infinity, '3', null].map((max): [object, string] => [limit({ max }), `limits.1.max is ${typeof max === 'string' ? "'3'" : String(max)}: it may be a whole number from 1 to 1000000000, or a function`]),
    [{ limits: [{ per: 'everybody', max: 1 }] }, 'limits.0.per is \'everybody\': it may be "user", "device", "client", "tenant", or a function'],
    [limit({ onExceed: 'end-newest' }), 'limits.1.onExceed is \'end-newest\': it may be "refuse", "end-oldest", "end-least-recently-used"'],
    [limit({ group: 'web' }), 'limits.1.group is \'web\': it may be a function'],
    [limit({ maximum: 1 }), 'limits.1.maximum is not an option: there are name, per, max, onExceed, group'],
    [limit({ name: '' }), 'limits.1.name is \'\': it may be text of 1 to 64 characters'],
    [{ limits: { per: 'user', max: 1 } }, 'limits is [Object]: it may be a list of at most 8 limits'],
    [{ limits: ['user'] }, 'limits.0 is \'user\': it may be { per, max, onExceed, group, name }'],
    [{ limits: [{ per: 'tenant', max: 9, onExceed: 'end-oldest' }] }, 'limits.0.onExceed is "end-oldest": with per: "tenant" it may be "refuse", since who signs in must not sign others out'],
    [{ limits: [{ name: 'a', per: 'user', max: 1 }, { name: 'a', per: 'client', max: 1 }] }, 'limits.1.name is "a", as that of a limit before it: give each its own'],
    [{ lifetimes: { web: { ttl: 'soon' } } }, 'lifetimes.web.ttl is \'soon\': it may be a number of milliseconds, or text such as "15m"'],
    [{ lifetimes: { web: { idle: '1h' } } }, 'lifetimes.web.idle is not an option: there are ttl, idleTimeout, remember'],
    [{ lifetimes: { web: { ttl: '1h', idleTimeout: '1h' } } }, 'lifetimes.web.idleTimeout (3600000 ms) is not shorter than lifetimes.web.ttl (3600000 ms): one of them must change'],
    [{ lifetimes: { web: { idleTimeout: '10s' } } }, 'reuseWindow (10000 ms) is not shorter than lifetimes.web.idleTimeout (10000 ms): one of them must change'],
    [{ lifetimes: { web: { ttl: '10s' } } }, 'reuseWindow (10000 ms) is not shorter than lifetimes.web.ttl (10000 ms): one of them must change'],
    [{ lifetimes: { web: { ttl: '400d' } } }, `lifetimes.web.ttl is ${400 * 86_400_000} ms: it may be 1000 to ${365 * 86_400_000}`],
    [{ lifetimes: { web: { ttl: '1h', remember: { idleTimeout: '2h' } } } }, 'lifetimes.web.remember.idleTimeout (7200000 ms) is not shorter than lifetimes.web.remember.ttl (3600000 ms): one of them must change'],
    [{ devices: { max: 0 } }, 'devices.max is 0: it may be a whole number from 1 to 100'],
    [{ notifications: { attempts: 0 } }, 'notifications.attempts is 0: it may be a whole number from 1 to 10'],
    [{ limit: [] }, 'limit is not an option: there are limits, lifetimes, devices, notifications']
  ]
  for (const [options, message] of cases) {
    const app = await build(t)
    await t.rejects(async () => await app.register(sessionLimits, options as SessionLimitsOptions), { code: 'FST_SESSION_LIMITS_OPTIONS', message: `session-limits: ${message}` }, message)
  }

  const app = await build(t, { reuseWindow: 0, cache: { maxStaleness: '5s' }, idleTimeout: '1h' })
  await t.rejects(async () => await app.register(sessionLimits, { lifetimes: { web: { idleTimeout: '5s' } } }), { message: /cache\.maxStaleness \(5000 ms\) is not shorter than lifetimes\.web\.idleTimeout/ })
  const other = await build(t, { idleTimeout: '1h' })
  await t.rejects(async () => await other.register(sessionLimits, { lifetimes: { web: { ttl: '30m' } } }), { message: /idleTimeout of token-registry \(3600000 ms\) is not shorter than lifetimes\.web\.ttl/ })
})

t.test('it needs token-registry, and sets the terms once', async t => {
  const { default: Fastify } = await import('fastify')
  await t.rejects(async () => await Fastify().register(sessionLimits, {}), { message: /token-registry/ })
  const app = await build(t)
  await app.register(sessionLimits, {})
  await t.rejects(async () => await app.register(sessionLimits, {}), { code: 'FST_TOKEN_OPTIONS' })
  t.throws(() => app.sessionLimits.devices, { code: 'FST_SESSION_DEVICES_OFF' })
  await app.tokenRegistry.issue({ sub: 'alice' })
})

t.test('limits per user, device, client and function count within one subject', async t => {
  const kinds: Array<[string, LimitOption['per'], object, object]> = [
    ['user', 'user', {}, { sub: 'bob' }],
    ['device', 'device', onDevice('a'), onDevice('b')],
    ['client', 'client', { client: 'a' }, { client: 'b' }],
    ['no client', 'client', {}, { client: 'b' }],
    ['function', ({ scope }) => scope[0] ?? null, { scope: ['a'] }, { scope: ['b'] }]
  ]
  for (const [name, per, own, other] of kinds) {
    const { issue, registry, live } = await limited(t, { limits: [{ per, max: 2, onExceed: 'end-oldest' }] })
    const first = await issue(own)
    for (const apart of [other, { ...own, sub: 'carol' }, { ...own, tenant: 'acme' }]) await issue(apart)
    await issue(own)
    t.ok(await registry.getById(first.session.id), name)
    const third = await issue(own)
    t.equal(await registry.getById(first.session.id), null, name)
    t.ok((await live()).includes(third.session.id))
  }
})

t.test('what is not of a device, and what a function gives null for, counts in no such limit', async t => {
  const { issue, live } = await limited(t, { limits: [{ per: 'device', max: 1 }, { per: () => null, max: 1 }] })
  for (let i = 0; i < 3; i++) await issue()
  t.equal((await live()).length, 3)
})

t.test('a tenant\'s limit counts all of its subjects, and those of no other', async t => {
  const { issue, registry, live } = await limited(t, { limits: [{ per: 'tenant', max: 2 }] })
  const { session } = await issue({ tenant: 'acme', sub: 'a' })
  await issue({ tenant: 'acme', sub: 'b' })
  await issue({ tenant: 'other', sub: 'a' })
  const error = await refusalOf(issue({ tenant: 'acme', sub: 'c' }))
  t.match(error, { ...full, limit: 'per tenant', max: 2, count: 2, message: 'The limit "per tenant" of 2 sessions is reached (there are 2): end one first' })
  t.same(error.sessions, [], 'who signs in learns nothing of others')
  t.same(await live('c', 'acme'), [])
  await registry.revokeById(session.id)
  await issue({ tenant: 'acme', sub: 'c' })
})

t.test('a sign-in that is refused is told the limit, the count and the own sessions, which no answer and no log shows', async t => {
  const { app, issue, live, errors } = await limited(t, { limits: [{ per: 'user', max: 2, name: 'two at a time' }] })
  const [first, second] = [await issue(), await issue()]
  await issue({ sub: 'bob' })
  const error = await refusalOf(issue())
  t.match(error, { ...full, limit: 'two at a time', max: 2, count: 2 })
  t.same(error.sessions.map(({ id }) => id), [second.session.id, first.session.id])
  t.notOk(Object.keys(error).includes('sessions'))

  const answer = await app.inject({ method: 'POST', url: '/login' })
  t.same(answer.json(), { statusCode: 429, code: 'FST_SESSION_LIMIT', error: 'Too Many Requests', message: 'The limit "two at a time" of 2 sessions is reached (there are 2): end one first' })
  t.notMatch(errors.join(''), first.session.id)
  t.same(await live(), [first.session.id, second.session.id])
})

t.test('the oldest, or the least recently used, ends to make room; a rotation keeps its place', async t => {
  for (const onExceed of ['end-oldest', 'end-least-recently-used'] as const) {
    const { issue, registry, clock, live } = await limited(t, { limits: [{ per: 'user', max: 2, onExceed }] })
    const told = endings(registry)
    const [first, second] = [await issue(), await issue()]
    clock.advance(1000)
    await registry.rotate(first.token)
    const third = await issue()
    const gone = onExceed === 'end-oldest' ? first : second
    t.same(await live(), [first, second, third].filter(issued => issued !== gone).map(({ session }) => session.id), onExceed)
    t.match(told, [{ id: gone.session.id, reason: 'limit', by: null, detail: { limit: 'per user', session: third.session.id } }])
    t.equal(told.length, 1)
    await t.rejects(registry.verify(gone.token), { code: 'FST_TOKEN_REVOKED' })
    t.match(await registry.explain(gone.session.id), told[0])
  }
})

t.test('of several that are exceeded the narrowest picks who ends, whatever the order in which they stand', async t => {
  const perUser: LimitOption = { per: 'user', max: 3, onExceed: 'end-oldest' }
  const perClient: LimitOption = { per: 'client', max: 2, onExceed: 'end-oldest' }
  const perDevice: LimitOption = { per: 'device', max: 1, onExceed: 'end-oldest' }
  for (const limits of [[perUser, perClient, perDevice], [perDevice, perUser, perClient]]) {
    const { issue, live } = await limited(t, { limits })
    const [oldest, app, phone] = [await issue({ client: 'site' }), await issue({ client: 'app' }), await issue({ client: 'app', ...onDevice('phone') })]
    const next = await issue({ client: 'app', ...onDevice('phone') })
    t.same(await live(), [oldest, app, next].map(({ session }) => session.id), 'the device was full, then nothing else')
    const last = await issue({ client: 'app' })
    t.same(await live(), [oldest, next, last].map(({ session }) => session.id), 'the client was full')
    t.notOk((await live()).includes(phone.session.id))
  }
})

t.test('one-time tokens never count, nor does what has ended or expired', async t => {
  const { issue, registry, clock, live } = await limited(t, { limits: [{ per: 'user', max: 1 }, { per: 'device', max: 1 }] })
  await issue({ use: 'once', ...onDevice('a') })
  const first = await issue({ ttl: '1h', ...onDevice('a') })
  await issue({ use: 'once' })
  await t.rejects(issue(), full)
  clock.advance(3_600_000)
  const second = await issue()
  await registry.revokeById(second.session.id)
  const third = await issue()
  t.same(await live(), [third.session.id])
  t.match(await registry.explain(first.session.id), { reason: 'expired' })
})

t.test('a device that has a session replaces its own rather than being refused', async t => {
  const { issue, registry, live } = await limited(t, { limits: [{ per: 'user', max: 2 }] })
  const told = endings(registry)
  const [phone, laptop] = [await issue(onDevice('phone')), await issue(onDevice('laptop'))]
  await t.rejects(issue(onDevice('tablet')), full)
  await t.rejects(issue(), full)
  const again = await issue(onDevice('phone'))
  t.same(await live(), [laptop.session.id, again.session.id])
  t.match(told, [{ id: phone.session.id, reason: 'replaced', detail: { limit: 'per user', session: again.session.id, device: 'phone' } }])

  const perDevice = await limited(t, { limits: [{ per: 'device', max: 1 }] })
  const before = await perDevice.issue(onDevice('phone'))
  const after = await perDevice.issue(onDevice('phone'))
  t.same(await perDevice.live(), [after.session.id])
  t.match(await perDevice.registry.explain(before.session.id), { reason: 'replaced' })
})

t.test('a sign-in can end others of the same subject in the step that stores it', async t => {
  const { issue, registry, live } = await limited(t, { limits: [{ per: 'user', max: 2 }] })
  const stranger = await issue({ sub: 'bob' })
  const [first, second] = [await issue(), await issue()]
  const error = await refusalOf(issue())
  const oldest = error.sessions.at(-1)?.id ?? ''
  t.equal(oldest, first.session.id)
  const next = await issue({ endOthers: [oldest, stranger.session.id, 'x'.repeat(24)] })
  t.same(await live(), [second.session.id, next.session.id])
  t.match(await registry.explain(oldest), { reason: 'replaced', detail: { session: next.session.id } })
  t.same(await live('bob'), [stranger.session.id])

  await t.rejects(issue({ endOthers: [stranger.session.id] }), full, 'that of another makes no room, and is not told apart')
  await t.rejects(issue({ endOthers: ['../etc'] }), { code: 'FST_TOKEN_VALIDATION', message: /^endOthers\.0: / })
  await t.rejects(issue({ endOthers: Array(101).fill('x'.repeat(24)) }), { code: 'FST_TOKEN_VALIDATION' })
  t.same(await live(), [second.session.id, next.session.id])

  const without = await build(t)
  const { session } = await without.tokenRegistry.issue({ sub: 'alice' })
  await without.tokenRegistry.issue({ sub: 'alice', endOthers: [session.id] })
  t.equal(await without.tokenRegistry.getById(session.id), null, 'without limits too')
})

t.test('max can be a function, of anything that is known of a session', async t => {
  const plans: Record<string, number> = { free: 1, pro: 2, unlimited: Infinity }
  const { issue, live } = await limited(t, { limits: [{ per: 'user', max: async ({ scope: [plan = 'free'] }) => plans[plan] ?? 1 }] })
  await issue({ scope: ['free'] })
  await t.rejects(issue({ scope: ['free'] }), { ...full, max: 1 })
  await issue({ scope: ['pro'] })
  await t.rejects(issue({ scope: ['pro'] }), { ...full, max: 2, count: 2 })
  for (let i = 0; i < 3; i++) await issue({ scope: ['unlimited'] })
  t.equal((await live()).length, 5)
})

t.test('a function that throws, hangs or gives nonsense lets nobody in, and is logged', async t => {
  const nonsense: Array<[string, Partial<LimitOption>]> = [
    ...[0, -1, 1.5, NaN, '3', null, undefined, {}].map((value): [string, Partial<LimitOption>] => [`max ${String(value)}`, { max: () => value as number }]),
    ['max that throws', { max: () => { throw new Error('no plan') } }],
    ['max that rejects', { max: async () => { throw new Error('no plan') } }],
    ['per', { per: () => 7 as unknown as string }],
    ['per that is empty', { per: () => '' }],
    ['group', { group: () => null as unknown as string }],
    ['group that is long', { group: () => 'x'.repeat(257) }]
  ]
  for (const [name, given] of nonsense) {
    const { issue, live, errors, app } = await limited(t, { limits: [{ name: 'mine', per: 'user', max: 1, onExceed: 'end-oldest', ...given }] })
    await t.rejects(issue(), { code: 'FST_SESSION_LIMITS_FAILED', statusCode: 503, critical: true, message: 'The limit "mine" of sessions could not be worked out: try again' }, name)
    t.same(await live(), [], name)
    t.match(errors.join(''), /the limit \\"mine\\" could not be worked out/, name)
    const answer = await app.inject({ method: 'POST', url: '/login' })
    t.equal(answer.statusCode, 503)
    t.equal(answer.headers['retry-after'], '1')
  }
})

t.test('a function that hangs does so for hookTimeout, at a sign-in and when limits are enforced', async t => {
  let hangs = true
  const { issue, live, errors, app } = await limited(t, { limits: [{ name: 'mine', per: 'user', max: async () => hangs ? await new Promise(() => {}) : 5 }] }, { hookTimeout: 20 })
  const failed = { code: 'FST_SESSION_LIMITS_FAILED', statusCode: 503, message: /"mine"/ }
  await t.rejects(issue(), failed)
  t.match(errors.join(''), /longer than hookTimeout, 20 ms/)
  t.same(await live(), [])
  hangs = false
  await issue()
  hangs = true
  await t.rejects(app.sessionLimits.enforce({ sub: 'alice' }), { ...failed, ended: 0 })
})

t.test('an error that has a status of its own is one of the limit all the same', async t => {
  const own = Object.assign(new Error('mine'), { critical: true })
  const { issue, errors } = await limited(t, { limits: [{ per: 'user', max: () => { throw own } }, { per: 'client', max: async session => await (session as unknown as { nothing: () => Promise<number> }).nothing() }] })
  await t.rejects(issue(), { code: 'FST_SESSION_LIMITS_FAILED', statusCode: 503, cause: own })
  t.equal(errors.length, 2)
})

t.test('who is in use is not the least recently used, also where that is not written yet', async t => {
  const { issue, live, registry, app, clock } = await limited(t, { limits: [{ per: 'user', max: 2, onExceed: 'end-least-recently-used' }] })
  const use = async (token: string) => t.equal((await app.inject({ url: '/me', headers: { authorization: `Bearer ${token}` } })).statusCode, 200)
  const [first, second] = [await issue(), await issue()]
  for (const { token } of [first, second, first]) {
    clock.advance(2)
    await use(token)
  }
  const third = await issue()
  t.same(await live(), [first.session.id, third.session.id])
  clock.advance(2)
  await use(third.token)
  clock.advance(2)
  await registry.verify(first.token)
  const fourth = await issue()
  t.same(await live(), [first.session.id, fourth.session.id])
})

t.test('of very many sessions in use the least recently used ends too', async t => {
  const { issue, registry, clock } = await limited(t, { limits: [{ per: 'user', max: 501, onExceed: 'end-least-recently-used' }] })
  const issued = []
  while (issued.length < 501) issued.push(await issue())
  for (const { token } of issued.toReversed()) {
    clock.advance(1)
    await registry.verify(token)
  }
  await issue()
  const lives = await Promise.all(issued.map(async ({ session: { id } }) => await registry.getById(id) !== null))
  t.equal(lives.indexOf(false), 500, 'who was used first')
  t.equal(lives.filter(lives => lives).length, 500)
})

t.test('where one subject of a batch has no terms, nothing of it is stored; where the store fails for one, the others are told', async t => {
  const store = memoryStore()
  t.teardown(() => store.close())
  const failing = decorated(store, {
    insert: async (records, options) => {
      if (records.some(({ sub }) => sub === 'lost')) throw new Error('ECONNREFUSED')
      return await store.insert(records, options)
    }
  })
  const max = ({ sub }: LimitedSession) => { if (sub === 'bad') throw new Error('no plan'); return 1 }
  const { issue, live, registry } = await limited(t, { limits: [{ per: 'user', max, onExceed: 'end-oldest' }] }, { store: failing })
  const told: string[] = []
  registry.addHook('onEnd', ({ id }) => { told.push(id) })
  registry.addHook('postSave', ({ id }) => { told.push(id) })
  const before = await issue()
  const batch = (...subs: string[]) => registry.saveBatch(subs.map(sub => ({ token: `adopted-${sub}-${told.length}`.padEnd(32, 'x'), data: { sub } })))
  await t.rejects(batch('alice', 'bad'), { code: 'FST_SESSION_LIMITS_FAILED' })
  t.same(await live(), [before.session.id])
  const error = await batch('lost', 'alice').then(() => null, (error: unknown) => error)
  t.match(error, { code: 'FST_STORE_UNAVAILABLE', saved: [{ sub: 'alice' }] })
  const [after] = await live()
  t.same(told, [before.session.id, before.session.id, after])
})

t.test('whose limits cannot be worked out stay as they are, and others are brought within theirs', async t => {
  let max = 3
  const bad = new Set(['b'])
  const asked = new Set<string>()
  const { registry, app } = await limited(t, { limits: [{ per: 'user', max: ({ sub }) => { asked.add(sub); if (max === 1 && bad.has(sub)) throw new Error('no plan'); return max }, onExceed: 'end-oldest' }] })
  const subs = ['a', 'b', ...Array.from({ length: 20 }, (_, i) => `c ${i}`)]
  for (const sub of subs) for (let i = 0; i < 3; i++) await registry.issue({ sub })
  max = 1
  await t.rejects(app.sessionLimits.enforce(), { code: 'FST_SESSION_LIMITS_FAILED', ended: 42 })
  t.same(await Promise.all(['a', 'b', 'c 19'].map(async sub => await registry.count({ sub }))), [1, 3, 1])
  for (const sub of subs) bad.add(sub)
  asked.clear()
  await t.rejects(app.sessionLimits.enforce(), { code: 'FST_SESSION_LIMITS_FAILED', ended: 0 })
  t.equal(asked.size, 10)
})

t.test('who is to be brought within limits is asked for by keys that there are', async t => {
  const { app } = await limited(t, { limits: [{ per: 'user', max: 1 }] })
  for (const query of [{ sub: undefined }, { user: 'alice' }, { tenant: 7 }] as unknown as Array<{ sub: string }>) await t.rejects(app.sessionLimits.enforce(query), { code: 'FST_TOKEN_VALIDATION' })
})

t.test('an id of a device that is no text counts in nothing', async t => {
  const { issue, live } = await limited(t, { limits: [{ per: 'device', max: 1 }] }, { validator: 'none' })
  for (let i = 0; i < 2; i++) await issue(onDevice(7 as unknown as string))
  t.equal((await live()).length, 2)
})

t.test('functions get a session of their own', async t => {
  const { issue } = await limited(t, {
    limits: [{ per: 'user', max: session => { session.meta.userAgent = 'changed'; return 5 } }]
  })
  t.same((await issue({ meta: { userAgent: 'mine' } })).session.meta, { userAgent: 'mine' })
})

t.test('a group counts for itself', async t => {
  const { issue, live } = await limited(t, { limits: [{ per: 'user', max: 1, onExceed: 'end-oldest', group: ({ client }) => client === null ? 'web' : 'app' }] })
  const [web, app] = [await issue(), await issue({ client: 'phone' })]
  t.same(await live(), [web.session.id, app.session.id])
  const next = await issue({ client: 'tablet' })
  t.same(await live(), [web.session.id, next.session.id])
})

t.test('a batch is held to the limits of each of its subjects', async t => {
  const { registry, live } = await limited(t, { limits: [{ per: 'device', max: 1, onExceed: 'end-oldest' }, { per: 'user', max: 2 }] })
  const token = (i: number) => `adopted-token-${i}`.padEnd(32, 'x')
  const adopt = (i: number, sub: string, deviceId?: string) => ({ token: token(i), data: { sub, ...deviceId !== undefined && onDevice(deviceId) } })
  const saved = await registry.saveBatch([adopt(1, 'bob'), adopt(2, 'alice', 'a'), adopt(3, 'bob'), adopt(4, 'alice')])
  t.same(saved.map(({ sub }) => sub), ['bob', 'alice', 'bob', 'alice'])
  const error = await refusalOf(registry.saveBatch([adopt(5, 'alice'), adopt(6, 'carol'), adopt(7, 'alice')]))
  t.match(error, { ...full, saved: [{ sub: 'carol' }] })
  await registry.save(token(8), { sub: 'alice', ...onDevice('a') })
  t.equal((await live()).length, 2)
  t.equal((await live('bob')).length, 2)
})

t.test('limits are lowered at run time, and those who live are brought within them', async t => {
  let max = 3
  const { app, issue, live, registry, clock } = await limited(t, { limits: [{ per: 'user', max: () => max, onExceed: 'end-oldest' }] })
  const told = endings(registry)
  const alices = [await issue(), await issue(), await issue()].map(({ session }) => session.id)
  const bobs = [await issue({ sub: 'bob' }), await issue({ sub: 'bob' })].map(({ session }) => session.id)
  const other = await issue({ tenant: 'acme' })
  t.equal(await app.sessionLimits.enforce(), 0)
  max = 1
  t.equal(await app.sessionLimits.enforce({ sub: 'alice' }), 2)
  t.same(await live(), alices.slice(2))
  t.equal((await live('bob')).length, 2)
  t.equal(await app.sessionLimits.enforce(), 1)
  t.same(await live('bob'), bobs.slice(1))
  await issue({ tenant: 'acme', sub: 'b', use: 'once' })
  t.equal(await app.sessionLimits.enforce({ allTenants: true }), 0)
  t.same(await live('alice', 'acme'), [other.session.id])
  t.match(told, [...alices.slice(0, 2), bobs[0]].map(id => ({ id, reason: 'limit', by: null, detail: { limit: 'per user' } })))
  t.equal(told.length, 3)
  clock.advance(1)
  await t.rejects(app.sessionLimits.enforce({ sub: '' }), { code: 'FST_TOKEN_VALIDATION' })
  t.equal(await app.sessionLimits.enforce({ sub: 'nobody' }), 0)
})

t.test('a limit that refuses, lowered, ends what was used least recently', async t => {
  let max = 3
  const { app, issue, live, registry, clock } = await limited(t, { limits: [{ per: 'user', max: () => max }] })
  const [first, , third] = [await issue(), await issue(), await issue()]
  clock.advance(10)
  await registry.rotate(first.token)
  max = 2
  t.equal(await app.sessionLimits.enforce(), 1)
  t.same(await live(), [first.session.id, third.session.id])
})

t.test('sessions that are older than a limit count in it once it was enforced', async t => {
  const plan: { kind: string | null } = { kind: null }
  const { app, issue, live, registry } = await limited(t, {
    limits: [{ per: () => plan.kind, max: 1, onExceed: 'end-oldest' }, { per: 'tenant', max: () => plan.kind === null ? 9 : 2 }]
  })
  const [first, second, bob] = [await issue(), await issue(), await issue({ sub: 'bob' })]
  plan.kind = 'a'
  t.equal(await app.sessionLimits.enforce(), 1)
  t.same(await live(), [second.session.id])
  t.equal(await registry.getById(first.session.id), null)
  await t.rejects(issue({ sub: 'carol' }), { ...full, limit: 'per tenant' })
  plan.kind = 'b'
  await app.sessionLimits.enforce()
  t.same([await live(), await live('bob')], [[second.session.id], [bob.session.id]])
})

t.test('a tenant\'s limit, lowered, ends what was used least recently in the whole tenant', async t => {
  let max = 3
  const { app, issue, live, registry, clock } = await limited(t, { limits: [{ per: 'tenant', max: () => max }] })
  const [a] = [await issue({ sub: 'a' }), await issue({ sub: 'b' }), await issue({ sub: 'c' })]
  clock.advance(10)
  await registry.rotate(a.token)
  max = 2
  t.equal(await app.sessionLimits.enforce({ sub: 'a' }), 0, 'of one subject alone nobody knows how many there are')
  t.equal(await app.sessionLimits.enforce(), 1)
  t.same(await Promise.all(['a', 'b', 'c'].map(async sub => (await live(sub)).length)), [1, 0, 1])
  t.equal(await app.sessionLimits.enforce(), 0)
})

t.test('a function that fails while limits are enforced ends nobody', async t => {
  let fails = false
  const { app, issue, live } = await limited(t, { limits: [{ per: 'user', max: () => fails ? NaN : 2 }] })
  await issue()
  fails = true
  await t.rejects(app.sessionLimits.enforce(), { code: 'FST_SESSION_LIMITS_FAILED' })
  t.equal((await live()).length, 1)
})

t.test('lifetimes go by group, the shorter counts, and who issues has the last word', async t => {
  const HOUR = 3_600_000
  const { issue } = await limited(t, {
    limits: [
      { per: 'user', max: 9, group: ({ client }) => client ?? 'web' },
      { per: 'device', max: 9, group: ({ scope }) => scope.includes('admin') ? 'admin' : 'plain' }
    ],
    lifetimes: {
      default: { ttl: '5h' },
      web: { ttl: '10h', idleTimeout: '1h', remember: { ttl: '100h', idleTimeout: null } },
      admin: { ttl: '2h', idleTimeout: '90m' },
      app: { idleTimeout: null }
    }
  }, { ttl: '20h', idleTimeout: '4h' })
  const times = async (data: object) => {
    const { session: { issuedAt, expiresAt, idleTimeout } } = await issue(data)
    return [(expiresAt - issuedAt) / HOUR, idleTimeout === null ? null : idleTimeout / HOUR]
  }
  t.same(await times({}), [10, 1])
  t.same(await times({ meta: { remember: true } }), [100, null])
  t.same(await times({ meta: { remember: false } }), [10, 1])
  t.same(await times({ scope: ['admin'], meta: { deviceId: 'a' } }), [2, 1])
  t.same(await times({ scope: ['admin'], meta: { deviceId: 'a', remember: true } }), [2, 1.5])
  t.same(await times({ client: 'app' }), [20, null])
  t.same(await times({ client: 'other' }), [5, 4], 'a group without lifetimes of its own')
  t.same(await times({ ttl: '3h', idleTimeout: '30m' }), [3, 0.5])
  t.same(await times({ use: 'once' }), [20, null])
})

t.test('a session ends at its idle deadline, and at its absolute one however active it is', async t => {
  const { app, issue, clock } = await limited(t, { lifetimes: { default: { ttl: '1h', idleTimeout: '10m' } } })
  const status = async (token: string) => (await app.inject({ url: '/me', headers: { authorization: `Bearer ${token}` } })).statusCode
  const idle = await issue()
  clock.advance(10 * 60_000 - 1)
  t.equal(await status(idle.token), 200)
  clock.advance(10 * 60_000 + 1000)
  t.equal(await status(idle.token), 401)

  const active = await issue()
  for (let minutes = 0; minutes < 55; minutes += 5) {
    clock.advance(5 * 60_000)
    t.equal(await status(active.token), 200)
    // Uses are written in the background.
    while ((await app.tokenRegistry.getById(active.session.id))?.lastUsedAt !== clock.now()) await setImmediate()
  }
  clock.advance(5 * 60_000 + 1000)
  t.equal(await status(active.token), 401)
  t.match(await app.tokenRegistry.explain(active.session.id), { reason: 'expired' })
  t.match(await app.tokenRegistry.explain(idle.session.id), { reason: 'idle' })
})

t.test('who does not ask to stay signed in gets a cookie that ends with the browser', async t => {
  const { app } = await limited(t, { lifetimes: { default: { ttl: '1h', remember: { ttl: '30d' } } } }, { cookie: true })
  app.post('/sign-in/:remember', async request => {
    const { remember } = request.params as { remember: string }
    await request.startSession({ sub: 'alice', meta: remember === 'unsaid' ? {} : { remember: remember === 'yes' } })
  })
  const cookieOf = async (remember: string) => String((await app.inject({ method: 'POST', url: `/sign-in/${remember}` })).headers['set-cookie'])
  t.match(await cookieOf('yes'), /Max-Age=2592000;/)
  t.notMatch(await cookieOf('no'), /Max-Age|Expires/)
  t.match(await cookieOf('unsaid'), /Max-Age=3600;/)
})

t.test('an access token that lives longer than its session is refused at registration, whichever comes first', async t => {
  const { default: fastifyJwt } = await import('@fastify/jwt')
  const { default: sessionJwt, jwtKeys } = await import('../../plugins/session-jwt/index.ts')
  const server = async () => {
    const app = await build(t)
    await app.register(fastifyJwt, jwtKeys({ secret: 'kZ5mUq0b1Yw8oR3tXv6eHs9cLj2nPf4d' }))
    return app
  }
  const first = await server()
  await first.register(sessionJwt, { ttl: '1h', issuer: 'us', audience: 'api' })
  await t.rejects(async () => await first.register(sessionLimits, { lifetimes: { web: { ttl: '30m' } } }),
    { message: 'session-limits: ttl of session-jwt (3600000 ms) is longer than lifetimes.web.ttl (1800000 ms): one of them must change' })
  const second = await server()
  await second.register(sessionLimits, { lifetimes: { web: { ttl: '30m' } } })
  await t.rejects(async () => await second.register(sessionJwt, { ttl: '1h', issuer: 'us', audience: 'api' }),
    { code: 'FST_SESSION_JWT_OPTIONS', message: /ttl of session-jwt \(3600000 ms\) is longer than lifetimes\.web\.ttl \(1800000 ms\)/ })
})

t.test('explain tells what differs from what a session is bound to, where it was refused for that', async t => {
  const { registry, issue } = await limited(t, {})
  const [key, other] = ['k'.repeat(43), 'o'.repeat(43)]
  const { token, session } = await issue({ binding: key, client: 'app' })
  const error = await registry.verify(token, { binding: other }).then(() => null, (error: Error) => error)
  t.match(error, { code: 'FST_TOKEN_INVALID', cause: { code: 'FST_TOKEN_MISMATCH', message: 'The session belongs to another binding' } })
  t.match(await registry.rotate(token, { binding: other }).catch((error: Error) => error), { code: 'FST_TOKEN_INVALID', cause: { code: 'FST_TOKEN_MISMATCH' } })
  t.match(await registry.explain(session.id, { binding: other }), { id: session.id, sub: 'alice', reason: 'mismatch', detail: { differs: 'binding' } })
  t.match(await registry.explain(session.id, { binding: key, client: 'site' }), { reason: 'mismatch', detail: { differs: 'client' } })
  t.equal(await registry.explain(session.id, { binding: key }), null)
  t.equal(await registry.explain(session.id), null)
  t.equal(await registry.explain('x'.repeat(24), { binding: key }), null)
  await registry.revokeById(session.id, 'stolen', { detail: { differs: 'ipAddress' } })
  t.match(await registry.explain(session.id, { binding: other }), { reason: 'stolen', detail: { differs: 'ipAddress' } })
  const another = await issue()
  await registry.revoke(another.token, 'stolen', { detail: { differs: 'userAgent' } })
  t.match(await registry.explain(another.session.id), { reason: 'stolen', detail: { differs: 'userAgent' } })
  await t.rejects(registry.revokeById(session.id, 'x', { detail: { token: 'secret' } as object }), { code: 'FST_TOKEN_VALIDATION' })
})

t.test('what limits say can be asked of a list: for a store of one\'s own', async t => {
  const record = (id: string, lastUsedAt: number, more = {}) => sessionRecord({ id: id.padEnd(24, 'x'), lastUsedAt, ...more })
  const live = [record('a', 3), record('b', 1), record('c', 2), record('d', 0, { sub: 'bob' }), record('e', 0, { use: 'once' })]
  const limits = [{ name: 'two', max: 2, onExceed: 'end-least-recently-used' as const }]
  const { victims, refused } = judgeLimits(holdingsOf(live, 'alice'), [record('f', 9)], { limits })
  t.same([refused, [...victims.keys()].map(({ id }) => id.slice(0, 1))], [null, ['b', 'c']])
})

t.test('limits of one kind are told apart by their place', async t => {
  const { issue } = await limited(t, { limits: [{ per: 'user', max: 5 }, { per: 'user', max: 1 }] })
  await issue()
  t.match(await refusalOf(issue()), { limit: 'per user 1', max: 1 })
})

t.test('more devices than are remembered count all the same', async t => {
  const { issue, live } = await limited(t, { limits: [{ per: 'device', max: 1, onExceed: 'end-oldest' }] }, { validator: 'none' })
  const first = await issue(onDevice('first'))
  for (let i = 0; i < 10_001; i++) await issue({ sub: 'bob', ...onDevice(`device ${i}`) })
  const second = await issue(onDevice('first'))
  t.same(await live(), [second.session.id])
  t.not(second.session.id, first.session.id)
})

t.test('a device that cannot be read lets nobody in where a limit asks for it', async t => {
  const clock = new Clock()
  const memory = memoryStore({ now: clock.now })
  t.teardown(() => memory.close())
  const documents = { read: async () => { throw new Error('ECONNREFUSED') }, write: async () => false }
  const store = decorated(memory, { documents })
  const { app, issue, errors } = await limited(t, { devices: true, limits: [{ per: 'user', max: async session => (await session.device())?.trusted === true ? 2 : 1 }] }, { store })
  const { id } = app.sessionLimits.devices.recognise({ headers: {} })
  await t.rejects(issue(onDevice(id)), { code: 'FST_SESSION_LIMITS_FAILED', statusCode: 503, cause: { code: 'FST_STORE_UNAVAILABLE' } })
  t.match(errors.join(''), /ECONNREFUSED/)
})

t.test('where no devices are kept, a session has none that is known', async t => {
  const seen: unknown[] = []
  for (const devices of [false, true]) {
    const { issue } = await limited(t, { devices, limits: [{ per: 'user', max: async session => seen.push(await session.device()) }] })
    await issue(onDevice('a kiosk'))
  }
  t.same(seen, [null, null])
})

t.test('without limits there is nothing to enforce', async t => {
  const app = await build(t)
  await app.tokenRegistry.issue({ sub: 'alice' })
  t.equal(await app.tokenRegistry.enforceLimits(), 0)
})
