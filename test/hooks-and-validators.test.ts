import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import Fastify from 'fastify'
import t from 'tap'
import { hostileStrings, malformedStrings, sessionData } from '../plugins/testing/index.ts'
import tokenRegistry, { memoryStore, type SessionData } from '../plugins/token-registry/index.ts'
import { build, newSecret } from './support/build.ts'
import { Clock } from './support/clock.ts'
import { decorated } from './support/decorated.ts'
import { deferred, soon } from './support/deferred.ts'
import { DAY, endings, expired, listen, refused, reused, revoked, rig } from './support/rig.ts'

// Hooks

t.test('hooks run by priority, then in the order in which they were added', async t => {
  const { registry } = await rig(t)
  const order: string[] = []
  const note = (name: string) => () => { order.push(name) }
  registry.addHook('preSave', note('b'))
  registry.addHook('preSave', note('c'))
  registry.addHook('preSave', note('a'), { priority: -1 })
  registry.addHook('preSave', note('d'), { priority: 1 })
  await registry.issue({ sub: 'alice' })
  t.same(order, ['a', 'b', 'c', 'd'])
})

t.test('each hook is told what it is about, and operations can be told apart', async t => {
  const { registry } = await rig(t, { cache: false })
  const told = listen(registry, 'preSave', 'postSave', 'preGet', 'postGet', 'preRotate', 'postRotate', 'preRevoke', 'postRevoke')
  const { token, session } = await registry.issue({ sub: 'alice' })
  await registry.verify(token)
  await registry.get(token)
  await registry.getById('a'.repeat(24))
  await registry.save('adopted-token', { sub: 'alice', use: 'once' })
  await registry.consume('adopted-token')
  await registry.revokeById(session.id)
  await registry.revokeAll({ sub: 'alice' })
  t.same(told.map(({ hook, args }) => `${hook} ${(args.at(-1) as { operation: string }).operation}`), [
    'preSave issue', 'postSave issue', 'preGet verify', 'postGet verify', 'preGet get', 'postGet get', 'preGet get', 'postGet get', 'preSave save', 'postSave save',
    'preRotate consume', 'postRotate consume', 'preRevoke revoke', 'postRevoke revoke', 'preRevoke revokeAll'
  ])
  t.match(told[0]?.args, [{ sub: 'alice' }, { op: session.op }])
  t.equal(told[7]?.args[0], null, 'a session that is not there')
  const ops = new Set(told.map(({ args }) => (args.at(-1) as { op: string }).op))
  t.equal(ops.size, 8)
})

t.test('what preSave returns is saved, and checked again', async t => {
  const { registry } = await rig(t)
  let stage: unknown
  registry.addHook('preSave', async ({ meta, ...data }) => ({ ...data, meta: { ...meta, deviceId: 'from hook' } }))
  registry.addHook('preSave', data => stage === undefined ? undefined : stage as SessionData)
  t.match((await registry.issue({ sub: 'alice', meta: { userAgent: 'a' } })).session.meta, { deviceId: 'from hook', userAgent: 'a' })
  t.match((await registry.save('adopted-token', { sub: 'alice' }, '1h')).meta, { deviceId: 'from hook' })
  for (stage of [{ sub: '' }, { sub: 'alice', ttl: 1 }, { sub: 'alice', admin: true }, 7, 'text', []]) await t.rejects(registry.issue({ sub: 'alice' }), refused)
  t.equal(await registry.count({}), 2)
})

t.test('a validator is asked once, about what is saved', async t => {
  const asked: unknown[] = []
  const { registry } = await rig(t, { validator: ({ data }) => { asked.push(data) } })
  registry.addHook('preSave', data => ({ ...data, meta: { deviceId: 'phone' } }))
  await registry.issue({ sub: 'alice' })
  t.same(asked, [{ sub: 'alice', meta: { deviceId: 'phone' } }])

  const strict = (await rig(t, { validator: 'strict' })).registry
  strict.addHook('preSave', data => ({ ...data, meta: { deviceId: 'phone', ipAddress: '::1', userAgent: 'curl' } }))
  t.match((await strict.issue({ sub: 'alice' })).session, { meta: { deviceId: 'phone' } })
  await t.rejects(strict.issue({ sub: '' }), { message: /^sub: /, statusCode: 400 }, 'hooks are given what is valid')
})

t.test('hooks after a batch run together', async t => {
  const { registry } = await rig(t, { hookTimeout: 20 })
  const failures: unknown[] = []
  registry.addHook('onError', error => { failures.push(error) })
  registry.addHook('postSave', () => new Promise(() => {}))
  const began = performance.now()
  await registry.saveBatch(Array.from({ length: 1000 }, (_, i) => ({ token: `adopted-${i}`, data: { sub: 'alice' } })))
  t.ok(performance.now() - began < 10_000, 'one after another they would take 20 s')
  t.equal(failures.length, 1000)
})

t.test('a hook that runs before and fails stops the operation, and nothing has changed', async t => {
  const never = new Promise<never>(() => {})
  const failures: Array<[() => never | Promise<never>, { message: string | RegExp }]> = [
    [() => { throw new RangeError('no') }, { message: 'no' }],
    [async () => { throw new RangeError('no') }, { message: 'no' }],
    [async () => await never, { message: /did not answer within 20 ms/ }]
  ]
  for (const [fail, expected] of failures) {
    const { registry, store } = await rig(t, { hookTimeout: 20 })
    const { token, session } = await registry.issue({ sub: 'alice' })
    await registry.verify(token)
    for (const name of ['preSave', 'preRotate', 'preRevoke', 'preGet'] as const) registry.addHook(name, fail)
    const told = endings(registry)

    await t.rejects(registry.issue({ sub: 'alice' }), expected)
    await t.rejects(registry.save('adopted-token', { sub: 'alice' }), expected)
    await t.rejects(registry.saveBatch([{ token: 'adopted-token', data: { sub: 'alice' } }]), expected)
    await t.rejects(registry.rotate(token), expected)
    await t.rejects(registry.revoke(token), expected)
    await t.rejects(registry.revokeById(session.id), expected)
    await t.rejects(registry.revokeAll({ sub: 'alice' }), expected)
    await t.rejects(registry.get(token), expected)
    await t.rejects(registry.getById(session.id), expected)
    t.same((await registry.verify(token)).session, session, 'the cache asks no hook')
    t.equal(await store.count({}), 1)
    t.same(await store.get(session.id), session)
    t.same(told, [])
  }
})

t.test('a hook that runs after and fails undoes nothing, and onError and the log are told', async t => {
  const never = new Promise<never>(() => {})
  const failures: Array<[() => never | Promise<never>, RegExp]> = [
    [() => { throw new RangeError('failed at once') }, /failed at once/],
    [async () => { throw new RangeError('failed later') }, /failed later/],
    [() => { throw 'a text' }, /no error/], // eslint-disable-line no-throw-literal
    [async () => { throw Object.create(null) }, /no error/],
    [async () => await never, /did not answer/]
  ]
  for (const [fail, message] of failures) {
    const lines: string[] = []
    const app = Fastify({ logger: { stream: { write: line => { lines.push(line) } } } })
    t.teardown(async () => await app.close())
    await app.register(tokenRegistry, { secret: newSecret(), hookTimeout: 20 })
    const registry = app.tokenRegistry
    for (const name of ['postSave', 'postGet', 'postRotate', 'postRevoke', 'onEnd', 'onReuse'] as const) registry.addHook(name, fail)
    const errors: string[] = []
    const all = deferred()
    registry.addHook('onError', () => { throw new Error('onError failed itself') })
    registry.addHook('onError', (error, { hook }) => {
      t.match(error.message, message)
      errors.push(String(hook))
      if (errors.length === 9) all.resolve()
    })

    const { token } = await registry.issue({ sub: 'alice' })
    await registry.verify(token)
    const { token: next } = await registry.rotate(token)
    t.equal(await registry.revoke(next), true)
    const once = await registry.issue({ sub: 'alice', use: 'once' })
    await registry.consume(once.token)
    await t.rejects(registry.consume(once.token), reused)
    await soon(all.promise)
    t.same(errors.sort(), ['onEnd', 'onEnd', 'onReuse', 'postGet', 'postRevoke', 'postRotate', 'postRotate', 'postSave', 'postSave'])
    t.ok(lines.some(line => /the postSave hook failed/.test(line)))
    t.ok(lines.some(line => /the onError hook failed/.test(line)))
    t.notOk(lines.some(line => line.includes(token)))
    app.post('/start', async request => {
      await request.startSession({ sub: 'bob' })
      return request.id
    })
    const { body: id } = await app.inject({ method: 'POST', url: '/start' })
    t.match(lines.map(line => JSON.parse(line)).findLast(({ msg }) => msg === 'the postSave hook failed'), { reqId: id, plugin: 'token-registry' })
  }
})

t.test('every ending is told once, of whatever kind', async t => {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now, sweepInterval: 1 })
  const { tokenRegistry: registry } = await build(t, { store, reuseWindow: 0, validator: 'none' })
  t.teardown(async () => await store.close())
  const told = new Map<string, string[]>()
  let wake = deferred()
  registry.addHook('onEnd', ({ id }, ending) => {
    t.equal(ending.id, id)
    told.set(id, [...told.get(id) ?? [], ending.reason])
    wake.resolve()
  })
  const issue = async (data: Partial<SessionData> = {}) => await registry.issue({ sub: 'alice', ...data })
  const expected: Array<[string, string]> = []

  const byToken = await issue()
  await registry.revoke(byToken.token, 'logout')
  expected.push([byToken.session.id, 'logout'])

  const rotated = await issue()
  await registry.rotate(rotated.token)
  await t.rejects(registry.rotate(rotated.token), reused)
  expected.push([rotated.session.id, 'reuse_recent'])

  const stale = await issue()
  await registry.rotate((await registry.rotate(stale.token)).token)
  await t.rejects(registry.rotate(stale.token), reused)
  expected.push([stale.session.id, 'reuse_stale'])

  const all = await issue({ sub: 'bob' })
  await registry.revokeAll({ sub: 'bob', reason: 'disabled' })
  expected.push([all.session.id, 'disabled'])

  const [absolute, idle] = [await issue({ ttl: '1m' }), await issue({ idleTimeout: '1m' })]
  clock.advance(60_000)
  // Nobody asks for them: the sweep notices.
  while (!told.has(absolute.session.id) || !told.has(idle.session.id)) {
    await soon(wake.promise)
    wake = deferred()
  }
  expected.push([absolute.session.id, 'expired'], [idle.session.id, 'idle'])

  await registry.revoke(byToken.token)
  await registry.revokeAll({ sub: 'bob' })
  await t.rejects(registry.verify(absolute.token), expired)
  t.same([...told].sort(), expected.map(([id, reason]) => [id, [reason]]).sort())
  t.same(registry.stats.read().ended, { logout: 1, reuse_recent: 1, reuse_stale: 1, disabled: 1, expired: 1, idle: 1 })
})

t.test('what a limit ended is told', async t => {
  const { registry } = await rig(t, {}, store => decorated(store, {
    insert: async (records, options) => await store.insert(records, { ...options, limits: [{ name: 'sessions', max: 2, onExceed: records[0]?.client === 'strict' ? 'refuse' : 'end-oldest' }] })
  }))
  const told = endings(registry)
  const [first] = [await registry.issue({ sub: 'alice' }), await registry.issue({ sub: 'alice' })]
  const third = await registry.issue({ sub: 'alice' })
  t.match(told, [{ id: first.session.id, reason: 'limit', op: third.session.op, by: null }])
  await t.rejects(registry.verify(first.token), revoked)
  await t.rejects(registry.issue({ sub: 'alice', client: 'strict' }), { code: 'FST_SESSION_LIMIT', statusCode: 429, message: /"sessions" of 2/ })
})

t.test('a hook that is none is refused', async t => {
  const { registry } = await rig(t)
  for (const name of ['presave', 'toString', '__proto__', '', 7, null]) t.throws(() => registry.addHook(name as 'onEnd', () => {}), { code: 'FST_TOKEN_OPTIONS', message: /preSave/ })
  for (const run of [null, 'text', {}]) t.throws(() => registry.addHook('onEnd', run as never), { code: 'FST_TOKEN_OPTIONS', message: /onEnd hook is not a function/ })
})

// Validators

t.test('a subject is any well-formed text, and comes back byte for byte', async t => {
  const { registry } = await rig(t)
  for (const text of hostileStrings) {
    const { token } = await registry.issue({ sub: text, tenant: text, client: text, version: text.slice(0, 32).toWellFormed(), meta: { deviceId: text, userAgent: text } })
    t.match((await registry.verify(token)).session, { sub: text, tenant: text, client: text, meta: { deviceId: text, userAgent: text } })
  }
  for (const text of hostileStrings) t.equal(await registry.count({ sub: text, tenant: text }), 1)
})

t.test('the default validator refuses what cannot be kept, and names it', async t => {
  const { registry } = await rig(t)
  const faults: Array<[unknown, RegExp]> = [
    [{}, /^sub: /], [{ sub: '' }, /^sub: /], [{ sub: 'a'.repeat(257) }, /^sub: .*1 to 256/], [{ sub: 7 }, /^sub: /], [{ sub: null }, /^sub: /], [{ sub: ['alice'] }, /^sub: /], [null, /argument/], ['alice', /argument/],
    ...malformedStrings.flatMap(text => [
      [{ sub: text }, /^sub: is not well-formed text/], [{ sub: 'alice', tenant: text }, /^tenant: /], [{ sub: 'alice', client: text }, /^client: /],
      [{ sub: 'alice', meta: { deviceId: text } }, /^meta\.deviceId: /], [{ sub: 'alice', meta: { own: [text] } }, /^meta\.own\.0: /], [{ sub: 'alice', meta: { [text]: 1 } }, /^meta: has a key/]
    ] satisfies Array<[unknown, RegExp]>),
    [{ sub: 'alice', tenant: 'a'.repeat(257) }, /^tenant: /], [{ sub: 'alice', client: '' }, /^client: /], [{ sub: 'alice', role: 'admin' }, /^role: /],
    ...[999, 365 * DAY + 1, 1500.5, -1, NaN, Infinity, '999ms', '366d', '1 h', '1y', 'h', '', true, {}].map((ttl): [unknown, RegExp] => [{ sub: 'alice', ttl }, /^ttl: /]),
    [{ sub: 'alice', idleTimeout: 999 }, /^idleTimeout: /], [{ sub: 'alice', idleTimeout: '1y' }, /^idleTimeout: /],
    [{ sub: 'alice', use: 'access' }, /^use: /], [{ sub: 'alice', scope: 'read' }, /^scope: /], [{ sub: 'alice', scope: ['a b'] }, /^scope\.0: /], [{ sub: 'alice', scope: [''] }, /^scope\.0: /],
    [{ sub: 'alice', scope: ['"'] }, /^scope\.0: /], [{ sub: 'alice', scope: Array.from({ length: 257 }, () => 'a') }, /^scope: /],
    [{ sub: 'alice', origin: 'x' }, /^origin: /], [{ sub: 'alice', binding: 'x' }, /^binding: /], [{ sub: 'alice', version: '' }, /^version: /],
    ...['x', '', '1.2.3', '1.2.3.4.5', '256.1.1.1', '::g', '1.2.3.4/8', '192.0.2.1 ', 7].map((ipAddress): [unknown, RegExp] => [{ sub: 'alice', meta: { ipAddress } }, /^meta\.ipAddress: /])
  ]
  for (const [data, message] of faults) await t.rejects(registry.issue(data as SessionData), { ...refused, message })
  for (const ipAddress of ['192.0.2.1', '::1', '2001:db8::1', '::ffff:192.0.2.1', 'fe80::1%eth0']) await registry.issue({ sub: 'alice', meta: { ipAddress } })
  for (const ttl of [1000, 365 * DAY, '1s', '1000ms', '365d', '12h', '15m']) await registry.issue({ sub: 'alice', ttl })
})

t.test('meta is plain JSON of at most 4096 bytes and 16 levels', async t => {
  const { registry } = await rig(t)
  const issue = async (meta: object) => await registry.issue({ sub: 'alice', meta })
  const nested = (depth: number): object => depth === 1 ? {} : { a: nested(depth - 1) }
  const lists = (depth: number): unknown => depth === 0 ? [] : [lists(depth - 1)]
  const sized = (bytes: number) => ({ a: 'x'.repeat(bytes - JSON.stringify({ a: '' }).length) })
  const wide = { a: '\u20ac'.repeat(1363) } // 8 bytes around, 3 for each
  t.match((await issue(sized(4096))).session.meta, sized(4096))
  t.equal(Buffer.byteLength(JSON.stringify(wide)), 4097)
  t.match((await issue(nested(16))).session.meta, nested(16))
  t.match((await issue({ left: undefined, none: null, list: [1, 'a', false, null, {}] })).session.meta, { none: null, list: [1, 'a', false, null, {}] })

  const circle: Record<string, unknown> = {}
  circle['self'] = circle
  const ring: unknown[] = [1]
  ring.push(ring)
  class Point { x = 1 }
  const faults: Array<[unknown, RegExp]> = [
    [sized(4097), /^meta: is 4097 bytes/], [wide, /^meta: is 4097 bytes/], [nested(17), /deeper than 16/], [{ a: lists(15) }, /deeper than 16/], [circle, /deeper than 16/], [{ ring }, /deeper than 16/],
    [JSON.parse('{"__proto__":{"admin":true}}'), /has a key __proto__/], [{ a: [JSON.parse('{"__proto__":1}')] }, /^meta\.a\.0: has a key __proto__/], [{ a: { constructor: 1 } }, /^meta\.a: has a key constructor/], [{ prototype: {} }, /has a key prototype/],
    [{ a: 1n }, /^meta\.a: is a bigint/], [{ a: () => 1 }, /is a function/], [{ a: Symbol('a') }, /is a symbol/], [{ a: NaN }, /^meta\.a: is a number/], [{ a: Infinity }, /is a number/],
    [{ a: new Date() }, /^meta\.a: is an object of a class/], [{ a: new Map() }, /of a class/], [{ a: new Point() }, /of a class/], [new Point(), /of a class/], [{ a: Buffer.from('a') }, /of a class/], [{ toJSON: () => ({ admin: true }) }, /is a function/],
    [[], /^meta: /], ['text', /^meta: /], [null, /^meta: /]
  ]
  for (const [meta, message] of faults) await t.rejects(issue(meta as object), { ...refused, message })

  let reads = 0
  const { session } = await issue({ get once () { return `read ${++reads}` } })
  t.match(session.meta, { once: /^read \d$/ }, 'a getter is kept as what it gave')
  t.same((await registry.getById(session.id))?.meta, session.meta)
})

t.test('the strict validator asks for a device, an address, an agent, and tokens that cannot be guessed', async t => {
  const { registry } = await rig(t, { validator: 'strict' })
  await registry.issue(sessionData())
  for (const meta of [{ deviceId: 'phone' }, { deviceId: 'phone', ipAddress: '::1' }, { deviceId: 'phone', ipAddress: '::1', userAgent: '' }, undefined]) {
    await t.rejects(registry.issue({ sub: 'alice', ...meta && { meta } }), { ...refused, message: /^meta\.(ipAddress|userAgent|deviceId): is required/ })
  }
  const save = async (token: string) => await registry.save(token, sessionData())
  const random = randomBytes(32)
  for (const token of [random.toString('hex'), random.toString('hex').toUpperCase(), random.toString('base64url'), random.subarray(0, 17).toString('base64url'), BigInt(`0x${random.toString('hex')}`).toString(), crypto.randomUUID(), 'abcdefghijklmnopqrstuvwxy', `a b${random.toString('base64')}`]) {
    t.match(await save(token), { sub: 'alice' }, token)
  }
  for (const token of ['password', '0123456789012345678901234567890123', 'deadbeefdeadbeefdeadbeefdeadbee', 'a'.repeat(512), 'ab'.repeat(60), random.toString('hex').slice(0, 31), random.subarray(0, 15).toString('base64url')]) {
    await t.rejects(save(token), { ...refused, message: /guess/ }, token)
  }
})

t.test('a validator of one\'s own runs after the default, and is waited for', async t => {
  const seen: unknown[] = []
  const { registry } = await rig(t, {
    hookTimeout: 20,
    validator: async ({ data, token }) => {
      seen.push(token)
      await setImmediate()
      if (data.sub === 'never') await new Promise(() => {})
      if (data.sub === 'mallory') throw new Error('mallory may not sign in')
      if (data.sub === 'conflict') throw Object.assign(new Error('try later'), { statusCode: 409 })
      if (data.sub === 'text') throw 'text' // eslint-disable-line no-throw-literal
    }
  })
  await registry.issue({ sub: 'alice' })
  await registry.save('adopted-token', { sub: 'alice' })
  t.same(seen, [null, 'adopted-token'])
  await t.rejects(registry.issue({ sub: 'mallory' }), { ...refused, message: 'mallory may not sign in' })
  await t.rejects(registry.issue({ sub: 'conflict' }), { statusCode: 409, message: 'try later' })
  await t.rejects(registry.issue({ sub: 'text' }), { ...refused, message: 'the validator refused the session' })
  await t.rejects(registry.issue({ sub: 'never' }), { code: 'FST_TOKEN_HOOK_TIMEOUT' })
  await t.rejects(registry.issue({ sub: '' }), { ...refused, message: /^sub: / })
  t.equal(await registry.count({}), 2)

  const { registry: none } = await rig(t, { validator: 'none' })
  t.match((await none.issue({ sub: 'a\0', ttl: 1 })).session, { sub: 'a\0' })
  const { token } = await none.issue({ sub: 'alice', ttl: 'as long as you like' })
  await t.rejects(none.verify(token), expired, 'what is no lifetime is none')
  await t.rejects(build(t, { validator: 'strikt' as never }), { code: 'FST_TOKEN_OPTIONS', message: /validator is "strikt"/ })
})
