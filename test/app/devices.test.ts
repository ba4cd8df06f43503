import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { call, password, register, testServer } from '../support/server.ts'
import { smtpServer } from '../support/smtp.ts'

// Opening a database takes a second: most tests share one, and have users of their own.
const { app, log } = await testServer(t)

/** As JSON.parse gives it. */
type Json = ReturnType<typeof JSON.parse>

interface SignIn {
  statusCode: number
  body: Json
  /** The device token that the answer gives. */
  device: string
  token: string
}

/** Signs in as a program does, which may show a device token, from an address. */
async function signIn (email: string, { device, ip, server = app, body = {} }: { device?: string, ip?: string, server?: FastifyInstance, body?: object } = {}): Promise<SignIn> {
  const answer = await server.inject({
    method: 'POST',
    url: '/api/auth/login',
    headers: { 'user-agent': 'curl/8.5', ...device !== undefined && { 'device-token': device }, ...ip !== undefined && { 'x-forwarded-for': ip } },
    payload: { email, password, ...body }
  })
  return { statusCode: answer.statusCode, body: answer.json(), device: String(answer.headers['device-token'] ?? ''), token: answer.json().accessToken }
}

async function get (url: string, token: string, server = app): Promise<Json> {
  return (await call(server, 'GET', url, { token })).body
}

/** The devices of who is signed in, when there are as many: they are noted after the answer. */
async function devicesOf (token: string, count: number, server = app): Promise<Json[]> {
  for (;;) {
    const { devices } = await get('/api/devices', token, server)
    if (devices.length === count) return devices
  }
}

async function isIn (token: string, server = app): Promise<boolean> {
  return (await call(server, 'GET', '/api/auth/me', { token })).statusCode === 200
}

/** What begins tokens of ours, and JWTs. */
const secret = /(dev|trs|trr|tro)_[\w-]{8}|eyJ/

t.test('devices are recognised, listed, named, trusted and signed out', async t => {
  const email = 'ada@devices.example.org'
  await register(app, email)
  const [phone, laptop] = [await signIn(email), await signIn(email)]
  const again = await signIn(email, { device: phone.device })
  t.equal(again.device, phone.device)
  const devices = await devicesOf(phone.token, 2)
  const { id } = again.body.session.device
  t.match(devices.find(device => device.id === id), { current: true, name: 'curl', trusted: false, ipAddress: '127.0.0.1' })
  t.equal(devices.filter(device => device.current).length, 1)

  t.match(await call(app, 'PATCH', `/api/devices/${id}`, { token: phone.token, body: { name: ' Ada\'s phone ', trusted: true } }), { statusCode: 200, body: { id, name: 'Ada\'s phone', trusted: true, current: true } })
  t.match(await call(app, 'PATCH', `/api/devices/${id}`, { token: laptop.token, body: { trusted: false } }), { statusCode: 200, body: { name: 'Ada\'s phone', trusted: false, current: false } })
  const { sessions } = await get('/api/sessions', laptop.token)
  t.match(sessions, [{ id: again.body.session.id, current: false, device: { id, name: 'Ada\'s phone' } }, { current: true, device: { name: 'curl' } }, { device: { name: 'Ada\'s phone' } }])
  t.notMatch(JSON.stringify([devices, sessions]), secret)

  const forgotten = await call(app, 'DELETE', `/api/devices/${id}`, { token: laptop.token })
  t.same([forgotten.statusCode, forgotten.body], [200, { ended: 2 }])
  t.notOk(await isIn(phone.token))
  t.match(await get(`/api/sessions/${again.body.session.id}/ending`, laptop.token), { reason: 'revoked', by: phone.body.user.id })
  t.match(await devicesOf(laptop.token, 1), [{ current: true }])
  await signIn(email, { device: phone.device })
  t.match(await devicesOf(laptop.token, 2), [{ id, name: 'curl', trusted: false }, {}], 'signed in with again, it is a new one')
})

t.test('wherever a session is shown, its device has the same name', async t => {
  const email = 'ada@names.example.org'
  await register(app, email)
  t.match(await signIn(email, { body: { device: { name: 'laptop' } } }), { body: { session: { device: { name: 'laptop' } } } }, 'also before it is in the list')
  const first = await signIn(email)
  const { id } = first.body.session.device
  await devicesOf(first.token, 2)
  await call(app, 'PATCH', `/api/devices/${id}`, { token: first.token, body: { name: 'Ada\'s phone' } })
  const shown = [
    (await signIn(email, { device: first.device })).body.session,
    (await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: first.body.refreshToken } })).body['session'],
    (await get('/api/auth/me', first.token)).session,
    (await get('/api/sessions', first.token)).sessions[1],
    await get(`/api/sessions/${first.body.session.id}`, first.token)
  ]
  for (const { device } of shown) t.same(device, { id, name: 'Ada\'s phone', userAgent: 'curl/8.5' })
})

t.test('where devices cannot be read, sessions are shown without their names', async t => {
  const email = 'ada@unread.example.org'
  await register(app, email)
  const { token } = await signIn(email)
  await devicesOf(token, 1)
  t.match(await get('/api/sessions', token), { sessions: [{ device: { name: 'curl' } }] })
  t.intercept(app.sessionLimits.devices, 'list', { value: async () => { throw new Error('the list is away') }, configurable: true })
  t.match(await call(app, 'GET', '/api/sessions', { token }), { statusCode: 200, body: { sessions: [{ current: true, device: { id: /.{22}/, name: null } }] } })
  t.ok(log.some(line => line.includes('the list is away')))
})

t.test('two users of one device know, name and sign out only themselves', async t => {
  for (const name of ['ada', 'eve']) await register(app, `${name}@shared.example.org`)
  const ada = await signIn('ada@shared.example.org')
  const eve = await signIn('eve@shared.example.org', { device: ada.device })
  const [{ id }] = await devicesOf(ada.token, 1)
  t.equal(eve.body.session.device.id, id)
  await devicesOf(eve.token, 1)
  await call(app, 'PATCH', `/api/devices/${id}`, { token: ada.token, body: { name: 'of Ada' } })
  t.match(await devicesOf(eve.token, 1), [{ name: 'curl' }])
  t.match(await call(app, 'DELETE', `/api/devices/${id}`, { token: eve.token }), { statusCode: 200, body: { ended: 1 } })
  t.ok(await isIn(ada.token))
  t.match(await devicesOf(ada.token, 1), [{ id, name: 'of Ada' }])
})

t.test('what is no device of the caller is answered alike', async t => {
  for (const name of ['ada', 'eve']) await register(app, `${name}@foreign.example.org`)
  const [ada, eve] = [await signIn('ada@foreign.example.org'), await signIn('eve@foreign.example.org')]
  const [foreign] = await devicesOf(ada.token, 1)
  const own = eve.body.session.device.id
  for (const [method, body] of [['PATCH', { name: 'mine' }], ['PATCH', { trusted: true }], ['DELETE', undefined]] as const) {
    const at = async (id: string) => await call(app, method, `/api/devices/${id}`, { token: eve.token, ...body !== undefined && { body } })
    const answers = new Set<string>()
    for (const id of [foreign.id, 'A'.repeat(22), 'x', '*', '\u00E9', own.slice(1), `${own}=`, ada.body.session.id, 'A'.repeat(256)]) {
      const { statusCode, body } = await at(encodeURIComponent(id))
      answers.add(JSON.stringify([statusCode, { ...body, requestId: '' }]))
    }
    t.match([...answers], [/^\[404,.*"FST_SESSION_DEVICE_NOT_FOUND"/])
    t.equal(answers.size, 1)
    for (const id of ['%00', '%F0', '%ED%A0%80', 'a'.repeat(257), 'a'.repeat(5000), '%C3%A9'.repeat(257)]) t.match(await at(id), { statusCode: 400, body: { statusCode: 400, code: /^FST_/, requestId: /./ } }, id)
    t.equal((await call(app, method, `/api/devices/${foreign.id}`)).statusCode, 401)
  }
  t.equal((await call(app, 'GET', '/api/devices')).statusCode, 401)
  t.ok(await isIn(ada.token))
  t.match(await devicesOf(ada.token, 1), [{ name: 'curl', trusted: false }], 'nothing was changed')
})

t.test('what is no name, no change and no device token is refused', async t => {
  const email = 'ada@bad.example.org'
  await register(app, email)
  const { token, device, body: { session } } = await signIn(email)
  await devicesOf(token, 1)
  const patch = async (body: object) => await call(app, 'PATCH', `/api/devices/${session.device.id}`, { token, body })
  for (const [i, name] of ['', ' ', 'x'.repeat(101), 'a\nb', 'a\u0000b', 'a\u0085b', 'a\u2028b', '\u202Eevil', '\u200B', '\ud800', 7, null, ['x']].entries()) {
    t.equal((await patch({ name })).statusCode, 400, `name ${i}`)
    t.equal((await signIn(email, { body: { device: { name } } })).statusCode, 400, `name ${i} at the sign-in`)
  }
  t.match(await patch({ name: 'a\nb' }), { body: { message: /1 to 100 characters, without control characters/ } })
  for (const body of [{}, { trusted: 'yes' }, { trusted: null }, { trust: true }, { id: 'x', name: 'x' }, { name: 'x', trusted: 1 }]) t.equal((await patch(body)).statusCode, 400, JSON.stringify(body))
  for (const body of [{ rememberMe: 'yes' }, { rememberMe: null }, { endOthers: 'x' }, { endOthers: null }, { endOthers: [7] }, { endOthers: ['x'] }, { endOthers: Array(101).fill(session.id) }, { device: 'x' }, { device: { id: 'x' } }, { deviceId: 'x' }]) {
    t.equal((await signIn(email, { body })).statusCode, 400, JSON.stringify(body))
  }
  for (const forged of ['dev_forged', 'x', `${device.slice(0, 20)}A${device.slice(21)}A`, device.slice(4), `${device}, ${device}`, 'dev_'.padEnd(5000, 'A'), token]) {
    t.match(await signIn(email, { device: forged }), { statusCode: 400, body: { code: 'FST_SESSION_DEVICE' }, device: '' }, forged)
  }
  t.match(await devicesOf(token, 1), [{ name: 'curl', trusted: false }], 'nothing was changed')
})

t.test('a browser keeps its device in a cookie that no script reads, also on a page of another origin', async t => {
  const { app } = await testServer(t, { CORS_ORIGIN: 'https://app.example.org' })
  const email = 'ada@browser.example.org'
  await register(app, email)
  const login = async (headers: Record<string, string>) => await app.inject({ method: 'POST', url: '/api/auth/login', headers: { origin: 'https://app.example.org', 'sec-fetch-site': 'same-site', ...headers }, payload: { email, password } })
  const { headers, cookies: [cookie], json } = await login({})
  t.match(cookie, { name: '__Host-device', value: /^dev_/, httpOnly: true, secure: true, sameSite: 'Lax', path: '/' })
  t.match(headers, { 'access-control-allow-origin': 'https://app.example.org', 'access-control-allow-credentials': 'true' }, 'it may be kept')
  t.notOk('device-token' in headers)
  const { id } = json().session.device
  t.equal((await login({ cookie: `__Host-device=${cookie?.value}` })).json().session.device.id, id)
  t.not((await login({ cookie: '__Host-device=dev_forged' })).json().session.device.id, id, 'a cookie that is not ours counts as none')
})

t.test('three sessions a device and ten a user: the oldest end, and why is told', async t => {
  const email = 'ada@limits.example.org'
  await register(app, email)
  const first = await signIn(email)
  for (let i = 0; i < 2; i++) await signIn(email, { device: first.device })
  t.ok(await isIn(first.token))
  const { token, body: { session } } = await signIn(email, { device: first.device })
  t.notOk(await isIn(first.token))
  const ending = await get(`/api/sessions/${first.body.session.id}/ending`, token)
  t.match(ending, { reason: 'limit', limit: 'per device', by: null, differs: null, replacedBy: { session: session.id, device: { id: session.device.id, name: 'curl' } } })
  t.notMatch(JSON.stringify(ending), secret)

  let newest = token
  for (let i = 0; i < 7; i++) newest = (await signIn(email)).token
  const count = async () => (await get('/api/sessions', newest)).sessions.length
  t.equal(await count(), 10)
  newest = (await signIn(email)).token
  t.equal(await count(), 10)
})

t.test('limits may be off', async t => {
  const { app: server } = await testServer(t, { SESSION_LIMIT: 'off', SESSION_LIMIT_DEVICE: 'off' })
  await register(server, 'ada@off.example.org')
  const { device, token } = await signIn('ada@off.example.org', { server })
  for (let i = 0; i < 11; i++) await signIn('ada@off.example.org', { server, device })
  t.equal((await get('/api/sessions', token, server)).sessions.length, 12)
})

t.test('whoever was not active for longest may end in the place of the oldest', async t => {
  let now = Date.now()
  const { app: server } = await testServer(t, { SESSION_LIMIT: '2', SESSION_LIMIT_STRATEGY: 'end-least-recently-used' }, { now: () => now })
  await register(server, 'ada@active.example.org')
  const [first, second] = [await signIn('ada@active.example.org', { server }), await signIn('ada@active.example.org', { server })]
  now += 1000
  await call(server, 'POST', '/api/auth/refresh', { body: { refreshToken: first.body.refreshToken } })
  await signIn('ada@active.example.org', { server })
  t.same([await isIn(first.token, server), await isIn(second.token, server)], [true, false])
})

t.test('where it refuses, who proved the password is shown what could end, and can end it by signing in', async t => {
  const { app: server } = await testServer(t, { SESSION_LIMIT: '2', SESSION_LIMIT_DEVICE: 'off', SESSION_LIMIT_STRATEGY: 'refuse' })
  const [email, other] = ['ada@strict.example.org', 'eve@strict.example.org']
  for (const address of [email, other]) await register(server, address)
  const [first, second, eve] = [await signIn(email, { server }), await signIn(email, { server, body: { device: { name: 'laptop' } } }), await signIn(other, { server })]
  await devicesOf(first.token, 2, server)

  const refused = await signIn(email, { server })
  t.match(refused, { statusCode: 429, body: { statusCode: 429, code: 'FST_SESSION_LIMIT', error: 'Too Many Requests', requestId: /./, limit: { name: 'per user', max: 2, count: 2 } } })
  const shown = ({ session: { id, device } }: Json, name: string) => ({ id, current: false, device: { ...device, name }, ipAddress: '127.0.0.1' })
  t.match(refused.body.sessions, [shown(second.body, 'laptop'), shown(first.body, 'curl')])
  t.equal(refused.body.sessions.length, 2, 'none of others')
  t.same(Object.keys(refused.body.sessions[0]), Object.keys(first.body.session), 'as in every list')
  t.notMatch(JSON.stringify(refused.body), secret)
  t.equal(refused.device, '', 'who is not let in gets no device')

  const oldest = first.body.session.id
  for (const [address, wrong] of [[email, 'a wrong one'], ['nobody@strict.example.org', password]]) {
    const { body, headers } = await call(server, 'POST', '/api/auth/login', { body: { email: address, password: wrong, endOthers: [oldest] } })
    t.same([body['code'], Object.keys(body)], ['APP_SIGN_IN_REFUSED', ['statusCode', 'code', 'error', 'message', 'requestId']])
    t.notOk('device-token' in headers)
  }
  t.match(await signIn(email, { server, body: { endOthers: [eve.body.session.id] } }), { statusCode: 429 }, 'a session of another frees no place')
  t.same([await isIn(first.token, server), await isIn(eve.token, server)], [true, true])

  const next = await signIn(email, { server, body: { endOthers: [oldest, eve.body.session.id] } })
  t.equal(next.statusCode, 200)
  t.same([await isIn(first.token, server), await isIn(second.token, server), await isIn(eve.token, server)], [false, true, true])
  t.match(await get(`/api/sessions/${oldest}/ending`, next.token, server), { reason: 'replaced', replacedBy: { session: next.body.session.id } })
})

t.test('who asks to stay signed in does so for longer', async t => {
  await register(app, 'ada@remember.example.org')
  const days = async (body: object): Promise<number> => {
    const { body: { session } } = await signIn('ada@remember.example.org', { body })
    return (session.expiresAt - session.issuedAt) / 86_400_000
  }
  t.same([await days({}), await days({ rememberMe: false }), await days({ rememberMe: true })], [7, 7, 90])
})

t.test('the docs say how devices are told apart', async t => {
  const { paths, tags } = (await app.inject('/docs/json')).json()
  const { parameters, responses } = paths['/api/auth/login'].post
  t.match(parameters, [{ in: 'header', name: 'device-token' }])
  t.match(responses['200'].headers, { 'device-token': { description: /which device/ } })
  t.ok(tags.some(({ name }: { name: string }) => name === 'devices'))
})

t.test('users are mailed, once, what happens to their sessions, and not their first sign-in', async t => {
  const admin = { ADMIN_EMAIL: 'root@example.org', ADMIN_PASSWORD: 'administrators need long ones' }
  const { app: server, dataDir } = await testServer(t, { ...admin, TRUST_PROXY: '127.0.0.1' })
  const at = (name: string): string => `${name}@mail.example.org`
  const enter = async (name: string, options: { device?: string, ip?: string } = {}) => await signIn(at(name), { server, ...options })
  const post = async (path: string, body: object, token?: string) => await call(server, 'POST', `/api/auth/${path}`, { body, ...token !== undefined && { token } })
  for (const name of ['first', 'device', 'network', 'limit', 'reuse', 'admin', 'disabled', 'changed', 'kept', 'reset', 'all', 'own']) await register(server, at(name))

  await enter('first')
  const known = await enter('device', { ip: '203.0.113.7' })
  await devicesOf(known.token, 1, server)
  await enter('device', { ip: '203.0.113.8' })
  const { device, token } = await enter('network', { ip: '203.0.113.7' })
  await devicesOf(token, 1, server)
  await enter('network', { device, ip: '203.0.113.200' })
  await enter('network', { device, ip: '198.51.100.1' })

  const limited = await enter('limit', { ip: '203.0.113.7' })
  for (let i = 0; i < 3; i++) await enter('limit', { device: limited.device, ip: '203.0.113.7' })

  const { body: { refreshToken } } = await enter('reuse')
  const { body: { refreshToken: second } } = await post('refresh', { refreshToken })
  await post('refresh', { refreshToken: second })
  t.equal((await post('refresh', { refreshToken })).statusCode, 401)

  const { body: { accessToken: root } } = await post('login', { email: admin.ADMIN_EMAIL, password: admin.ADMIN_PASSWORD })
  const twice = await enter('admin')
  await enter('admin', { device: twice.device })
  await call(server, 'DELETE', `/api/admin/users/${twice.body.user.id}/sessions`, { token: String(root) })
  const { body: { user } } = await enter('disabled')
  await call(server, 'PATCH', `/api/admin/users/${user.id}`, { token: String(root), body: { disabled: true } })

  const here = await enter('changed')
  await enter('changed', { device: here.device })
  t.match(await post('password/change', { currentPassword: password, newPassword: 'another fine password' }, here.token), { body: { ended: 1 } })
  const kept = await enter('kept')
  await enter('kept', { device: kept.device })
  t.match(await post('password/change', { currentPassword: password, newPassword: 'another fine password', endOthers: false }, kept.token), { body: { ended: 0 } })

  // The password is another one, also where its owner's sessions cannot be ended at once.
  const { body: { user: { id: failing } } } = await enter('reset')
  server.tokenRegistry.addHook('preRevoke', ({ subject }) => { if (subject?.sub === failing) throw new Error('the store is away') })
  await post('password/forgot', { email: at('reset') })
  const [resetToken = ''] = /tro_\S{56}/.exec(await mailWith(dataDir, at('reset'), 'tro_')) ?? []
  t.equal((await post('password/reset', { token: resetToken, password: 'another fine password' })).statusCode, 500)

  const { token: all } = await enter('all')
  await call(server, 'DELETE', '/api/sessions?all=true', { token: all })
  const own = await enter('own')
  const ended = await enter('own', { device: own.device })
  await call(server, 'DELETE', `/api/sessions/${ended.body.session.id}`, { token: own.token })
  await post('logout', {}, own.token)

  // What waits to be sent is sent now.
  await server.close()
  const mails = await mailsIn(dataDir)
  const of = (name: string): string[] => mails.filter(mail => mail.includes(`\nTo: ${at(name)}\n`)).map(mail => mail.replace(/^.*\nTo: .*\nSubject: /, ''))
  const time = 'Time: .* UTC'
  t.match(of('device'), [new RegExp(`^New sign-in to your account\\n\\n.*\\n\\n${time}\\nDevice: "curl"\\nIP address: 203\\.0\\.113\\.8\\n\\n.* change your password`)])
  t.match(of('network'), [new RegExp(`^Sign-in to your account from a new network\\n\\n.*\\n\\n${time}\\nDevice: "curl"\\nIP address: 198\\.51\\.100\\.1\\n\\n.* change your password`)])
  t.match(of('limit'), [new RegExp(`^You were signed out on one device\\n\\n.*\\n\\n${time}\\nDevice: "curl"\\nIP address: 203\\.0\\.113\\.7\\n`)])
  t.match(of('reuse'), [/^A session of yours was ended for safety\n\n.* somebody may have copied it[^]* change your password/])
  t.match(of('admin'), [/^You were signed out\n\nAn administrator ended 2 sessions of yours\.\n/])
  t.match(of('disabled'), [/^You were signed out\n\nAn administrator disabled your account, and ended a session of yours\.\n/])
  for (const name of ['changed', 'kept']) t.match(of(name), [/^Your password was changed\n\n/])
  t.match(of('reset').sort(), [/^Reset your password\n/, /^Your password was changed\n\n/])
  t.match(of('all'), [/^Your sessions were ended\n\n/])
  for (const name of ['device', 'network', 'limit', 'reuse', 'admin', 'disabled', 'changed', 'kept', 'all']) t.equal(of(name).length, 1, name)
  t.equal(mails.length, 11, 'nobody for a first sign-in, nor for a session that its owner ended')
  for (const mail of mails) if (!mail.includes('Reset your password')) t.notMatch(mail, secret)
})

t.test('a mail that the server does not take is tried again, and counts as sent when it is', async t => {
  const busy = await smtpServer(t, () => busy.asked === 1 ? '451 later' : '250 ok')
  const statsWith = async (url: string, until: () => boolean) => {
    const { app: server } = await testServer(t, { SMTP_URL: url, MAIL_FROM: 'us@example.org' })
    await register(server, 'ada@smtp.example.org')
    const { token } = await signIn('ada@smtp.example.org', { server })
    await call(server, 'DELETE', '/api/sessions?all=true', { token })
    while (!until()) await setImmediate()
    await server.close()
    return server.sessionLimits.notifications.stats
  }
  t.match(await statsWith(busy.url, () => busy.mails.length === 1), { sent: 1, failed: 0, dropped: 0 })
  t.match(busy.mails, [{ to: ['ada@smtp.example.org'], content: /^Subject: Your sessions were ended$/m }])
  t.equal(busy.asked, 2)
  t.match(await statsWith('smtp://127.0.0.1:1', () => true), { sent: 0, failed: 1, dropped: 0 })
})

t.test('a webhook is sent what users are mailed, and reaches no machine of ours', async t => {
  const { app: server, log } = await testServer(t, { NOTIFY_WEBHOOK_URL: 'https://localhost:1/hook-path', NOTIFY_WEBHOOK_SECRET: 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' })
  await register(server, 'ada@hook.example.org')
  const { token } = await signIn('ada@hook.example.org', { server })
  await call(server, 'DELETE', '/api/sessions?all=true', { token })
  const failed = (): string | undefined => log.find(line => line.includes('the channel webhook failed'))
  while (failed() === undefined) await setImmediate()
  t.match(failed(), /localhost leads to (127\.0\.0\.1|::1), which is not public/)
  t.notOk(log.some(line => line.includes('hook-path')), 'what may be a secret is not logged')
})

async function mailsIn (dataDir: string): Promise<string[]> {
  const outbox = join(dataDir, 'outbox')
  const names = (await readdir(outbox).catch(() => [])).filter(name => name.endsWith('.txt'))
  return await Promise.all(names.map(async name => await readFile(join(outbox, name), 'utf8')))
}

/** The mail to an address that holds a text: mails are written after the answer. */
async function mailWith (dataDir: string, address: string, text: string): Promise<string> {
  for (;;) {
    const mail = (await mailsIn(dataDir)).find(mail => mail.includes(`\nTo: ${address}\n`) && mail.includes(text))
    if (mail !== undefined) return mail
    await setImmediate()
  }
}
