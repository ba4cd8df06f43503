import { once } from 'node:events'
import t from 'tap'
import type { Channel, Notification } from '../../plugins/session-limits/index.ts'
import sessionLimits, { isDeviceName, mailText } from '../../plugins/session-limits/index.ts'
import { memoryStore, type SessionMeta } from '../../plugins/token-registry/index.ts'
import { build } from '../support/build.ts'
import { Clock } from '../support/clock.ts'
import { decorated, without } from '../support/decorated.ts'
import { deferred } from '../support/deferred.ts'
import { limited, type Limited } from '../support/limited.ts'

const alice = { tenant: '', sub: 'alice' }

/** What a channel is told, and a way to wait for the next one. */
function recordingChannel (): { channel: Channel, told: Notification[], next: () => Promise<Notification> } {
  const told: Notification[] = []
  const events = new EventTarget()
  let read = 0
  return {
    told,
    channel: notification => {
      told.push(notification)
      events.dispatchEvent(new Event('told'))
    },
    next: async () => {
      while (told.length <= read) await once(events, 'told')
      return told[read++] as Notification // there are more than were read
    }
  }
}

async function signIn ({ app }: Limited, headers: Record<string, string> = {}, remoteAddress = '192.0.2.1') {
  const answer = await app.inject({ method: 'POST', url: '/login', headers, remoteAddress })
  const { 'device-token': token, 'set-cookie': cookie } = answer.headers
  return { answer, session: answer.json().session, token: token as string | undefined, cookie: cookie as string | undefined }
}

t.test('a session that a request starts is on the device that it shows; a new one is given by the answer', async t => {
  const server = await limited(t, { devices: true })
  const first = await signIn(server, { 'user-agent': 'curl/8' })
  t.match(first.token, /^dev_[\w-]{43}$/)
  t.match(first.cookie, new RegExp(`^__Host-device=${first.token};.*HttpOnly; Secure; SameSite=Lax$`))
  t.match(first.session.meta.deviceId, /^[\w-]{22}$/)

  const byHeader = await signIn(server, { 'device-token': first.token ?? '' })
  const byCookie = await signIn(server, { cookie: `__Host-device=${first.token}` })
  t.equal(byHeader.session.meta.deviceId, first.session.meta.deviceId)
  t.equal(byCookie.session.meta.deviceId, first.session.meta.deviceId)
  const other = await signIn(server, { cookie: '__Host-device=forged' })
  t.not(other.session.meta.deviceId, first.session.meta.deviceId)

  const browser = await signIn(server, { 'sec-fetch-site': 'same-origin' })
  t.ok(browser.cookie)
  t.equal(browser.token, undefined, 'what a cookie keeps from scripts is in no header')
  t.equal((await signIn(server, { 'sec-fetch-site': 'cross-site' })).token, undefined, 'nor does a page of another site read it')

  const { answer } = await signIn(server, { 'device-token': `${first.token}x` })
  t.match(answer.json(), { statusCode: 400, code: 'FST_SESSION_DEVICE' })
  t.notMatch(answer.body, first.token ?? '')
  const me = await server.app.inject({ url: '/open', headers: { 'device-token': 'forged' } })
  t.equal(me.statusCode, 200, 'nobody looks where nobody signs in')
})

t.test('sessions that one request starts are on one device, which is given once, also where an onSend hook fails', async t => {
  const { app, issue } = await limited(t, { devices: true })
  app.post('/both', async request => {
    const started = await Promise.all([request.startSession({ sub: 'alice' }), request.startSession({ sub: 'alice', use: 'refresh' })])
    return started.map(({ session }) => session.meta.deviceId)
  })
  let failing = false
  app.addHook('onSend', async () => {
    if (!failing) return
    failing = false
    throw new Error('once')
  })
  const both = async () => await app.inject({ method: 'POST', url: '/both' })
  const answer = await both()
  const [id, ...rest] = answer.json()
  t.same(rest, [id])
  t.equal(answer.cookies.length, 1)
  t.equal(app.sessionLimits.devices.recognise({ headers: { 'device-token': String(answer.headers['device-token']) } }).id, id)

  failing = true
  const failed = await both()
  t.equal(failed.statusCode, 500)
  t.equal(failed.cookies.length, 1)
  await issue({ meta: { deviceId: id } })
  while ((await app.sessionLimits.devices.list(alice)).length < 2) await new Promise(setImmediate)
  t.equal((await app.sessionLimits.devices.list(alice)).length, 2, 'one a request')
})

t.test('where nothing is validated, a device that is no text is none', async t => {
  const { channel, next } = recordingChannel()
  const { app, issue, registry, errors, clock } = await limited(t, { devices: true, notifications: { channels: [channel] } }, { validator: 'none' })
  const meta = { deviceId: 7, ipAddress: ['192.0.2.1'], userAgent: {} } as unknown as SessionMeta
  const { token, session } = await issue({ meta })
  t.equal(await app.sessionLimits.deviceOf(session), null)
  await registry.rotate(token)
  clock.advance(60_000)
  await t.rejects(registry.rotate(token))
  t.match(await next(), { type: 'ended-by-reuse', session: { id: session.id, ipAddress: null, userAgent: null }, device: null })
  t.same(await app.sessionLimits.devices.list(alice), [])
  t.same(errors, [])
})

t.test('what a channel of one\'s own needs is exported', async t => {
  t.ok(isDeviceName('Desk'))
  t.notOk(isDeviceName('a\nb'))
  const { subject, text } = mailText({ id: '', type: 'all-ended', tenant: '', sub: 'alice', at: 0, session: null, device: null, detail: {} })
  t.equal(subject, 'Your sessions were ended')
  t.match(text, 'Time: 1970-01-01 00:00 UTC')
})

t.test('the option devices is not turned on by null', async t => {
  const devices = null as unknown as boolean
  await t.rejects(limited(t, { devices }), { code: 'FST_SESSION_LIMITS_OPTIONS', message: 'session-limits: devices is null: it may be true, or { max, forgetAfter, cookie, header }' })
})

t.test('a device that the handler names itself is taken as it is, and kept in no list', async t => {
  const { app, errors } = await limited(t, { devices: true })
  app.post('/own', async request => await request.startSession({ sub: 'alice', meta: { deviceId: 'kiosk 7' } }))
  const answer = await app.inject({ method: 'POST', url: '/own' })
  t.equal(answer.json().session.meta.deviceId, 'kiosk 7')
  t.equal(answer.headers['set-cookie'], undefined)
  await app.close()
  t.same(errors, [])
})

t.test('devices that were signed in with are listed, and a trusted one can have limits and lifetimes of its own', async t => {
  const server = await limited(t, {
    devices: true,
    limits: [{ per: 'device', max: async session => (await session.device())?.trusted === true ? 2 : 1, onExceed: 'refuse', group: async session => (await session.device())?.trusted === true ? 'trusted' : 'plain' }],
    lifetimes: { trusted: { ttl: '90d' }, plain: { ttl: '1d' } }
  })
  const { app, live } = server
  const { devices } = app.sessionLimits
  const { session, token = '' } = await signIn(server, { 'user-agent': 'curl/8' })
  const id = session.meta.deviceId
  while ((await devices.list(alice)).length === 0) await new Promise(setImmediate)
  t.match(await devices.list(alice), [{ id, name: 'curl', trusted: false, ipAddress: '192.0.2.1', firstSeenAt: session.issuedAt }])
  t.equal(session.expiresAt - session.issuedAt, 86_400_000)

  await signIn(server, { 'device-token': token })
  t.equal((await live()).length, 1, 'it replaced its own')
  await devices.trust(alice, id)
  const trusted = [await signIn(server, { 'device-token': token }), await signIn(server, { 'device-token': token })]
  t.equal(trusted[0]?.session.expiresAt - trusted[0]?.session.issuedAt, 90 * 86_400_000)
  t.equal((await live()).length, 3, 'one of before, and two')
  t.equal(await devices.signOut(alice, id), 3)
  t.same(await live(), [])
})

t.test('a store without a place for documents is no obstacle: this process remembers', async t => {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now })
  t.teardown(() => store.close())
  const app = await build(t, { store: without(store, 'documents') })
  await app.register(sessionLimits, { devices: true })
  const { id } = app.sessionLimits.devices.recognise({ headers: {} })
  await app.sessionLimits.devices.see(alice, id)
  t.equal((await app.sessionLimits.devices.list(alice)).length, 1)
})

t.test('who signs in from a new device or network is told, and who signs in for the first time is not', async t => {
  const { channel, told, next } = recordingChannel()
  const server = await limited(t, { devices: true, notifications: { channels: [channel] } })
  const { devices } = server.app.sessionLimits
  const seen = async (count: number) => { while ((await devices.list(alice)).length < count) await new Promise(setImmediate) }
  const { token = '' } = await signIn(server)
  await seen(1)

  const second = await signIn(server, { 'user-agent': 'curl/8' })
  t.match(await next(), {
    type: 'new-device', sub: 'alice', session: { id: second.session.id, ipAddress: '192.0.2.1', userAgent: 'curl/8' }, device: { id: second.session.meta.deviceId, name: 'curl' }
  })
  await signIn(server, { 'device-token': token }, '192.0.2.77')
  const elsewhere = await signIn(server, { 'device-token': token }, '198.51.100.1')
  t.match(await next(), { type: 'new-network', session: { id: elsewhere.session.id, ipAddress: '198.51.100.1' } })
  await server.issue({ use: 'once' })
  await server.app.close()
  t.equal(told.length, 2)
  t.notMatch(JSON.stringify(told), /trs_|dev_/)
})

t.test('what ended is told with the name of its device, or without where that cannot be read', async t => {
  const clock = new Clock()
  const memory = memoryStore({ now: clock.now })
  t.teardown(() => memory.close())
  let down = false
  const store = decorated(memory, { documents: { read: async (...of) => down ? await Promise.reject(new Error('ECONNREFUSED')) : await memory.documents.read(...of), write: async (...of) => await memory.documents.write(...of) } })
  const { channel, next } = recordingChannel()
  const { app, registry, issue } = await limited(t, { devices: true, limits: [{ per: 'user', max: 1, onExceed: 'end-oldest' }], notifications: { channels: [channel] } }, { store })
  const { devices } = app.sessionLimits
  const { id } = devices.recognise({ headers: {} })
  await devices.see(alice, id, { name: 'Desk' })
  const on = { meta: { deviceId: id } }

  const { session: first } = await issue(on)
  const { session: second, token } = await issue(on)
  t.match(await next(), { type: 'ended-by-limit', session: { id: first.id }, device: { id, name: 'Desk' } })
  await registry.rotate(token)
  clock.advance(60_000)
  await t.rejects(registry.rotate(token))
  t.match(await next(), { type: 'ended-by-reuse', session: { id: second.id }, device: { id, name: 'Desk' } })

  await issue(on)
  down = true
  await issue(on)
  t.match(await next(), { type: 'ended-by-limit', device: null })
})

t.test('what ended sessions that their owner did not end is told, once', async t => {
  const { channel, told, next } = recordingChannel()
  const { app, issue, registry, clock } = await limited(t, { limits: [{ per: 'user', max: 2, onExceed: 'end-oldest' }], notifications: { channels: [channel] } })
  const { session: first } = await issue()
  await issue()
  const { session: third, token } = await issue()
  t.match(await next(), { type: 'ended-by-limit', sub: 'alice', session: { id: first.id }, detail: { reason: 'limit', limit: 'per user' } })

  await registry.rotate(token)
  clock.advance(60_000)
  await registry.rotate(token).catch(() => {})
  t.match(await next(), { type: 'ended-by-reuse', session: { id: third.id }, detail: { reason: 'reuse_recent' } })

  const { session: fourth } = await issue()
  await registry.revokeById(fourth.id, 'revoked', { by: 'alice' })
  await registry.revokeById((await issue()).session.id, 'revoked')
  const { session: fifth } = await issue()
  await registry.revokeById(fifth.id, 'revoked', { by: 'root' })
  t.match(await next(), { type: 'ended-by-administrator', sub: 'alice', session: null, detail: { reason: 'revoked', by: 'root', count: 1 } })

  await issue()
  await registry.revokeAll({ sub: 'alice', by: 'alice' })
  t.match(await next(), { type: 'all-ended', detail: { count: 2, kept: 0 } })
  const { session: own } = await issue()
  await issue()
  await registry.revokeAll({ sub: 'alice', by: 'alice', except: [own.id] })
  t.match(await next(), { type: 'all-ended', detail: { count: 1, kept: 1 } })
  await issue()
  await registry.revokeAll({ sub: 'alice', by: 'root' })
  t.match(await next(), { type: 'ended-by-administrator', detail: { by: 'root', count: 2 } })
  await issue()
  await registry.revokeAll({ sub: 'alice', by: 'alice', reason: 'password_changed' })
  t.match(await next(), { type: 'password-changed', detail: { count: 1 } })
  await issue()
  await registry.revokeAll({ sub: 'alice', by: 'alice', reason: 'password_changed' })
  t.match(await next(), { type: 'password-changed' }, 'each change is told')
  await issue({ use: 'once' })
  await app.close()
  t.equal(told.length, 8)
})

t.test('figures of notifications are among those of the registry', async t => {
  const { channel, next } = recordingChannel()
  const { registry, issue } = await limited(t, { limits: [{ per: 'user', max: 1, onExceed: 'end-oldest' }], notifications: { channels: [channel] } })
  await issue()
  await issue()
  await next()
  while (registry.stats.read()['notifications']?.['sent'] !== 1) await new Promise(setImmediate)
  t.match(registry.stats.read(), { notifications: { sent: 1, dropped: 0 }, devices: { unnotedDevices: 0 }, ended: { limit: 1 } })
})

t.test('what watches a session is told when it ends, in whichever way, and once', async t => {
  const { issue, registry, clock } = await limited(t, { limits: [{ per: 'client', max: 1, onExceed: 'end-oldest' }] })
  const told: Array<[string, string | undefined]> = []
  const watch = async (name: string, data: object = {}) => {
    const issued = await issue({ client: name, ...data })
    const stop = registry.watch(issued.session.id, ending => told.push([name, ending?.reason]))
    return { ...issued, stop }
  }
  const heard = async (count: number) => { while (told.length < count) await new Promise(setImmediate) }

  const revoked = await watch('revoked')
  await registry.revokeById(revoked.session.id)
  await heard(1)
  await watch('limit')
  await issue({ client: 'limit' })
  await heard(2)
  const [all, stopped] = [await watch('all'), await watch('stopped')]
  registry.watch(all.session.id, () => { throw new Error('of no one\'s concern') })
  registry.watch(all.session.id, () => told.push(['a second one', undefined]))
  stopped.stop()
  await registry.revokeAll({ sub: 'alice', except: [] })
  await heard(4)
  const brief = await watch('brief', { ttl: 1000 })
  clock.advance(1000)
  await registry.getById(brief.session.id)
  await heard(5)
  registry.watch(brief.session.id, ending => told.push(['too late', ending?.reason]))
  registry.watch('x'.repeat(24), ending => told.push(['never', ending?.reason]))
  await heard(7)
  t.same(told, [['revoked', 'revoked'], ['limit', 'limit'], ['all', 'revoked'], ['a second one', undefined], ['brief', 'expired'], ['too late', 'expired'], ['never', undefined]])
})

t.test('a session that cannot be looked at is not taken for ended', async t => {
  const memory = memoryStore()
  t.teardown(() => memory.close())
  let down = false
  const store = decorated(memory, { get: async id => down ? await Promise.reject(new Error('ECONNREFUSED')) : await memory.get(id) })
  const { registry } = await limited(t, {}, { store })
  const { session } = await registry.issue({ sub: 'alice' })
  const told: unknown[] = []
  down = true
  registry.watch(session.id, ending => told.push(ending?.reason))
  while (registry.stats.read()['sessions']?.['issued'] !== 1) await new Promise(setImmediate)
  t.same(told, [])
  down = false
  await registry.revokeById(session.id)
  while (told.length === 0) await new Promise(setImmediate)
  t.same(told, ['revoked'])
})

t.test('where the devices of very many sign-ins are being noted, those of more are not, and are counted', async t => {
  const memory = memoryStore()
  t.teardown(() => memory.close())
  const hung = deferred()
  const store = decorated(memory, { documents: { read: async (...of) => { await hung.promise; return await memory.documents.read(...of) }, write: async (...of) => await memory.documents.write(...of) } })
  const { app, issue, registry } = await limited(t, { devices: true }, { store })
  const { id } = app.sessionLimits.devices.recognise({ headers: {} })
  for (let i = 0; i < 1003; i++) await issue({ sub: `user ${i}`, meta: { deviceId: id } })
  t.match(registry.stats.read(), { devices: { unnotedDevices: 3 } })
  hung.resolve()
})

t.test('what a preStart hook returns is started, and nothing changes where it returns nothing', async t => {
  const server = await limited(t, {})
  server.registry.addHook('preStart', data => ({ ...data, client: 'app' }))
  server.registry.addHook('preStart', () => {})
  t.equal((await signIn(server)).session.client, 'app')
})

t.test('a session that is watched is looked at again where the store says only that something changed; not after that was stopped', async t => {
  const memory = memoryStore()
  t.teardown(() => memory.close())
  const held = deferred()
  let holds = false
  const store = decorated(memory, {
    get: async id => {
      const session = await memory.get(id)
      if (holds) await held.promise
      return session
    },
    onInvalidate: listener => memory.onInvalidate(() => listener('all'))
  })
  const { app, registry } = await limited(t, {}, { store })
  const [first, second, third] = [await registry.issue({ sub: 'a' }), await registry.issue({ sub: 'b' }), await registry.issue({ sub: 'c' })]
  const told: string[] = []
  registry.watch(first.session.id, () => told.push('first'))
  await registry.revokeById(first.session.id)
  while (told.length === 0) await new Promise(setImmediate)

  await registry.revokeById(second.session.id)
  holds = true
  const stop = registry.watch(second.session.id, () => told.push('second'))
  stop()
  const closed = registry.watch(third.session.id, () => told.push('third'))
  held.resolve()
  await new Promise(setImmediate)
  await app.close()
  closed()
  t.same(told, ['first'])
})
