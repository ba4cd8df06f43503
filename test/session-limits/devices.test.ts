import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import { parseSetCookie } from 'cookie'
import t, { type Test } from 'tap'
import { createRedisStore } from '../../plugins/redis-store/index.ts'
import { Devices, type DevicesParts, type SignIn } from '../../plugins/session-limits/devices/devices.ts'
import { MemoryDocuments } from '../../plugins/token-registry/memory-store/documents.ts'
import { resolveDevices, type DevicesOptions } from '../../plugins/session-limits/devices/options.ts'
import { DeviceTokens, newDeviceId } from '../../plugins/session-limits/devices/token.ts'
import { StoreUnavailable, type Documents, type TokenRegistry } from '../../plugins/token-registry/index.ts'
import { build } from '../support/build.ts'
import type { Clock } from '../support/clock.ts'
import { sharedRedis } from '../support/redis.ts'
import { newPrefix } from '../support/redis-store.ts'
import { DAY, endings, rig } from '../support/rig.ts'

const alice = { tenant: '', sub: 'alice' }
const firefox = 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:139.0) Gecko/20100101 Firefox/139.0'
const chrome = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36'
const notFound = { code: 'FST_SESSION_DEVICE_NOT_FOUND', statusCode: 404, message: 'There is no such device' }
const invalid = { code: 'FST_SESSION_DEVICE', statusCode: 400 }

interface DeviceRig {
  devices: Devices
  registry: TokenRegistry
  documents: Documents
  clock: Clock
  logged: string[]
}

async function open (t: Test, options: true | DevicesOptions = true, parts: Partial<DevicesParts> = {}): Promise<DeviceRig> {
  const { registry, store, clock } = await rig(t)
  const { documents } = store
  const logged: string[] = []
  const log = (_error: unknown, message: string) => { logged.push(message) }
  const devices = new Devices({ documents, keys: [randomBytes(32)], registry, options: resolveDevices(options), now: clock.now, log, ...parts })
  return { devices, registry, documents, clock, logged }
}

/** Only for what asks nothing of a store. */
function recogniser (options: true | DevicesOptions = true, keys = [randomBytes(32)]): Devices {
  const registry: DevicesParts['registry'] = { list: async () => ({ sessions: [], cursor: null }), revokeById: async () => false, for: () => registry }
  return new Devices({ documents: new MemoryDocuments(Date.now), keys, registry, options: resolveDevices(options), now: Date.now, log: () => {} })
}

/** Sees a new device a moment later than what came before. */
async function seeNew ({ devices, clock }: DeviceRig, signIn: SignIn = {}, subject = alice): Promise<string> {
  clock.advance(1000)
  const { device: { id } } = await devices.see(subject, newDeviceId(), signIn)
  return id
}

async function idsOf (devices: Devices, subject = alice): Promise<string[]> {
  return (await devices.list(subject)).map(({ id }) => id)
}

t.test('a request without a token is from a new device, whose token is recognised in the header and in the cookie', async t => {
  const devices = recogniser()
  const { id, token, isNew, via } = devices.recognise({ headers: {} })
  t.match({ id, token, isNew, via }, { id: /^[\w-]{22}$/, token: /^dev_[\w-]{43}$/, isNew: true, via: null })
  t.not(devices.recognise({ headers: {} }).id, id)
  t.same(devices.recognise({ headers: { 'device-token': token } }), { id, token, isNew: false, via: 'header' })
  t.same(devices.recognise({ headers: { cookie: `a=b; __Host-device=${token}; c=d` } }), { id, token, isNew: false, via: 'cookie' })
  const other = devices.recognise({ headers: {} })
  t.equal(devices.recognise({ headers: { 'device-token': other.token, cookie: `__Host-device=${token}` } }).id, other.id, 'the header comes first')
})

t.test('a header that we did not sign is refused, such a cookie is none', async t => {
  const devices = recogniser()
  const { token, id } = devices.recognise({ headers: {} })
  for (const bad of ['', 'x', `${token}A`, token.slice(0, -1), token.toLowerCase(), `${token}, ${token}`, recogniser().recognise({ headers: {} }).token, 'x'.repeat(100_000), 'a\u0000b', '__proto__', id]) {
    const error = t.throws(() => devices.recognise({ headers: { 'device-token': bad, cookie: `__Host-device=${token}` } }), invalid)
    t.notMatch(error, { message: token })
    t.match(devices.recognise({ headers: { cookie: `__Host-device=${bad}` } }), { isNew: true, via: null })
  }
  t.match(devices.recognise({ headers: { cookie: `device=${token}; x__Host-device=${token}; __proto__=${token}` } }), { isNew: true, via: null }, 'other cookies')
})

t.test('two device tokens in one request are refused', async t => {
  const devices = recogniser()
  const app = Fastify()
  t.teardown(async () => await app.close())
  app.get('/', async request => devices.recognise(request))
  const { port } = new URL(await app.listen({ port: 0 }))
  const { token } = devices.recognise({ headers: {} })
  const answer = async (...tokens: string[]) => {
    const response = await fetch(`http://127.0.0.1:${port}/`, { headers: tokens.map(token => ['Device-Token', token] as [string, string]) })
    return [response.status, await response.json() as { code?: string, via?: string }]
  }
  t.match(await answer(token), [200, { via: 'header' }])
  t.match(await answer(token, token), [400, { code: 'FST_SESSION_DEVICE' }])
})

t.test('a token of an older key is recognised, and signed anew', async t => {
  const [old, current] = [randomBytes(32), randomBytes(32)]
  const { id, token } = recogniser(true, [old]).recognise({ headers: {} })
  const renewed = recogniser(true, [current, old]).recognise({ headers: { 'device-token': token } })
  t.match(renewed, { id, isNew: false })
  t.equal(new DeviceTokens([current]).open(renewed.token), id)
  t.throws(() => recogniser(true, [current]).recognise({ headers: { 'device-token': token } }), invalid)
})

t.test('the cookie is one that scripts and other sites do not get, and lives as long as the device is kept, at most 400 days', async t => {
  const cookieOf = (options: true | DevicesOptions) => {
    const devices = recogniser(options)
    return devices.cookieOf(devices.recognise({ headers: {} }).token)
  }
  const sent = parseSetCookie(cookieOf(true) ?? '')
  t.match(sent, { name: '__Host-device', value: /^dev_/, httpOnly: true, secure: true, sameSite: 'lax', path: '/', maxAge: 365 * 86_400 })
  t.notOk('domain' in sent)
  t.match(parseSetCookie(cookieOf({ cookie: { secure: false, sameSite: 'strict' }, forgetAfter: 2 * DAY + 1 }) ?? ''), { name: 'device', sameSite: 'strict', maxAge: 2 * 86_400 })
  t.equal(parseSetCookie(cookieOf({ forgetAfter: '3650d' }) ?? '').maxAge, 400 * 86_400)
  t.equal(cookieOf({ cookie: false }), null)
})

t.test('what the options leave out is not looked at', async t => {
  const [headerOnly, cookieOnly, renamed] = [recogniser({ cookie: false }), recogniser({ header: false }), recogniser({ header: 'X-Device', cookie: { name: 'd' } })]
  const shown = (devices: Devices, names: (token: string) => Record<string, string>) => devices.recognise({ headers: names(devices.recognise({ headers: {} }).token) }).via
  t.equal(shown(headerOnly, token => ({ cookie: `__Host-device=${token}` })), null)
  t.equal(shown(cookieOnly, token => ({ 'device-token': token })), null)
  t.equal(shown(cookieOnly, token => ({ 'device-token': 'x', cookie: `__Host-device=${token}` })), 'cookie')
  t.equal(shown(renamed, token => ({ 'x-device': token })), 'header')
  t.equal(shown(renamed, token => ({ cookie: `d=${token}` })), 'cookie')
})

t.test('the first device is new, but nobody needs to be warned; a further one and another network are told once', async t => {
  const { devices, clock } = await open(t)
  const [phone, laptop] = [newDeviceId(), newDeviceId()]
  const first = await devices.see(alice, phone, { ipAddress: '203.0.113.7', userAgent: firefox })
  t.same(first, {
    device: { id: phone, name: 'Firefox on Windows', custom: false, trusted: false, firstSeenAt: clock.now(), lastSeenAt: clock.now(), ipAddress: '203.0.113.7' },
    first: true,
    isNew: true,
    newNetwork: false,
    forgotten: []
  })
  clock.advance(5000)
  t.match(await devices.see(alice, laptop, { ipAddress: '::ffff:203.0.113.99', userAgent: chrome }), { first: false, isNew: true, newNetwork: false })
  t.match(await devices.see(alice, laptop, { ipAddress: '198.51.100.1' }), { isNew: false, newNetwork: true, device: { name: 'Chrome on Linux', ipAddress: '198.51.100.1' } })
  t.match(await devices.see(alice, phone, { ipAddress: '198.51.100.2' }), { isNew: false, newNetwork: false })
  t.match(await devices.see(alice, phone, { ipAddress: '2001:db8::1' }), { isNew: false, newNetwork: true })
  t.match(await devices.see(alice, phone, { ipAddress: 'unknown' }), { newNetwork: false, device: { ipAddress: '2001:db8::1' } }, 'what is no address changes none')
  t.match(await devices.see(alice, phone, { ipAddress: null, userAgent: null, name: null }), { newNetwork: false })
  t.match(await devices.see(alice, phone, { ipAddress: `fe80::1%${'x'.repeat(1000)}` }), { newNetwork: false, device: { ipAddress: '2001:db8::1' } })
  t.match(await devices.see({ tenant: '', sub: 'bob' }, phone, { ipAddress: '203.0.113.7' }), { first: true, isNew: true }, 'a device that two use is one of each')
})

t.test('devices are listed with that seen last first, each with its times', async t => {
  const opened = await open(t)
  const { devices, clock } = opened
  const [a, b] = [await seeNew(opened), await seeNew(opened)]
  const firstSeenAt = clock.now() - 1000
  t.same(await idsOf(devices), [b, a])
  clock.advance(1000)
  await devices.see(alice, a)
  t.same(await idsOf(devices), [a, b])
  t.match(await devices.get(alice, a), { firstSeenAt, lastSeenAt: clock.now() })
  const past = clock.now() - 60_000
  t.match((await devices.see(alice, a, { at: past })).device, { firstSeenAt: past, lastSeenAt: clock.now() })
  t.same(JSON.parse(JSON.stringify(await devices.list(alice))), await devices.list(alice))
})

t.test('an owner names and trusts devices', async t => {
  const opened = await open(t)
  const { devices } = opened
  const id = await seeNew(opened, { userAgent: firefox })
  t.match(await devices.rename(alice, id, '  Work laptop '), { id, name: 'Work laptop', custom: true, trusted: false })
  t.match(await devices.trust(alice, id), { id, name: 'Work laptop', trusted: true })
  t.match((await devices.see(alice, id, { userAgent: chrome, name: 'Other' })).device, { name: 'Work laptop', trusted: true })
  t.match(await devices.find(alice, id), { name: 'Work laptop', custom: true, trusted: true })
  t.match(await devices.trust(alice, id, false), { trusted: false })
  t.match((await devices.see(alice, newDeviceId(), { userAgent: firefox, name: 'Ada\'s phone' })).device, { name: 'Ada\'s phone', custom: true })
})

t.test('a name and trust are changed together, in one write, or not at all', async t => {
  const { documents } = await open(t)
  let writes = 0
  const counting: Documents = { read: async (...of) => await documents.read(...of), write: async (...of) => { writes++; return await documents.write(...of) } }
  const opened = await open(t, true, { documents: counting })
  const { devices } = opened
  const id = await seeNew(opened, { userAgent: firefox })
  writes = 0
  t.match(await devices.change(alice, id, { name: ' Desk ', trusted: true }), { id, name: 'Desk', custom: true, trusted: true })
  t.equal(writes, 1)
  t.match(await devices.change(alice, id, { trusted: false, name: undefined }), { name: 'Desk', custom: true, trusted: false })
  t.match(await devices.change(alice, id, {}), { name: 'Desk', trusted: false })
  await t.rejects(devices.change(alice, id, { name: 'a\nb', trusted: true }), { code: 'FST_TOKEN_VALIDATION' })
  await t.rejects(devices.change(alice, newDeviceId(), { name: 'Desk', trusted: true }), notFound)
  t.match(await devices.get(alice, id), { name: 'Desk', trusted: false })
})

t.test('what is no text is no address and no user agent', async t => {
  const { devices, logged } = await open(t)
  const id = newDeviceId()
  await devices.see(alice, id, { ipAddress: ['192.0.2.1'], userAgent: 7 } as unknown as SignIn)
  t.match(await devices.list(alice), [{ id, name: 'Unknown device', ipAddress: null }])
  t.same(logged, [])
})

t.test('a name that is not what it may be is refused, and changes nothing', async t => {
  const opened = await open(t)
  const { devices } = opened
  const id = await seeNew(opened, { userAgent: firefox })
  for (const bad of ['', ' ', 'x'.repeat(101), 'a\nb', 'a\u0000b', '\uD800', 'a\u202Eb']) {
    const refused = { code: 'FST_TOKEN_VALIDATION', statusCode: 400, message: 'name: may be 1 to 100 characters, without control characters' }
    await t.rejects(devices.rename(alice, id, bad), refused)
    await t.rejects(devices.see(alice, newDeviceId(), { name: bad }), refused)
  }
  t.match(await devices.list(alice), [{ id, name: 'Firefox on Windows', custom: false }])
})

t.test('an id that is malformed, unknown or another\'s is no device, all alike', async t => {
  const opened = await open(t)
  const { devices, registry } = opened
  const own = await seeNew(opened)
  const [bobs, acmes] = [await seeNew(opened, {}, { tenant: '', sub: 'bob' }), await seeNew(opened, {}, { tenant: 'acme', sub: 'alice' })]
  for (const [tenant, sub, deviceId] of [['', 'bob', bobs], ['acme', 'alice', acmes]] as const) await registry.issue({ tenant, sub, meta: { deviceId } })

  for (const id of [bobs, acmes, newDeviceId(), '', `${own}A`, own.slice(1), `${own}\n`, `${own.slice(0, -1)}B`, 'x'.repeat(100_000), 'a\u0000b', '\uD800', '__proto__', 'constructor', '0']) {
    t.equal(await devices.find(alice, id), null)
    await t.rejects(devices.get(alice, id), notFound)
    await t.rejects(devices.rename(alice, id, 'Mine'), notFound)
    await t.rejects(devices.trust(alice, id), notFound)
    await t.rejects(devices.signOut(alice, id), notFound)
    await t.rejects(devices.forget(alice, id), notFound)
  }
  t.equal(await registry.count({ allTenants: true }), 2)
  t.same(await idsOf(devices), [own])
})

t.test('subjects whose parts read alike together are not one', async t => {
  const { devices } = await open(t)
  const subjects = [['', '1:ab'], ['a', 'b'], ['ab', 'c'], ['a', 'bc'], ['', 'a'], ['', '__proto__'], ['__proto__', 'constructor']].map(([tenant = '', sub = '']) => ({ tenant, sub }))
  const seen: Array<[typeof alice, string]> = []
  for (const subject of subjects) seen.push([subject, (await devices.see(subject, newDeviceId())).device.id])
  for (const [subject, id] of seen) t.same(await idsOf(devices, subject), [id])
})

t.test('without a subject there is nothing to ask for', async t => {
  const { devices } = await open(t)
  const unset = {} as typeof alice
  for (const subject of [unset, { tenant: '', sub: '' }, { tenant: '', sub: '\uD800' }, { tenant: 'x'.repeat(257), sub: 'alice' }]) {
    const refused = { code: 'FST_TOKEN_VALIDATION', statusCode: 400 }
    await t.rejects(devices.list(subject), refused)
    await t.rejects(devices.see(subject, newDeviceId()), refused)
    await t.rejects(devices.trust(subject, newDeviceId()), refused)
    await t.rejects(devices.forget(subject, newDeviceId()), refused)
  }
  for (const id of ['my phone', '', '__proto__']) await t.rejects(devices.see(alice, id), { code: 'FST_TOKEN_VALIDATION', message: 'id: is not one that recognise gives' })
})

t.test('signing a device out ends its sessions, of whatever number, and no others', async t => {
  const opened = await open(t)
  const { devices, registry } = opened
  const [phone, laptop] = [await seeNew(opened), await seeNew(opened)]
  const tokens: string[] = []
  for (let i = 0; i < 250; i++) tokens.push((await registry.issue({ sub: 'alice', use: i % 2 === 0 ? 'session' : 'refresh', meta: { deviceId: phone } })).token)
  const { token: other } = await registry.issue({ sub: 'alice', meta: { deviceId: laptop } })
  const { token: bobs } = await registry.issue({ sub: 'bob', meta: { deviceId: phone } })
  const told = endings(registry)

  t.equal(await devices.signOut(alice, phone, { by: 'alice' }), 250)
  t.equal(told.length, 250)
  t.match(told[0], { reason: 'revoked', by: 'alice' })
  await t.rejects(registry.verify(tokens[0] ?? ''), { code: 'FST_TOKEN_REVOKED' })
  t.ok(await registry.verify(other))
  t.ok(await registry.verify(bobs))
  t.equal(await devices.signOut(alice, phone), 0, 'again there is nothing to end')
  t.same(await idsOf(devices), [laptop, phone], 'it stays in the list')
})

t.test('a device that is forgotten is signed out, and new when it comes back', async t => {
  const opened = await open(t)
  const { devices, registry } = opened
  const id = await seeNew(opened, { ipAddress: '203.0.113.7' })
  await devices.trust(alice, id)
  const { session } = await registry.issue({ sub: 'alice', meta: { deviceId: id } })
  t.equal(await devices.forget(alice, id, { by: 'support' }), 1)
  t.match(await registry.explain(session.id), { reason: 'revoked', by: 'support' })
  t.same(await devices.list(alice), [])
  await t.rejects(devices.forget(alice, id), notFound)
  t.match(await devices.see(alice, id, { ipAddress: '198.51.100.1' }), { isNew: true, first: false, newNetwork: true, device: { trusted: false } }, 'who forgot all devices is warned still')
})

t.test('a device that only its sessions tell of is signed out as well', async t => {
  const { devices, registry } = await open(t)
  const [a, b] = [newDeviceId(), newDeviceId()]
  for (const deviceId of [a, b]) await registry.issue({ sub: 'alice', meta: { deviceId } })
  t.equal(await devices.signOut(alice, a), 1)
  t.equal(await devices.forget(alice, b), 1)
  await t.rejects(devices.forget(alice, b), notFound)
})

t.test('a device stays in the list where its sessions could not be ended', async t => {
  const opened = await open(t)
  const { devices, registry } = opened
  const id = await seeNew(opened)
  await registry.issue({ sub: 'alice', meta: { deviceId: id } })
  let down = true
  registry.addHook('preRevoke', () => { if (down) throw new StoreUnavailable('test') })
  await t.rejects(devices.forget(alice, id), { code: 'FST_STORE_UNAVAILABLE' })
  t.same(await idsOf(devices), [id])
  down = false
  t.equal(await devices.forget(alice, id), 1)
})

t.test('a new device makes the oldest untrusted one be forgotten, and leaves its sessions alone', async t => {
  const opened = await open(t, { max: 3 })
  const { devices, registry } = opened
  const [a, b, c] = [await seeNew(opened), await seeNew(opened), await seeNew(opened)]
  await devices.trust(alice, a)
  const { token } = await registry.issue({ sub: 'alice', meta: { deviceId: b } })
  const { device: { id: d }, forgotten } = await devices.see(alice, newDeviceId())
  t.same(forgotten.map(({ id }) => id), [b])
  t.same(await idsOf(devices), [d, c, a])
  t.ok(await registry.verify(token))

  t.equal(await devices.signOut(alice, b), 1, 'it can still be signed out')
  await t.rejects(devices.signOut(alice, b), notFound)

  for (const id of [c, d]) await devices.trust(alice, id)
  t.same((await devices.see(alice, newDeviceId())).forgotten.map(({ id }) => id), [a], 'where all are trusted, the oldest')
})

t.test('a device that nobody signs in with is forgotten in time, trusted or not', async t => {
  const opened = await open(t, { forgetAfter: '30d' })
  const { devices, clock } = opened
  const [kept, trusted] = [await seeNew(opened), await seeNew(opened)]
  await devices.trust(alice, trusted)
  clock.advance(29 * DAY)
  await devices.see(alice, kept)
  t.same(await idsOf(devices), [kept, trusted])
  clock.advance(DAY)
  t.same(await idsOf(devices), [kept])
  await t.rejects(devices.rename(alice, trusted, 'Old'), notFound)
  t.match(await devices.see(alice, trusted), { isNew: true, first: false, device: { trusted: false } })
  clock.advance(30 * DAY)
  t.same(await idsOf(devices), [])
  t.match(await devices.see(alice, kept), { isNew: true, first: true })
})

t.test('damaged devices count as none, are logged, and are replaced', async t => {
  const { devices, documents, clock, logged } = await open(t)
  for (const text of ['', '{', '{"v":9}']) {
    const before = await documents.read('devices', '0:alice')
    t.ok(await documents.write('devices', '0:alice', before, text, clock.now() + DAY))
    t.same(await devices.list(alice), [])
    t.equal(logged.length, 1)
    t.match(await devices.see(alice, newDeviceId()), { isNew: true, first: false })
    t.equal((await devices.list(alice)).length, 1)
    logged.length = 0
  }
})

t.test('a store that does not answer is its own error, and nobody waits for it behind', async t => {
  const { documents } = await open(t)
  let down = true
  const broken: Documents = {
    read: async (...of) => { if (down) throw new StoreUnavailable('test'); return await documents.read(...of) },
    write: async (...of) => await documents.write(...of)
  }
  const { devices } = await open(t, true, { documents: broken })
  const unavailable = { code: 'FST_STORE_UNAVAILABLE' }
  const [failed, after] = [devices.see(alice, newDeviceId()), devices.see(alice, newDeviceId())]
  await t.rejects(failed, unavailable)
  await t.rejects(after, unavailable)
  await t.rejects(devices.list(alice), unavailable)
  await t.rejects(devices.forget(alice, newDeviceId()), unavailable)
  down = false
  t.match(await devices.see(alice, newDeviceId()), { isNew: true, first: true })
})

t.test('who is always overtaken gives up', async t => {
  let writes = 0
  const documents: Documents = { read: async () => null, write: async () => { writes++; return false } }
  const { devices } = await open(t, true, { documents })
  await t.rejects(devices.see(alice, newDeviceId()), { code: 'FST_SESSION_DEVICE_CONFLICT', statusCode: 409, critical: false })
  t.equal(writes, 16)
})

async function memory (t: Test): Promise<{ registry: TokenRegistry, documents: Documents }> {
  const { registry, store: { documents } } = await rig(t)
  return { registry, documents }
}

async function redis (t: Test): Promise<{ registry: TokenRegistry, documents: Documents }> {
  const { url } = await sharedRedis()
  const store = await createRedisStore({ url, keyPrefix: newPrefix() })
  t.teardown(async () => await store.close())
  const { tokenRegistry: registry } = await build(t, { store })
  return { registry, documents: store.documents }
}

for (const [name, openStore] of [['memory', memory], ['Redis', redis]] as const) {
  t.test(`on ${name}, of many sign-ins at once by two instances none is lost, and one is told that a device is new`, async t => {
    const { registry, documents } = await openStore(t)
    const parts = { documents, registry, keys: [randomBytes(32)], options: resolveDevices({ max: 60 }), now: () => registry.now(), log: () => {} }
    const instances = [new Devices(parts), new Devices(parts)] as const
    const shared = newDeviceId()
    const seen = await Promise.all(Array.from({ length: 25 }, async () => await Promise.all(instances.map(async devices => [
      await devices.see(alice, newDeviceId()),
      await devices.see(alice, shared)
    ]))))
    const all = seen.flat(2)
    t.equal(all.filter(({ isNew }) => isNew).length, 51)
    t.equal(all.filter(({ first }) => first).length, 1)
    const listed = await instances[0].list(alice)
    t.equal(listed.length, 51)
    t.same(new Set(listed.map(({ id }) => id)), new Set(all.map(({ device: { id } }) => id)))
    t.same(await instances[1].list(alice), listed)
  })

  t.test(`on ${name}, a full list of the longest names is kept, and a device is signed out by another instance`, async t => {
    const { registry, documents } = await openStore(t)
    const parts = { documents, registry, keys: [randomBytes(32)], options: resolveDevices({ max: 100 }), now: () => registry.now(), log: () => {} }
    const [one, other] = [new Devices(parts), new Devices(parts)]
    for (let i = 0; i < 100; i++) await one.see(alice, newDeviceId(), { name: '😀'.repeat(100), ipAddress: `2001:db8:${i}:ffff:ffff:ffff:255.255.255.255` })
    const listed = await other.list(alice)
    t.equal(listed.length, 100)
    const [{ id } = { id: '' }] = listed
    await registry.issue({ sub: 'alice', meta: { deviceId: id } })
    t.equal(await other.forget(alice, id), 1)
    t.equal(await one.find(alice, id), null)
  })
}
