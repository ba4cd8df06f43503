import { createHmac, randomBytes, randomInt } from 'node:crypto'
import t from 'tap'
import { listFrom, textOf } from '../../plugins/session-limits/devices/document.ts'
import { change, see, since, without, type Device, type DeviceList, type Sighting } from '../../plugins/session-limits/devices/list.ts'
import { checkedName, nameFrom } from '../../plugins/session-limits/devices/name.ts'
import { networkOf } from '../../plugins/session-limits/devices/network.ts'
import { resolveDevices, type DevicesOptions } from '../../plugins/session-limits/devices/options.ts'
import { DeviceTokens, isDeviceId, newDeviceId } from '../../plugins/session-limits/devices/token.ts'
import { DAY } from '../support/rig.ts'

const firefox = 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:139.0) Gecko/20100101 Firefox/139.0'

function sighting (overrides: Partial<Sighting> = {}): Sighting {
  return { id: newDeviceId(), at: 1000, name: null, agentName: null, ipAddress: null, ...overrides }
}

/** A list of devices that were seen one after the other. */
function listOf (...sightings: Array<Partial<Sighting>>): DeviceList {
  let list: DeviceList | null = null
  for (const one of sightings) list = see(list, sighting(one), 100).list
  return list ?? { devices: [], networks: [] }
}

t.test('a token is prefix, id and MAC, and opens to its id', async t => {
  const key = randomBytes(32)
  const tokens = new DeviceTokens([key])
  const id = newDeviceId()
  const token = tokens.sign(id)
  const bytes = Buffer.from(id, 'base64url')
  const mac = createHmac('sha256', key).update('dev_').update(bytes).digest().subarray(0, 16)
  t.equal(token, `dev_${Buffer.concat([bytes, mac]).toString('base64url')}`)
  t.equal(token.length, 47)
  t.equal(tokens.open(token), id)
})

t.test('a token that we did not sign opens nothing', async t => {
  const tokens = new DeviceTokens([randomBytes(32)])
  const token = tokens.sign(newDeviceId())
  const last = token.at(-1) ?? ''
  // The last character holds two bits that no byte needs: three others decode to the same bytes.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const sloppy = token.slice(0, -1) + alphabet[alphabet.indexOf(last) + 1]
  t.same(Buffer.from(sloppy.slice(4), 'base64url'), Buffer.from(token.slice(4), 'base64url'))

  const forged = [
    sloppy, '', 'dev_', token.slice(1), token.slice(4), token.slice(0, -1), `${token}A`, `${token}=`, `${token}\n`, `${token}\0`, ` ${token}`, `DEV_${token.slice(4)}`,
    `${token}, ${token}`, 'x'.repeat(1_000_000), '__proto__', 'constructor', `dev_${'A'.repeat(43)}`, token.replace('dev_', 'trs_'),
    new DeviceTokens([randomBytes(32)]).sign(newDeviceId())
  ]
  for (const [place] of [...token.slice(4)].entries()) {
    const changed = [...token]
    changed[place + 4] = changed[place + 4] === 'A' ? 'E' : 'A'
    forged.push(changed.join(''))
  }
  for (const text of forged) t.equal(tokens.open(text), null, text.slice(0, 60))
})

t.test('every key opens, the first signs', async t => {
  const [old, current] = [randomBytes(32), randomBytes(32)]
  const id = newDeviceId()
  const before = new DeviceTokens([old]).sign(id)
  const rotated = new DeviceTokens([current, old])
  t.equal(rotated.open(before), id)
  t.equal(new DeviceTokens([current]).open(before), null)
  t.equal(rotated.sign(id), new DeviceTokens([current]).sign(id))
  t.throws(() => new DeviceTokens([]), RangeError)
  t.throws(() => new DeviceTokens([current, randomBytes(31)]), RangeError)
})

t.test('an id has one form', async t => {
  for (let i = 0; i < 100; i++) t.ok(isDeviceId(newDeviceId()))
  const id = newDeviceId()
  for (const other of ['', id.slice(1), `${id}A`, `${id.slice(0, -1)}B`, `${id}\n`, '__proto__', undefined, null, 5, [id]]) t.notOk(isDeviceId(other), String(other))
})

t.test('a device is named from its user agent', async t => {
  for (const [agent, name] of [
    [firefox, 'Firefox on Windows'],
    ['Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36', 'Chrome on macOS'],
    ['Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0', 'Microsoft Edge on Windows'],
    ['Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1', 'Safari on iPhone'],
    ['Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36', 'Samsung Internet for Android'],
    ['Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)', 'Googlebot'],
    ['Mozilla/5.0 (Windows NT 10.0; Win64; x64)', 'Windows'],
    ['MyApp/1.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X)', 'MyApp on iPhone'],
    ['curl/8.5.0', 'curl'],
    ['node', 'node'],
    ['__proto__', '__proto__'],
    [`${firefox}${'x'.repeat(1_000_000)}`, 'Firefox on Windows'],
    ['', null],
    ['\0', null],
    ['<script>alert(1)</script>/1.0 (x)', null],
    ['Mozilla/5.0 <b>x</b>/1 (x)', null],
    ['x'.repeat(1_000_000), null]
  ] as const) t.equal(nameFrom(agent), name, agent.slice(0, 80))
})

t.test('an owner\'s name is text that is seen', async t => {
  for (const [given, name] of [
    ['Ada\'s laptop', 'Ada\'s laptop'], ['  Büro \t', 'Büro'], ['📱', '📱'], ['👩‍💻 of Ada', '👩‍💻 of Ada'], ['x'.repeat(100), 'x'.repeat(100)], ['😀'.repeat(100), '😀'.repeat(100)], ['__proto__', '__proto__'],
    ['<b>"', '<b>"'], ['کامپیوتر', 'کامپیوتر']
  ] as const) t.equal(checkedName(given), name)

  for (const bad of [
    '', ' ', '\u200B', 'x'.repeat(101), '😀'.repeat(101), 'x'.repeat(1_000_000), 'a\nb', 'a\0b', 'a\u001Bb', 'a\u007Fb', 'a\u0085b', 'a\u2028b', 'a\u202Eb', 'a\u2066b', '\uD800', 'a\uDC00b',
    undefined, null, 5, {}, ['x']
  ]) t.throws(() => checkedName(bad), { code: 'FST_TOKEN_VALIDATION', statusCode: 400, message: 'name: may be 1 to 100 characters, without control characters' })
})

t.test('a network is /24 of IPv4 and /48 of IPv6, in one form', async t => {
  for (const [address, network] of [
    ['203.0.113.7', '203.0.113'], ['203.0.113.255', '203.0.113'], ['::ffff:203.0.113.9', '203.0.113'], ['::FFFF:cb00:7109', '203.0.113'],
    ['0:0:0:0:0:ffff:cb00:7109', '203.0.113'], ['2001:db8:1:2::1', '2001:db8:1'], ['2001:0DB8:0001:ffff:1:2:3:4', '2001:db8:1'], ['2001:db8::1', '2001:db8:0'],
    ['::1', '0:0:0'], ['::', '0:0:0'], ['1::', '1:0:0'], ['::ffff:1', '0:0:0'], ['fe80::1%eth0', 'fe80:0:0'], ['64:ff9b::192.0.2.1', '64:ff9b:0'],
    ['', null], ['1', null], ['localhost', null], ['203.0.113.7:80', null], ['__proto__', null]
  ] as const) t.equal(networkOf(address), network, address)
})

t.test('a user agent gives a name until the owner does', async t => {
  const id = newDeviceId()
  const named = (list: DeviceList) => list.devices.map(({ name, custom }) => [name, custom])
  let list = listOf({ id })
  t.same(named(list), [['Unknown device', false]])
  list = see(list, sighting({ id, agentName: 'Firefox on Windows' }), 5).list
  t.same(named(list), [['Firefox on Windows', false]])
  list = see(list, sighting({ id }), 5).list
  t.same(named(list), [['Firefox on Windows', false]], 'what says nothing changes nothing')
  list = see(list, sighting({ id, agentName: 'Chrome on Windows', name: 'Desk' }), 5).list
  t.same(named(list), [['Desk', true]])
  list = see(list, sighting({ id, agentName: 'Chrome on Windows', name: 'Other' }), 5).list
  t.same(named(list), [['Desk', true]], 'what an owner said stays')
})

t.test('sign-ins that are noted late move no time backwards', async t => {
  const id = newDeviceId()
  const { devices } = listOf({ id, at: 2000, ipAddress: '192.0.2.1' }, { at: 1500 }, { id, at: 1000 })
  t.match(devices[0], { id, firstSeenAt: 1000, lastSeenAt: 2000, ipAddress: '192.0.2.1' })
  t.same(devices.map(({ lastSeenAt }) => lastSeenAt), [2000, 1500])
})

t.test('at most 32 networks are compared with, those that were seen last', async t => {
  const id = newDeviceId()
  const from = (i: number) => sighting({ id, ipAddress: `10.0.${i}.1` })
  let list = listOf({ id, ipAddress: '10.0.0.1' })
  for (let i = 1; i < 32; i++) list = see(list, from(i), 5).list
  list = see(list, from(0), 5).list
  list = see(list, from(32), 5).list
  t.equal(list.networks.length, 32)
  t.equal(see(list, from(0), 5).result.newNetwork, false)
  t.equal(see(list, from(2), 5).result.newNetwork, false)
  t.equal(see(list, from(1), 5).result.newNetwork, true)
})

t.test('whatever is seen, the bound holds, and who goes is the oldest untrusted, else the oldest', async t => {
  for (let round = 0; round < 200; round++) {
    const max = randomInt(1, 6)
    let list: DeviceList | null = null
    let at = 0
    for (let step = 0; step < 40; step++) {
      const before: readonly Device[] = (list as DeviceList | null)?.devices ?? []
      const some = before[randomInt(Math.max(1, before.length))]
      if (some !== undefined && randomInt(3) === 0 && list !== null) {
        list = change(list, some.id, { trusted: randomInt(2) === 0 }).list
        continue
      }
      const id = some !== undefined && randomInt(3) === 0 ? some.id : newDeviceId()
      const { list: after, result } = see(list, sighting({ id, at: ++at }), max)
      const expected = before
        .filter(device => device.id !== id)
        .sort((a, b) => Number(a.trusted) - Number(b.trusted) || a.lastSeenAt - b.lastSeenAt)
        .slice(0, result.isNew ? Math.max(0, before.length + 1 - max) : 0)
      const good = after.devices.length === Math.min(max, before.length + Number(result.isNew)) &&
        after.devices[0]?.id === id &&
        JSON.stringify(result.forgotten) === JSON.stringify(expected) &&
        after.devices.every(device => !expected.some(gone => gone.id === device.id)) &&
        JSON.stringify(listFrom(textOf(after))) === JSON.stringify(after)
      if (!good) return t.fail('the bound or the order is broken', { before, after, result, max })
      list = after
    }
  }
  t.pass()
})

t.test('a bound that was lowered makes room for itself', async t => {
  const list = listOf({ at: 1 }, { at: 2 }, { at: 3 }, { at: 4 })
  const { list: after, result } = see(list, sighting({ at: 5 }), 2)
  t.same(result.forgotten.map(({ lastSeenAt }) => lastSeenAt), [1, 2, 3])
  t.same(after.devices.map(({ lastSeenAt }) => lastSeenAt), [5, 4])
})

t.test('what is changed or taken away is one device', async t => {
  const [a, b] = [newDeviceId(), newDeviceId()]
  const list = listOf({ id: a, ipAddress: '192.0.2.1' }, { id: b, at: 2000 })
  const { list: changed, result } = change(list, a, { trusted: true })
  t.equal(result.trusted, true)
  t.same(changed.devices.map(({ id, trusted }) => [id, trusted]), [[b, false], [a, true]])
  t.match(change(changed, a, { name: 'Desk' }).result, { name: 'Desk', custom: true, trusted: true })
  t.throws(() => change(list, newDeviceId(), { trusted: true }), { code: 'FST_SESSION_DEVICE_NOT_FOUND', statusCode: 404 })
  t.throws(() => change(null, a, { trusted: true }), { code: 'FST_SESSION_DEVICE_NOT_FOUND' })
  t.same(without(list, a).devices.map(({ id }) => id), [b])
  t.same(without(list, a).networks, ['192.0.2'])
  t.same(without(list, newDeviceId()), list)
  t.same(since(list, 1000).devices.map(({ id }) => id), [b])
})

t.test('a text that is no document is none', async t => {
  const good = textOf(listOf({ name: 'Desk', ipAddress: '192.0.2.1' }, {}))
  t.ok(listFrom(good))
  for (const bad of [
    '', '{', 'null', '[]', '5', '{}', '"x"', good.slice(0, -1), good.replace('"v":1', '"v":2'), good.replace('"Desk"', '5'), good.replace('1000', '-1'), good.replace('1000', '"1"'),
    '{"v":1,"devices":[["x","y",0,1,1,null]],"networks":[]}', '{"v":1,"devices":{"__proto__":[]},"networks":[]}', '{"v":1,"devices":[]}'
  ]) t.equal(listFrom(bad), null, bad.slice(0, 40))
})

t.test('options have defaults', async t => {
  const all = { max: 20, forgetAfter: 365 * DAY, cookie: { name: '__Host-device', secure: true, sameSite: 'lax' }, header: 'device-token' }
  t.same(resolveDevices(true), all)
  t.same(resolveDevices({}), all)
  t.same(resolveDevices({ cookie: { secure: false } }).cookie, { name: 'device', secure: false, sameSite: 'lax' })
  t.same(resolveDevices({ max: 1, forgetAfter: '1d', cookie: false, header: 'X-Device' }), { max: 1, forgetAfter: DAY, cookie: null, header: 'x-device' })
  t.same(resolveDevices({ max: 100, forgetAfter: '3650d', cookie: { name: 'd', sameSite: 'strict' }, header: false }),
    { max: 100, forgetAfter: 3650 * DAY, cookie: { name: 'd', secure: true, sameSite: 'strict' }, header: null })
})

t.test('an option that is not what it may be is named, with what it was and what it may be', async t => {
  for (const [given, message] of [
    [5, 'devices is 5: it may be true, or { max, forgetAfter, cookie, header }'],
    [null, 'devices is null: it may be true, or { max, forgetAfter, cookie, header }'],
    [[], 'devices is [Array]: it may be true, or { max, forgetAfter, cookie, header }'],
    [{ max: 0 }, 'devices.max is 0: it may be a whole number from 1 to 100'],
    [{ max: 101 }, 'devices.max is 101: it may be a whole number from 1 to 100'],
    [{ max: '5' }, 'devices.max is \'5\': it may be a whole number from 1 to 100'],
    [{ most: 5 }, 'devices.most is not an option: there are max, forgetAfter, cookie, header'],
    [{ forgetAfter: 'soon' }, 'devices.forgetAfter is \'soon\': it may be a number of milliseconds, or text such as "15m"'],
    [{ forgetAfter: '1h' }, 'devices.forgetAfter is 3600000 ms: it may be 86400000 to 315360000000'],
    [{ forgetAfter: '3651d' }, 'devices.forgetAfter is 315446400000 ms: it may be 86400000 to 315360000000'],
    [{ cookie: 'x' }, 'devices.cookie is \'x\': it may be true, false, or { name, secure, sameSite }'],
    [{ cookie: { name: 'a b' } }, 'devices.cookie.name is \'a b\': it may be 1 to 128 letters, digits or any of !#$%&\'*+-.^_`|~'],
    [{ cookie: { name: '__Host-d', secure: false } }, 'devices.cookie.name is __Host-d, which browsers take only with devices.cookie.secure: true'],
    [{ cookie: { sameSite: 'none', secure: false } }, 'devices.cookie.sameSite is "none", which browsers take only with devices.cookie.secure: true'],
    [{ header: true }, 'devices.header is true: it may be the name of a header, of at most 64 letters, digits or -, or false'],
    [{ header: 'a b' }, 'devices.header is \'a b\': it may be the name of a header, of at most 64 letters, digits or -, or false'],
    [{ header: 'Cookie' }, 'devices.header is cookie, which has a meaning of its own: choose another'],
    [{ cookie: false, header: false }, 'devices.cookie and devices.header are both false: no device would be recognised']
  ] as const) {
    t.throws(() => resolveDevices(given as unknown as DevicesOptions), { code: 'FST_SESSION_LIMITS_OPTIONS', statusCode: 500, message: `session-limits: ${message}` })
  }
})
