import * as bcrypt from '@node-rs/bcrypt'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { loadConfig } from '../../app/config.ts'
import { openDatabase } from '../../app/database/database.ts'
import { createUsers } from '../../app/users/users.ts'
import { silent } from '../support/embedded.ts'
import { mailTo } from '../support/outbox.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { call, password, register, signIn, testServer } from '../support/server.ts'
import { severable } from '../support/severable.ts'
import { smtpServer } from '../support/smtp.ts'

// Opening a database takes a second: most tests share a server, and have users of their own.
const { app, dataDir } = await testServer(t, { PUBLIC_URL: 'https://id.example.org', SESSION_LIMIT: 'off' })

// A server whose clock is moved by hand, and whose database can be cut off and looked into.
let now = Date.now()
const databaseUrl = await freshDatabase(t)
const database = await severable(t, databaseUrl)
const { app: pg, dataDir: pgDataDir } = await testServer(t, { DATABASE_URL: database.url }, { now: () => now })
const own = await openDatabase({ databaseUrl, dataDir: '/nowhere' }, silent)
t.teardown(() => own.close())
const users = createUsers(own)

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
    t.match(await call(app, 'GET', '/api/auth/me', { token }), { statusCode: 401, headers: { 'www-authenticate': /invalid_token/ }, body: { code: 'FST_TOKEN_INVALID', requestId: /^[0-9a-f]{32}$/ } })
  }
})

t.test('signing out ends the session, and with it both tokens', async t => {
  await register(app, 'ada@logout.example.org')
  const [here, there] = [await signIn(app, 'ada@logout.example.org'), await signIn(app, 'ada@logout.example.org')]
  t.equal((await call(app, 'POST', '/api/auth/logout', { token: here.accessToken })).statusCode, 204)

  const refused = { statusCode: 401, headers: { 'www-authenticate': 'Bearer error="invalid_token"' }, body: { code: 'FST_TOKEN_INVALID' } }
  t.match(await call(app, 'GET', '/api/auth/me', { token: here.accessToken }), refused)
  t.match(await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: here.refreshToken } }), refused)
  t.match(await call(app, 'POST', '/api/auth/logout', { token: here.accessToken }), refused)
  t.match(await call(app, 'GET', '/api/sessions', { token: there.accessToken }), { body: { sessions: { length: 1, 0: { id: there.session.id } } } })
})

t.test('an unknown user and a wrong password get one answer', async t => {
  await register(app, 'ada@same.example.org')
  const [unknown, wrong] = await Promise.all(['eve@same.example.org', 'ada@same.example.org'].map(email => call(app, 'POST', '/api/auth/login', { body: { email, password: 'a wrong password' } })))
  t.equal(unknown?.statusCode, 401)
  t.same({ ...unknown?.body, requestId: '' }, { ...wrong?.body, requestId: '' })
  t.same(Object.keys(unknown?.headers ?? {}), Object.keys(wrong?.headers ?? {}))
  t.equal(unknown?.headers['www-authenticate'], 'Bearer')
})

t.test('an unknown user costs as much work as a wrong password', async t => {
  await register(app, 'ada@work.example.org')
  const cheapest = { ada: Infinity, eve: Infinity }
  for (let round = 0; round < 9; round++) {
    for (const name of ['ada', 'eve'] as const) {
      // Of the processor, for which other processes do not count.
      const before = process.cpuUsage()
      await call(app, 'POST', '/api/auth/login', { body: { email: `${name}@work.example.org`, password: 'a wrong password' } })
      const { user, system } = process.cpuUsage(before)
      cheapest[name] = Math.min(cheapest[name], (user + system) / 1000)
    }
  }
  // Whatever else this one does only adds time: the cheapest of each compare.
  const ratio = cheapest.eve / cheapest.ada
  t.ok(ratio > 0.5 && ratio < 2, `${cheapest.eve} ms, and ${cheapest.ada} ms for a user`)
})

t.test('an address is registered once, and passwords that others have are refused', async t => {
  await register(app, 'ada@once.example.org')
  t.match(await call(app, 'POST', '/api/auth/register', { body: { email: 'ADA@once.example.org', password } }), { statusCode: 409 })
  for (const bad of ['password1', '1234567', 'x'.repeat(129)]) {
    t.match(await call(app, 'POST', '/api/auth/register', { body: { email: 'eve@once.example.org', password: bad } }), { statusCode: 400, body: { code: 'APP_PASSWORD_REFUSED' } })
  }
})

t.test('one definition of an address: who may register or be the first administrator signs in and gets mail', async t => {
  const configured = (email: string): boolean => {
    try {
      return loadConfig({ ADMIN_EMAIL: email, ADMIN_PASSWORD: password }).administrator !== null
    } catch {
      return false
    }
  }
  const send = async (path: string, body: object): Promise<number> => (await call(app, 'POST', `/api/auth/${path}`, { body })).statusCode

  for (const email of ['root@localhost', 'o\'ada+x@example.org', 'jörg@bücher.example', `${'x'.repeat(64)}@example.org`]) {
    t.ok(configured(email), email)
    t.equal(await send('register', { email, password }), 201, email)
    t.equal(await send('login', { email, password }), 200, email)
    const asked = t.equal(await send('password/forgot', { email }), 204, email)
    if (asked) t.match(await mailTo(dataDir, email), /tro_/, email)
  }
  for (const email of ['root', 'a@b@example.org', '.a@example.org', 'a..b@example.org', 'a@example.org.', `${'x'.repeat(65)}@example.org`, 'a b@example.org', '"a"@example.org', 'a@[127.0.0.1]', 'a@example.org\n']) {
    t.notOk(configured(email), email)
    for (const [path, body] of Object.entries({ register: { email, password }, login: { email, password }, 'password/forgot': { email } })) t.equal(await send(path, body), 400, `${path} ${email}`)
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

t.test('a database that fails does not use up a refresh token', async t => {
  await register(pg, 'ada@outage.example.org')
  const { refreshToken } = await signIn(pg, 'ada@outage.example.org')
  const refresh = async () => await call(pg, 'POST', '/api/auth/refresh', { body: { refreshToken } })

  await database.cut()
  t.match(await refresh(), { statusCode: 503, headers: { 'retry-after': '5' }, body: { code: 'APP_DATABASE_UNAVAILABLE' } })
  await database.mend()
  now += 11_000
  t.match(await refresh(), { statusCode: 200 }, 'its owner is not taken for a thief')
})

t.test('a database that fails does not use up a token to reset a password', async t => {
  const email = 'ada@outage-of-reset.example.org'
  await register(pg, email)
  await call(pg, 'POST', '/api/auth/password/forgot', { body: { email } })
  const [token = ''] = /tro_\S{56}/.exec(await mailTo(pgDataDir, email)) ?? []
  const reset = async () => await call(pg, 'POST', '/api/auth/password/reset', { body: { token, password: 'another fine password' } })

  await database.cut()
  t.match(await reset(), { statusCode: 503 })
  await database.mend()
  t.match(await reset(), { statusCode: 204 })
  await signIn(pg, email, 'another fine password')
})

t.test('the tokens of a user who was deleted are refused', async t => {
  await register(pg, 'ada@deleted.example.org')
  const { accessToken, refreshToken } = await signIn(pg, 'ada@deleted.example.org')
  await execute(databaseUrl, "delete from users where email = 'ada@deleted.example.org'")
  const refused = { statusCode: 401, headers: { 'www-authenticate': 'Bearer error="invalid_token"' }, body: { code: 'FST_TOKEN_INVALID' } }
  t.match(await call(pg, 'GET', '/api/auth/me', { token: accessToken }), refused)
  t.match(await call(pg, 'POST', '/api/auth/refresh', { body: { refreshToken } }), refused)
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

t.test('whoever is shut out while signing in stays out, and is not told of another password', async t => {
  const email = 'ada@shut-out.example.org'
  await register(pg, email)
  let session = ''
  pg.tokenRegistry.addHook('postSave', async ({ id, sub }) => {
    if (session !== '') return
    session = id
    await users.disable(sub)
  })
  t.match(await call(pg, 'POST', '/api/auth/login', { body: { email, password } }), { statusCode: 401, body: { code: 'APP_SIGN_IN_REFUSED' } })
  t.match(await pg.tokenRegistry.explain(session), { reason: 'disabled' })
})

t.test('a mail resets a password, once, and ends every session', async t => {
  await register(app, 'ada@reset.example.org')
  const { accessToken: token } = await signIn(app, 'ada@reset.example.org')
  const forgot = async (email: string) => await call(app, 'POST', '/api/auth/password/forgot', { body: { email } })
  const reset = async (resetToken: string, newPassword: string) => await call(app, 'POST', '/api/auth/password/reset', { body: { token: resetToken, password: newPassword } })

  const [known, unknown] = [await forgot('ADA@reset.example.org'), await forgot('eve@reset.example.org')]
  t.equal(known.statusCode, 204)
  t.same([known.statusCode, known.body, Object.keys(known.headers)], [unknown.statusCode, unknown.body, Object.keys(unknown.headers)])

  const mail = await mailTo(dataDir, 'ada@reset.example.org')
  const [, path = ''] = /https:\/\/id\.example\.org(\S+):\n/.exec(mail) ?? []
  t.ok(app.hasRoute({ method: 'POST', url: path }), 'the mail says where to send the token')
  const [, resetToken = ''] = /^(tro_\S{56})$/m.exec(mail) ?? []
  t.match(await reset(resetToken, 'password1'), { statusCode: 400, body: { code: 'APP_PASSWORD_REFUSED' } }, 'which leaves the token valid')
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

t.test('by SMTP the mail links to the page that takes the token', async t => {
  const smtp = await smtpServer(t)
  const { app } = await testServer(t, { SMTP_URL: smtp.url, MAIL_FROM: 'Us <us@example.org>', RESET_URL: 'https://app.example.org/reset?lang=en' })
  await register(app, 'ada@smtp.example.org')
  await call(app, 'POST', '/api/auth/password/forgot', { body: { email: 'ada@smtp.example.org' } })
  while (smtp.mails.length === 0) await setImmediate()

  const [mail] = smtp.mails
  t.strictSame(mail?.to, ['ada@smtp.example.org'])
  t.match(mail?.content, /^From: Us <us@example\.org>$/m)
  const text = mail?.content.replace(/=\n/g, '').replaceAll('=3D', '=') ?? ''
  const [, token = ''] = /^https:\/\/app\.example\.org\/reset\?lang=en#(tro_\S{56})$/m.exec(text) ?? []
  t.equal((await call(app, 'POST', '/api/auth/password/reset', { body: { token, password: 'another fine password' } })).statusCode, 204)
})

t.test('a bcrypt hash of an older system signs in, is replaced, and is in the way of nobody who does so at the same time', async t => {
  const at = async (path: string, body: object, token?: string) => await call(pg, 'POST', `/api/auth/${path}`, token === undefined ? { body } : { body, token })
  const { id } = await users.create({ email: 'old@example.org', passwordHash: await bcrypt.hash(password, 4) })
  const logins = (): Array<ReturnType<typeof call>> => Array.from({ length: 5 }, () => at('login', { email: 'old@example.org', password }))

  const all = await Promise.all(logins())
  for (const { statusCode } of all) t.equal(statusCode, 200)
  t.match((await users.credentials({ id }))?.passwordHash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
  const token = String(all[0]?.body['accessToken'])

  await users.setPasswordHash(id, await bcrypt.hash(password, 4))
  const raced = logins()
  t.match(await at('password/change', { currentPassword: password, newPassword: 'another fine password' }, token), { statusCode: 200 })
  await Promise.all(raced)
  await signIn(pg, 'old@example.org', 'another fine password')
})
