import { randomBytes } from 'node:crypto'
import t from 'tap'
import { call, password, register, signIn, testServer } from '../support/server.ts'

const admin = { ADMIN_EMAIL: 'root@example.org', ADMIN_PASSWORD: 'administrators need long ones' }

// Opening a database takes a second: all tests share one, and have users of their own.
const { app } = await testServer(t, admin)

t.test('nobody sees or ends the sessions of somebody else, nor learns that they exist', async t => {
  for (const name of ['ada', 'eve']) await register(app, `${name}@others.example.org`)
  const [ada, eve] = [await signIn(app, 'ada@others.example.org'), await signIn(app, 'eve@others.example.org')]
  const another = randomBytes(18).toString('base64url')

  for (const [method, path] of [['GET', ''], ['DELETE', ''], ['GET', '/ending']] as const) {
    const [foreign, random] = await Promise.all([ada.session.id, another].map(id => call(app, method, `/api/sessions/${id}${path}`, { token: eve.accessToken })))
    t.match(foreign, { statusCode: 404, body: { code: 'FST_SESSION_NOT_FOUND' } })
    t.same({ ...foreign?.body, requestId: '' }, { ...random?.body, requestId: '' })
  }
  for (const id of ['%00', 'a'.repeat(257), 'a'.repeat(5000)]) {
    for (const [method, path] of [['GET', ''], ['DELETE', ''], ['GET', '/ending']] as const) t.match(await call(app, method, `/api/sessions/${id}${path}`, { token: eve.accessToken }), { statusCode: 400, body: { code: /^FST_/ } })
  }
  t.equal((await call(app, 'GET', '/api/auth/me', { token: ada.accessToken })).statusCode, 200)
  t.match(await call(app, 'GET', `/api/admin/users/${ada.user.id}/sessions`, { token: eve.accessToken }), { statusCode: 403, headers: { 'www-authenticate': /insufficient_scope/ } })

  t.equal((await call(app, 'DELETE', `/api/sessions/${ada.session.id}`, { token: ada.accessToken })).statusCode, 204)
  t.equal((await call(app, 'GET', `/api/sessions/${ada.session.id}/ending`, { token: eve.accessToken })).statusCode, 404, 'nor how they ended')
  const again = await signIn(app, 'ada@others.example.org')
  t.match(await call(app, 'GET', `/api/sessions/${ada.session.id}/ending`, { token: again.accessToken }), { statusCode: 200, body: { id: ada.session.id, reason: 'revoked', by: ada.user.id } })
  const root = await signIn(app, admin.ADMIN_EMAIL, admin.ADMIN_PASSWORD)
  t.match(await call(app, 'GET', `/api/sessions/${ada.session.id}/ending`, { token: root.accessToken }), { statusCode: 200, body: { reason: 'revoked' } })
})

t.test('all other sessions can be ended, or every one; lists come in pages', async t => {
  await register(app, 'ada@pages.example.org')
  const sessions = []
  for (let i = 0; i < 5; i++) sessions.push(await signIn(app, 'ada@pages.example.org'))
  const [first, second] = sessions
  const token = first?.accessToken ?? ''

  const page = await call(app, 'GET', '/api/sessions?limit=3', { token })
  const rest = await call(app, 'GET', `/api/sessions?limit=3&cursor=${String(page.body['cursor'])}`, { token })
  t.equal(rest.body['cursor'], null)
  const ids = [page, rest].flatMap(({ body }) => body['sessions'] as Array<{ id: string }>).map(({ id }) => id)
  t.same(ids, sessions.map(({ session }) => session.id).reverse(), 'newest first, each once')
  for (const query of ['limit=0', 'limit=501', 'limit=x', 'cursor=*', 'unknown=1', 'limit=1&limit=2']) t.equal((await call(app, 'GET', `/api/sessions?${query}`, { token })).statusCode, 400, query)

  t.match(await call(app, 'DELETE', '/api/sessions', { token }), { statusCode: 200, body: { ended: 4 } })
  t.equal((await call(app, 'GET', '/api/auth/me', { token: second?.accessToken ?? '' })).statusCode, 401)
  t.match(await call(app, 'DELETE', '/api/sessions?all=true', { token }), { body: { ended: 1 } })
  t.equal((await call(app, 'GET', '/api/auth/me', { token })).statusCode, 401)
})

t.test('an administrator sees and ends sessions, and shuts users out', async t => {
  await register(app, 'ada@admin.example.org')
  const ada = await signIn(app, 'ada@admin.example.org')
  const { accessToken: token } = await signIn(app, admin.ADMIN_EMAIL, admin.ADMIN_PASSWORD)

  t.match(await call(app, 'GET', `/api/admin/users/${ada.user.id}/sessions`, { token }), { statusCode: 200, body: { sessions: [{ id: ada.session.id, current: false }] } })
  t.match(await call(app, 'DELETE', `/api/admin/users/${ada.user.id}/sessions`, { token }), { statusCode: 200, body: { ended: 1 } })
  t.equal((await call(app, 'GET', '/api/auth/me', { token: ada.accessToken })).statusCode, 401)

  const again = await signIn(app, 'ada@admin.example.org')
  t.match(await call(app, 'PATCH', `/api/admin/users/${ada.user.id}`, { token, body: { disabled: true } }), { statusCode: 200, body: { ended: 1 } })
  t.equal((await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: again.refreshToken } })).statusCode, 401)
  t.match(await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@admin.example.org', password } }), { statusCode: 403, body: { code: 'APP_USER_DISABLED' } })
  t.match(await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@admin.example.org', password: 'wrong' } }), { statusCode: 401 })
  await call(app, 'PATCH', `/api/admin/users/${ada.user.id}`, { token, body: { disabled: false } })
  await signIn(app, 'ada@admin.example.org')

  t.match(await call(app, 'PATCH', '/api/admin/users/00000000-0000-4000-8000-000000000000', { token, body: { disabled: true } }), { statusCode: 404 })
  t.match(await call(app, 'PATCH', '/api/admin/users/x', { token, body: { disabled: true } }), { statusCode: 400 })
})
