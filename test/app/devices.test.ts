import t from 'tap'
import { mailTo } from '../support/outbox.ts'
import { call, password, register, testServer } from '../support/server.ts'

// Opening a database takes a second: all tests share one, and have users of their own.
const { app, dataDir } = await testServer(t, { ADMIN_EMAIL: 'root@example.org', ADMIN_PASSWORD: 'administrators need long ones' })

/** As JSON.parse gives it. */
type Json = ReturnType<typeof JSON.parse>

interface SignIn {
  statusCode: number
  body: Json
  device: string
  token: string
}

async function signIn (email: string, { device, ...body }: { device?: string, [name: string]: unknown } = {}, server = app): Promise<SignIn> {
  const answer = await server.inject({
    method: 'POST',
    url: '/api/auth/login',
    headers: { 'user-agent': 'curl/8.5', ...device !== undefined && { 'device-token': device } },
    payload: { email, password, ...body }
  })
  return { statusCode: answer.statusCode, body: answer.json(), device: String(answer.headers['device-token'] ?? ''), token: answer.json().accessToken }
}

/** The devices of who is signed in, when there are as many: they are noted after the answer. */
async function devicesOf (token: string, count: number): Promise<Json[]> {
  for (;;) {
    const { body } = await call(app, 'GET', '/api/devices', { token })
    const devices = body['devices'] as Json[]
    if (devices.length === count) return devices
  }
}

t.test('devices are recognised, listed, named, trusted and signed out', async t => {
  const email = 'ada@devices.example.org'
  await register(app, email)
  const [phone, laptop] = [await signIn(email), await signIn(email)]
  const again = await signIn(email, { device: phone.device })
  t.equal(again.device, phone.device)
  const devices = await devicesOf(phone.token, 2)
  const { id } = again.body['session'].device
  t.match(devices.find(device => device['id'] === id), { current: true, name: 'curl', trusted: false, ipAddress: '127.0.0.1' })
  t.equal(devices.filter(device => device['current']).length, 1)

  t.match(await call(app, 'PATCH', `/api/devices/${id}`, { token: phone.token, body: { name: ' Ada\'s phone ', trusted: true } }), { statusCode: 200, body: { id, name: 'Ada\'s phone', trusted: true, current: true } })
  const { body: { sessions } } = await call(app, 'GET', '/api/sessions', { token: laptop.token })
  t.match(sessions, [{ id: again.body['session'].id, current: false, device: { id, name: 'Ada\'s phone' } }, { current: true, device: { name: 'curl' } }, { device: { name: 'Ada\'s phone' } }])
  t.notMatch(JSON.stringify(sessions), /dev_|trr_|eyJ/)

  t.same(await call(app, 'DELETE', `/api/devices/${id}`, { token: laptop.token }).then(({ statusCode, body }) => ({ statusCode, body })), { statusCode: 200, body: { ended: 2 } })
  t.equal((await call(app, 'GET', '/api/auth/me', { token: phone.token })).statusCode, 401)
  t.equal((await devicesOf(laptop.token, 1))[0]?.['current'], true)
})

t.test('what is no device of the caller, or no name, is refused alike', async t => {
  for (const name of ['ada', 'eve']) await register(app, `${name}@bad.example.org`)
  const [ada, eve] = [await signIn('ada@bad.example.org'), await signIn('eve@bad.example.org')]
  const [foreign] = await devicesOf(ada.token, 1)
  await devicesOf(eve.token, 1)
  const own = eve.body['session'].device.id
  const { token } = eve
  for (const id of [foreign?.['id'], 'A'.repeat(22), 'x', '..', '%00', 'A'.repeat(200), '*']) {
    for (const [method, body] of [['PATCH', { name: 'mine' }], ['PATCH', { trusted: true }], ['DELETE', undefined]] as const) {
      const answer = await call(app, method, `/api/devices/${encodeURIComponent(String(id))}`, { token, ...body !== undefined && { body } })
      t.ok([400, 404].includes(answer.statusCode), `${method} ${String(id)}: ${answer.statusCode}`)
      if (id === foreign?.['id']) t.match(answer.body, { code: 'FST_SESSION_DEVICE_NOT_FOUND' })
    }
  }
  for (const body of [{}, { name: '' }, { name: ' ' }, { name: 'x'.repeat(101) }, { name: 'a\nb' }, { name: 'a\u0000b' }, { name: '\u202Eevil' }, { name: 7 }, { trusted: 'yes' }, { trust: true }, { name: null }]) {
    t.equal((await call(app, 'PATCH', `/api/devices/${own}`, { token, body })).statusCode, 400, JSON.stringify(body))
  }
  t.equal((await call(app, 'GET', '/api/devices')).statusCode, 401)
  t.match(await signIn('ada@bad.example.org', { device: 'dev_forged' }), { statusCode: 400, body: { code: 'FST_SESSION_DEVICE' } })
  t.match(await signIn('ada@bad.example.org', { device: `${ada.device}, ${ada.device}` }), { statusCode: 400 })
  t.equal((await devicesOf(ada.token, 1))[0]?.['name'], 'curl', 'nothing was changed')
})

t.test('three sessions a device and ten a user: the oldest end, and why is told', async t => {
  const email = 'ada@limits.example.org'
  await register(app, email)
  const first = await signIn(email)
  const same = []
  for (let i = 0; i < 3; i++) same.push(await signIn(email, { device: first.device }))
  const last = same.at(-1)
  t.equal((await call(app, 'GET', '/api/auth/me', { token: first.token })).statusCode, 401)
  await devicesOf(String(last?.token), 1)
  const { id } = first.body['session']
  t.match(await call(app, 'GET', `/api/sessions/${id}/ending`, { token: String(last?.token) }), {
    body: { reason: 'limit', limit: 'per device', by: null, differs: null, replacedBy: { session: last?.body['session'].id, device: { id: first.body['session'].device.id, name: 'curl' } } }
  })
  let newest = last
  for (let i = 0; i < 9; i++) newest = await signIn(email)
  const { body } = await call(app, 'GET', '/api/sessions', { token: String(newest?.token) })
  t.equal((body['sessions'] as unknown[]).length, 10)
})

t.test('where it refuses, who proved the password is shown what could end, and can end it by signing in', async t => {
  const { app: strict } = await testServer(t, { SESSION_LIMIT: '2', SESSION_LIMIT_DEVICE: 'off', SESSION_LIMIT_STRATEGY: 'refuse' })
  const email = 'ada@strict.example.org'
  await register(strict, email)
  const [first, second] = [await signIn(email, {}, strict), await signIn(email, {}, strict)]
  const refused = await signIn(email, {}, strict)
  t.match(refused, { statusCode: 429, body: { code: 'FST_SESSION_LIMIT', error: 'Too Many Requests', limit: { name: 'per user', max: 2, count: 2 } } })
  const [newer, older] = refused.body['sessions']
  t.same([older.id, newer.id], [first.body['session'].id, second.body['session'].id])
  t.notMatch(JSON.stringify(refused.body), /dev_|trr_|eyJ/)
  t.equal(refused.device, '', 'who is not let in gets no device')

  const wrong = await call(strict, 'POST', '/api/auth/login', { body: { email, password: 'a wrong one', endOthers: [older.id] } })
  t.match(wrong, { statusCode: 401, body: { code: 'APP_SIGN_IN_REFUSED' } })
  t.notOk('sessions' in wrong.body)
  const next = await signIn(email, { endOthers: [older.id] }, strict)
  t.equal(next.statusCode, 200)
  t.equal((await call(strict, 'GET', '/api/auth/me', { token: first.token })).statusCode, 401)
  t.equal((await call(strict, 'GET', '/api/auth/me', { token: second.token })).statusCode, 200)
  t.match(await call(strict, 'GET', `/api/sessions/${older.id}/ending`, { token: next.token }), { body: { reason: 'replaced', replacedBy: { session: next.body['session'].id } } })
  for (const endOthers of ['x', [7], ['x'], Array(101).fill(older.id)]) t.equal((await signIn(email, { endOthers }, strict)).statusCode, 400)
})

t.test('who asks to stay signed in does so for longer', async t => {
  await register(app, 'ada@remember.example.org')
  const days = ({ body }: SignIn): number => (body['session'].expiresAt - body['session'].issuedAt) / 86_400_000
  t.equal(days(await signIn('ada@remember.example.org')), 7)
  t.equal(days(await signIn('ada@remember.example.org', { rememberMe: true })), 90)
})

t.test('users are mailed what happens to their sessions, and not their first sign-in', async t => {
  const at = async (name: string): Promise<string> => await mailTo(dataDir, `${name}@mail.example.org`)
  for (const name of ['device', 'limit', 'reuse', 'admin', 'password', 'all']) await register(app, `${name}@mail.example.org`)
  const first = await signIn('device@mail.example.org')
  await devicesOf(first.token, 1)
  await signIn('device@mail.example.org')
  t.match(await at('device'), /Subject: A sign-in from a new device\n[^]*Device: curl\nAddress: 127\.0\.0\.1\n/)

  const { device } = await signIn('limit@mail.example.org')
  for (let i = 0; i < 3; i++) await signIn('limit@mail.example.org', { device })
  t.match(await at('limit'), /Subject: A session was ended/)

  const { body: { refreshToken }, device: reused } = await signIn('reuse@mail.example.org')
  const refresh = async (token: string) => await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: token } })
  const { body: { refreshToken: second } } = await refresh(refreshToken)
  await refresh(String(second))
  t.equal((await refresh(refreshToken)).statusCode, 401)
  t.ok(reused)
  t.match(await at('reuse'), /Subject: A session may have been stolen/)

  const { body: { user: { id } } } = await signIn('admin@mail.example.org')
  const { body: { accessToken } } = await call(app, 'POST', '/api/auth/login', { body: { email: 'root@example.org', password: 'administrators need long ones' } })
  await call(app, 'DELETE', `/api/admin/users/${id}/sessions`, { token: String(accessToken) })
  t.match(await at('admin'), /Subject: You were signed out\n[^]*An administrator ended a session of yours\./)

  const { token } = await signIn('password@mail.example.org')
  await call(app, 'POST', '/api/auth/password/change', { token, body: { currentPassword: password, newPassword: 'another fine password' } })
  t.match(await at('password'), /Subject: Your password was changed/)

  const { token: all } = await signIn('all@mail.example.org')
  await call(app, 'DELETE', '/api/sessions?all=true', { token: all })
  t.match(await at('all'), /Subject: You were signed out everywhere/)
  for (const name of ['limit', 'reuse', 'admin', 'password', 'all']) t.notMatch(await at(name), /new device/, 'not the first sign-in')
})
