import { randomBytes } from 'node:crypto'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import bcrypt from 'bcryptjs'
import t from 'tap'
import { openDatabase } from '../../app/database/database.ts'
import { createUsers } from '../../app/users/users.ts'
import { childEnv } from '../support/child-env.ts'
import { silent, temporaryDirectory } from '../support/embedded.ts'
import { freshDatabase } from '../support/postgres.ts'
import { call, password, register, signIn, testServer } from '../support/server.ts'

const admin = { ADMIN_EMAIL: 'root@example.org', ADMIN_PASSWORD: 'administrators need long ones' }

// Opening a database takes a second: tests that need no server of their own share one, and have users of their own.
const { app, dataDir } = await testServer(t, { ...admin, PUBLIC_URL: 'https://id.example.org' })

t.test('register, sign in, me, sessions, refresh, revoke', async t => {
  const registered = await call(app, 'POST', '/api/auth/register', { body: { email: 'Ada@walk.example.org', password, name: 'Ada' } })
  t.match(registered, { statusCode: 201, body: { user: { email: 'Ada@walk.example.org', name: 'Ada', roles: [] } } })

  const login = await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@walk.EXAMPLE.org', password, device: { name: 'laptop' } } })
  t.match(login, {
    statusCode: 200,
    headers: { 'cache-control': 'no-store' },
    body: { accessToken: /^ey/, refreshToken: /^trr_.{56}$/, tokenType: 'Bearer', expiresIn: 900, user: registered.body['user'], session: { current: true, device: { name: 'laptop' } } }
  })
  const { accessToken, refreshToken, session } = login.body as { accessToken: string, refreshToken: string, session: { id: string } }

  t.match(await call(app, 'GET', '/api/auth/me', { token: accessToken }), { statusCode: 200, headers: { 'cache-control': 'no-store' }, body: { user: { name: 'Ada' }, session: { id: session.id, current: true } } })
  t.match(await call(app, 'GET', '/api/sessions', { token: accessToken }), { statusCode: 200, body: { sessions: [{ id: session.id, current: true, ipAddress: '127.0.0.1' }], cursor: null } })
  t.match(await call(app, 'GET', `/api/sessions/${session.id}`, { token: accessToken }), { statusCode: 200, body: { id: session.id } })

  const refreshed = await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken } })
  t.match(refreshed, { statusCode: 200, body: { session: { id: session.id }, expiresIn: 900 } })
  t.not(refreshed.body['refreshToken'], refreshToken)

  t.equal((await call(app, 'DELETE', `/api/sessions/${session.id}`, { token: accessToken })).statusCode, 204)
  for (const token of [accessToken, String(refreshed.body['accessToken'])]) {
    t.match(await call(app, 'GET', '/api/auth/me', { token }), { statusCode: 401, headers: { 'www-authenticate': /invalid_token/ }, body: { code: 'FST_TOKEN_INVALID', requestId: /.{36}/ } })
  }
})

t.test('an unknown user and a wrong password get one answer', async t => {
  await register(app, 'ada@same.example.org')
  const [unknown, wrong] = await Promise.all(['eve@same.example.org', 'ada@same.example.org'].map(email => call(app, 'POST', '/api/auth/login', { body: { email, password: 'a wrong password' } })))
  t.equal(unknown?.statusCode, 401)
  t.same({ ...unknown?.body, requestId: '' }, { ...wrong?.body, requestId: '' })
  t.same(Object.keys(unknown?.headers ?? {}), Object.keys(wrong?.headers ?? {}))
})

t.test('an address is registered once, and passwords that others have are refused', async t => {
  await register(app, 'ada@once.example.org')
  t.match(await call(app, 'POST', '/api/auth/register', { body: { email: 'ADA@once.example.org', password } }), { statusCode: 409 })
  for (const bad of ['password1', '1234567', 'x'.repeat(129)]) {
    t.match(await call(app, 'POST', '/api/auth/register', { body: { email: 'eve@once.example.org', password: bad } }), { statusCode: 400, body: { code: 'APP_PASSWORD_REFUSED' } })
  }
})

t.test('a refresh token that is used again after ten seconds ends its session', async t => {
  let now = Date.now()
  const { app } = await testServer(t, {}, { now: () => now })
  await register(app, 'ada@reuse.example.org')
  const { accessToken, refreshToken } = await signIn(app, 'ada@reuse.example.org')
  const refresh = async (token: string) => await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: token } })

  const first = await refresh(refreshToken)
  const again = await refresh(refreshToken)
  t.equal(again.body['refreshToken'], first.body['refreshToken'], 'a lost answer is given again')

  now += 11_000
  t.match(await refresh(refreshToken), { statusCode: 401, body: { code: 'FST_TOKEN_INVALID' } })
  t.equal((await refresh(String(first.body['refreshToken']))).statusCode, 401)
  t.equal((await call(app, 'GET', '/api/auth/me', { token: accessToken })).statusCode, 401)
  for (const bad of ['trr_x', 'x'.repeat(60), accessToken.slice(0, 512)]) t.match(await refresh(bad), { statusCode: 401, body: { code: 'FST_TOKEN_INVALID' } })
})

t.test('nobody sees or ends the sessions of somebody else, nor learns that they exist', async t => {
  for (const name of ['ada', 'eve']) await register(app, `${name}@others.example.org`)
  const [ada, eve] = [await signIn(app, 'ada@others.example.org'), await signIn(app, 'eve@others.example.org')]
  const another = randomBytes(18).toString('base64url')

  for (const [method, path] of [['GET', ''], ['DELETE', ''], ['GET', '/ending']] as const) {
    const [foreign, random] = await Promise.all([ada.session.id, another].map(id => call(app, method, `/api/sessions/${id}${path}`, { token: eve.accessToken })))
    t.match(foreign, { statusCode: 404, body: { code: 'FST_SESSION_NOT_FOUND' } })
    t.same({ ...foreign?.body, requestId: '' }, { ...random?.body, requestId: '' })
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

t.test('a password change ends the other sessions, unless it is asked not to', async t => {
  await register(app, 'ada@change.example.org')
  const [here, there] = [await signIn(app, 'ada@change.example.org'), await signIn(app, 'ada@change.example.org')]
  const change = async (body: object) => await call(app, 'POST', '/api/auth/password/change', { token: here.accessToken, body })

  t.match(await change({ currentPassword: 'wrong', newPassword: 'another fine password' }), { statusCode: 403, body: { code: 'APP_PASSWORD_WRONG' } })
  t.match(await change({ currentPassword: password, newPassword: 'qwertyuiop' }), { statusCode: 400 })
  t.match(await change({ currentPassword: password, newPassword: 'another fine password', endOthers: false }), { statusCode: 200, body: { ended: 0 } })
  t.equal((await call(app, 'GET', '/api/auth/me', { token: there.accessToken })).statusCode, 200)
  t.match(await change({ currentPassword: 'another fine password', newPassword: password }), { statusCode: 200, body: { ended: 1 } })
  t.equal((await call(app, 'GET', '/api/auth/me', { token: there.accessToken })).statusCode, 401)
  t.equal((await call(app, 'GET', '/api/auth/me', { token: here.accessToken })).statusCode, 200)
})

t.test('no sign-in with the old password outlives a password change that it races', async t => {
  await register(app, 'ada@race.example.org')
  const { accessToken: token } = await signIn(app, 'ada@race.example.org')
  const [changed, ...raced] = await Promise.all([
    call(app, 'POST', '/api/auth/password/change', { token, body: { currentPassword: password, newPassword: 'another fine password' } }),
    ...Array.from({ length: 20 }, () => call(app, 'POST', '/api/auth/login', { body: { email: 'ada@race.example.org', password } }))
  ])
  t.equal(changed?.statusCode, 200)
  for (const { statusCode, body } of raced) {
    if (statusCode === 200) t.equal((await call(app, 'GET', '/api/auth/me', { token: String(body['accessToken']) })).statusCode, 401)
  }
  t.match(await call(app, 'GET', '/api/sessions', { token }), { body: { sessions: { length: 1 } } })
})

t.test('a mail resets a password, once, and ends every session', async t => {
  await register(app, 'ada@reset.example.org')
  const { accessToken: token } = await signIn(app, 'ada@reset.example.org')
  const forgot = async (email: string) => await call(app, 'POST', '/api/auth/password/forgot', { body: { email } })
  const reset = async (resetToken: string, newPassword: string) => await call(app, 'POST', '/api/auth/password/reset', { body: { token: resetToken, password: newPassword } })

  const [known, unknown] = [await forgot('ADA@reset.example.org'), await forgot('eve@reset.example.org')]
  t.equal(known.statusCode, 204)
  t.same([known.statusCode, known.body, Object.keys(known.headers)], [unknown.statusCode, unknown.body, Object.keys(unknown.headers)])

  const mail = await newestMail(dataDir)
  t.match(mail, 'To: ada@reset.example.org')
  const [, resetToken = ''] = /https:\/\/id\.example\.org\/reset-password#(tro_\S{56})/.exec(mail) ?? []
  t.match(await reset(resetToken, 'password1'), { statusCode: 400, body: { code: 'APP_PASSWORD_REFUSED' } }, 'which leaves the link valid')
  t.equal((await reset(resetToken, 'another fine password')).statusCode, 204)
  t.equal((await call(app, 'GET', '/api/auth/me', { token })).statusCode, 401)
  const { session } = await signIn(app, 'ada@reset.example.org', 'another fine password')
  t.ok(session.id)
  t.match(await reset(resetToken, 'a third fine password'), { statusCode: 400, body: { code: 'APP_RESET_REFUSED' } })

  const { id } = (await signIn(app, 'ada@reset.example.org', 'another fine password')).user
  const { token: foreign } = await app.tokenRegistry.issue({ sub: id, use: 'once', client: 'something-else' })
  t.match(await reset(foreign, 'a third fine password'), { statusCode: 400, body: { code: 'APP_RESET_REFUSED' } }, 'a one-time token for something else')
  for (const bad of ['x', 'tro_'.padEnd(60, 'A'), token]) t.equal((await reset(bad, 'a third fine password')).statusCode, 400)
})

t.test('a bcrypt hash of an older system signs in, and is replaced', async t => {
  const databaseUrl = await freshDatabase(t)
  const database = await openDatabase({ databaseUrl, dataDir: '/nowhere' }, silent)
  t.teardown(() => database.close())
  const users = createUsers(database)
  await users.create({ email: 'old@example.org', passwordHash: await bcrypt.hash(password, 4) })

  const { app } = await testServer(t, { DATABASE_URL: databaseUrl })
  await signIn(app, 'old@example.org')
  t.match((await users.credentials({ email: 'old@example.org' }))?.passwordHash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
  await signIn(app, 'old@example.org')
})

t.test('what is refused is limited too, and 401s carry the headers of CORS and helmet', async t => {
  const { app } = await testServer(t, { RATE_LIMIT_GLOBAL: '6/1h', RATE_LIMIT_AUTH: '2/15m', CORS_ORIGIN: 'https://app.example.org' })
  const get = async (url: string) => await app.inject({ url, headers: { origin: 'https://app.example.org' } })

  const refused = await get('/api/sessions')
  t.equal(refused.statusCode, 401)
  t.match(refused.headers, { 'access-control-allow-origin': 'https://app.example.org', 'x-content-type-options': 'nosniff', 'www-authenticate': 'Bearer' })
  t.equal((await get('/nowhere')).statusCode, 404)
  for (const expected of [401, 401, 429]) {
    t.equal((await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@limit.example.org', password } })).statusCode, expected)
  }
  t.equal((await get('/nowhere')).statusCode, 404)
  const limited = await get('/nowhere')
  t.match(limited, { statusCode: 429, headers: { 'retry-after': /^\d+$/ } })
  t.match(limited.json(), { code: 'APP_RATE_LIMIT', statusCode: 429, requestId: /./ })

  const preflight = await app.inject({ method: 'OPTIONS', url: '/api/sessions', headers: { origin: 'https://app.example.org', 'access-control-request-method': 'DELETE' } })
  t.match(preflight, { statusCode: 204, headers: { 'access-control-allow-origin': 'https://app.example.org' } })
})

t.test('input that is no input of ours is a 400 that says what to change', async t => {
  const post = async (payload: string | Buffer) => await app.inject({ method: 'POST', url: '/api/auth/register', payload, headers: { 'content-type': 'application/json' } })
  const user = { email: 'ada@input.example.org', password }
  const bodies: Array<string | Buffer> = [
    '', '{', '[]', 'null', '"text"', JSON.stringify({ ...user, admin: true }), JSON.stringify({ ...user, name: 7 }), JSON.stringify({ ...user, name: null }), JSON.stringify({ ...user, email: ['ada@input.example.org'] }),
    JSON.stringify({ ...user, email: 'not one' }), JSON.stringify({ email: user.email }), '{"__proto__":{"a":1}}', '{"\\u005f_proto__":{"a":1}}', '{"constructor":{"prototype":{}}}',
    JSON.stringify({ ...user, name: 'a\u0000b' }), JSON.stringify({ ...user, name: '\ud800' }), `${'['.repeat(33)}${']'.repeat(33)}`, '{"email":1e400}',
    Buffer.concat([Buffer.from('{"email":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])
  ]
  for (const body of bodies) {
    const response = await post(body)
    t.match(response.json(), { statusCode: 400, code: /^FST_/, message: /./ }, String(body))
  }
  t.equal((await post(JSON.stringify({ ...user, name: 'x'.repeat(300_000) }))).statusCode, 413)
  t.equal((await app.inject({ method: 'POST', url: '/api/auth/register', payload: '<a/>', headers: { 'content-type': 'text/xml' } })).statusCode, 415)
  t.equal((await app.inject({ method: 'PUT', url: '/api/auth/register' })).statusCode, 404)
  t.equal((await app.inject('/api/sessions/%00')).statusCode, 400)
})

t.test('readiness tells which part fails, and that the server is about to stop', async t => {
  const databaseUrl = await freshDatabase(t)
  const { app, drain } = await testServer(t, { DATABASE_URL: databaseUrl })
  t.match(await call(app, 'GET', '/health/live'), { statusCode: 200, body: { status: 'ok' } })
  t.match(await call(app, 'GET', '/health/ready'), { statusCode: 200, body: { status: 'ok', checks: { store: 'ok', database: 'ok' } } })
  await app.tokenRegistry.close()
  drain()
  t.match(await call(app, 'GET', '/health/ready'), { statusCode: 503, body: { status: 'fail', checks: { database: 'ok' } } })
  t.equal((await call(app, 'GET', '/health/live')).statusCode, 200)
})

t.test('no token, password or secret stands in a log or in a file of the database', async t => {
  const { app, dataDir, log } = await testServer(t, admin)
  await register(app, 'ada@grep.example.org')
  const ada = await signIn(app, 'ada@grep.example.org')
  const refreshed = await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: ada.refreshToken } })
  await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@grep.example.org', password: 'a password that is wrong' } })
  await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@grep.example.org', password: 'a password in a bad body', more: 1 } })
  await call(app, 'GET', '/api/auth/me', { token: `${ada.accessToken}x` })
  await call(app, 'POST', '/api/auth/password/forgot', { body: { email: 'ada@grep.example.org' } })
  const [resetToken = ''] = /tro_\S{56}/.exec(await newestMail(dataDir)) ?? []
  await call(app, 'POST', '/api/auth/password/reset', { body: { token: resetToken, password: 'another fine password' } })
  await app.close()

  const keys = await Promise.all((await readdir(dataDir)).filter(name => name.endsWith('.key')).map(name => readFile(join(dataDir, name), 'utf8')))
  t.equal(keys.length, 2)
  const secrets = [
    password, 'a password that is wrong', 'a password in a bad body', 'another fine password', admin.ADMIN_PASSWORD, ada.accessToken, ada.refreshToken, resetToken,
    String(refreshed.body['accessToken']), String(refreshed.body['refreshToken']), ...keys.map(key => key.trim())
  ]
  const files = await filesIn(join(dataDir, 'db'))
  for (const secret of secrets) {
    t.ok(secret.length > 8)
    t.notOk(log.some(line => line.includes(secret)), 'in the log')
    t.notOk(files.some(file => file.includes(secret)), 'in the database')
  }
  t.ok(files.some(file => file.includes('ada@grep.example.org')), 'the files are those that hold the users')
})

t.test('the docs say of every route what it takes, gives and asks for, and pass a public linter', async t => {
  const { paths, ...document }: OpenApi = (await app.inject('/docs/json')).json()
  const directory = await temporaryDirectory(t)
  await writeFile(join(directory, 'openapi.json'), JSON.stringify({ ...document, paths }))
  const { stdout } = await promisify(execFile)('npx', ['redocly', 'lint', '--format=json', join(directory, 'openapi.json')], { env: { ...childEnv, REDOCLY_TELEMETRY: 'off' } })
    .catch((error: { stdout: string }) => error)
  t.same(JSON.parse(stdout).problems, [])

  const expected: Record<string, unknown> = {
    'post /api/auth/login': [],
    'get /api/auth/me': [{ session: [] }],
    'get /api/admin/users/{sub}/sessions': [{ session: ['sessions:admin'] }],
    'get /health/live': []
  }
  let routes = 0
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { summary, tags, responses, security }] of Object.entries(methods)) {
      routes++
      const route = `${method} ${path}`
      t.ok(summary && tags?.length === 1 && responses && security, route)
      if (expected[route] !== undefined) t.same(security, expected[route], route)
      const served = await app.inject({ method: method === 'get' ? 'GET' : 'DELETE', url: path.replace(/\{\w+\}/g, 'x') })
      if (method === 'get' || method === 'delete') t.equal(served.statusCode === 401, security?.length === 1, `${route} asks for what the docs say`)
    }
  }
  t.equal(routes, 18)
  t.match(await app.inject('/docs'), { statusCode: 200, headers: { 'content-type': /html/, 'content-security-policy': /^(?!.*upgrade).*script-src 'self' *;/ } })
  t.match(await app.inject('/api-docs'), { statusCode: 302, headers: { location: '/docs' } })
})

interface OpenApi {
  paths: Record<string, Record<string, { summary?: string, tags?: string[], responses?: object, security?: object[] }>>
}

/** Waits for the mail, which is written after the answer. */
async function newestMail (dataDir: string): Promise<string> {
  const outbox = join(dataDir, 'outbox')
  await mkdir(outbox, { recursive: true })
  const watcher = watch(outbox)
  try {
    for (;;) {
      const change = once(watcher, 'change')
      const [name] = (await readdir(outbox)).filter(file => file.endsWith('.txt')).sort().reverse()
      if (name !== undefined) return await readFile(join(outbox, name), 'utf8')
      await change
    }
  } finally {
    watcher.close()
  }
}

async function filesIn (directory: string): Promise<Buffer[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return await Promise.all(entries.filter(entry => entry.isFile()).map(entry => readFile(join(entry.parentPath, entry.name))))
}
