import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import pg from 'pg'
import t from 'tap'
import { notesIn, recordsOf, verifyLog, verifyReceipt } from '../../plugins/audit/verify/index.ts'
import { entriesOf } from '../support/audited.ts'
import { embeddedDataDir, temporaryDirectory } from '../support/embedded.ts'
import { mailTo } from '../support/outbox.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { call, password, register, signIn, testServer } from '../support/server.ts'

const admin = { ADMIN_EMAIL: 'root@example.org', ADMIN_PASSWORD: 'administrators need long ones' }
const other = 'another fine password'

const newSecret = (): string => randomBytes(32).toString('base64')

/** What was recorded while something was done: type, outcome and reason, without intents. */
async function during (app: FastifyInstance, work: () => Promise<unknown>): Promise<{ short: string[], entries: Awaited<ReturnType<typeof entriesOf>> }> {
  const before = (await entriesOf(app)).length
  await work()
  await app.audit.flush()
  const entries = (await entriesOf(app)).slice(before).filter(({ type }) => type !== 'intent')
  return { short: entries.map(({ type, outcome, reason }) => [type, outcome, ...reason === null ? [] : [reason]].join(' ')), entries }
}

t.test('what users and administrators do is recorded as theirs, and every type of it is in the docs', async t => {
  const { app, dataDir } = await testServer(t, { ...admin, SESSION_LIMIT: '2', SESSION_LIMIT_STRATEGY: 'refuse', SESSION_LIMIT_DEVICE: 'off' })
  const types = new Set<string>()
  const email = 'ada@example.org'
  const login = async (given = password, address = email) => await call(app, 'POST', '/api/auth/login', { body: { email: address, password: given } })
  const start = (await entriesOf(app)).filter(({ type }) => type !== 'intent')
  t.match(start, [{ type: 'audit.start' }, { type: 'server.start', data: { production: false, database: 'pglite', sessions: 'memory', sessionLimits: { perUser: 2 } } }, { type: 'user.register', data: { email: admin.ADMIN_EMAIL, roles: ['administrator'] } }])
  start.forEach(({ type }) => types.add(type))

  async function told (expected: string[], work: () => Promise<unknown>): ReturnType<typeof entriesOf> {
    const { short, entries } = await during(app, work)
    t.same(short, expected)
    entries.forEach(({ type }) => types.add(type))
    return entries
  }

  const [registered] = await told(['user.register success'], async () => await register(app, email))
  const sub = String(registered?.actor.sub)
  t.match(registered, { target: { kind: 'subject', id: sub, sub }, data: { email }, sealed: ['actor.ip', 'actor.userAgent', 'data.email'], requestId: /./ })
  t.match(await told(['user.register denied APP_USER_EMAIL_TAKEN'], async () => await call(app, 'POST', '/api/auth/register', { body: { email, password } })), [{ actor: { sub: null }, target: { sub } }])
  await told([], async () => await call(app, 'POST', '/api/auth/register', { body: { email, password: 'qwertyuiop' } }))

  const [wrong, unknown] = await told(['session.start failure APP_SIGN_IN_REFUSED', 'session.start failure APP_SIGN_IN_REFUSED'], async () => {
    await login('wrong')
    await login('wrong', 'eve@example.org')
  })
  t.match(wrong, { actor: { sub: null, ip: '127.0.0.1' }, target: { kind: 'subject', sub }, data: { email } }, 'who is meant can be told')
  t.match(unknown, { target: null, data: { email: 'eve@example.org' } })
  const [started] = await told(['session.start success'], async () => await login())
  t.match(started, { actor: { sub, ip: '127.0.0.1', userAgent: 'lightMyRequest' }, requestId: /./ })
  const ada = await signIn(app, email)
  t.match(await told(['session.start denied FST_SESSION_LIMIT'], async () => await login()), [{ actor: { sub } }])

  const refresh = async (token: string) => await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: token } })
  await told(['session.rotate success'], async () => await refresh(ada.refreshToken))
  await told(['request.refuse denied FST_TOKEN_INVALID'], async () => await refresh(`trr_${'x'.repeat(56)}`))
  const token = ada.accessToken
  await told(['request.refuse denied FST_TOKEN_INVALID'], async () => await call(app, 'GET', '/api/sessions', { token: 'x'.repeat(60) }))
  await told([], async () => {
    for (const url of ['/api/auth/me', '/api/sessions', '/api/devices']) t.equal((await call(app, 'GET', url, { token })).statusCode, 200)
  })

  const change = async (currentPassword: string) => await call(app, 'POST', '/api/auth/password/change', { token, body: { currentPassword, newPassword: other } })
  await told(['password.change denied APP_PASSWORD_WRONG'], async () => await change('wrong'))
  const changed = await told(['session.end success password_changed', 'session.end_all success password_changed', 'password.change success'], async () => await change(password))
  for (const { actor, requestId } of changed) t.same([actor.sub, requestId], [sub, changed[0]?.requestId])

  await told(['session.end success revoked'], async () => await call(app, 'POST', '/api/auth/logout', { token }))

  // Somebody who has got no mail yet.
  const forgetful = 'ben@example.org'
  await register(app, forgetful)
  const issued = await told(['password.forgot success', 'token.issue success'], async () => {
    await call(app, 'POST', '/api/auth/password/forgot', { body: { email: forgetful } })
    await mailTo(dataDir, forgetful)
  })
  for (const { actor } of issued) t.equal(actor.ip, '127.0.0.1')
  t.same(issued[0]?.target?.sub, issued[1]?.actor.sub, 'whose address it is can have it forgotten')
  const [once = ''] = /tro_\S{56}/.exec(await mailTo(dataDir, forgetful)) ?? []
  const reset = async (body: object) => await call(app, 'POST', '/api/auth/password/reset', { body })
  await told(['password.reset denied APP_RESET_REFUSED'], async () => await reset({ token: `tro_${'x'.repeat(56)}`, password }))
  const resets = await told(['token.consume success', 'session.end success password_changed', 'session.end_all success password_changed', 'password.reset success'], async () => await reset({ token: once, password: other }))
  t.match(resets[3], { actor: { sub: issued[1]?.actor.sub }, target: { kind: 'subject', id: issued[1]?.actor.sub } })

  const again = await signIn(app, email, other)
  const { body: { session } } = await call(app, 'GET', '/api/auth/me', { token: again.accessToken })
  const { id: device } = (session as { device: { id: string } }).device
  const [named] = await told(['device.change success'], async () => await call(app, 'PATCH', `/api/devices/${device}`, { token: again.accessToken, body: { name: 'Ada\'s phone', trusted: true } }))
  t.match(named, { target: { kind: 'device', id: device, sub }, data: { name: 'Ada\'s phone', trusted: true }, sealed: ['actor.ip', 'actor.userAgent', 'data.name'] })
  await told(['device.forget denied FST_SESSION_DEVICE_NOT_FOUND'], async () => await call(app, 'DELETE', `/api/devices/${'x'.repeat(16)}`, { token: again.accessToken }))
  const forgotten = await told(['session.end success revoked', 'device.forget success'], async () => await call(app, 'DELETE', `/api/devices/${device}`, { token: again.accessToken }))
  for (const { actor } of forgotten) t.match(actor, { sub, ip: '127.0.0.1' })

  const [here, there] = [await signIn(app, email, other), await signIn(app, email, other)]
  t.match(await told(['session.end success revoked'], async () => await call(app, 'DELETE', `/api/sessions/${there.session.id}`, { token: here.accessToken })), [{ actor: { sub }, target: { kind: 'session', id: there.session.id } }])

  const root = await signIn(app, admin.ADMIN_EMAIL, admin.ADMIN_PASSWORD)
  const administer = async (method: 'GET' | 'DELETE' | 'PATCH', path: string, body?: object) => await call(app, method, `/api/admin/users/${sub}${path}`, { token: root.accessToken, ...body !== undefined && { body } })
  const acts = [
    ...await told(['admin.sessions.list success'], async () => await administer('GET', '/sessions')),
    ...await told(['session.end success revoked', 'session.end_all success revoked'], async () => await administer('DELETE', '/sessions')),
    ...await told(['session.end_all success disabled', 'user.disable success'], async () => await administer('PATCH', '', { disabled: true }))
  ]
  for (const { type, actor, target } of acts) {
    t.equal(actor.sub, root.user.id, type)
    t.equal(target?.sub, sub, type)
  }
  await told(['session.start denied APP_USER_DISABLED'], async () => await login(other))
  await told(['user.enable success'], async () => await administer('PATCH', '', { disabled: false }))
  await told(['user.disable denied APP_USER_NOT_FOUND'], async () => await call(app, 'PATCH', '/api/admin/users/00000000-0000-4000-8000-000000000000', { token: root.accessToken, body: { disabled: true } }))

  const docs = await readFile('docs/audit.md', 'utf8')
  const table = docs.split(/^## /m).find(part => part.startsWith('What the reference server adds')) ?? ''
  const own = [...types].filter(type => !/^(session|token|audit|request)\./.test(type))
  t.same([...table.matchAll(/^\| (`.*) \|.*\|$/gm)].flatMap(([, cell = '']) => [...cell.matchAll(/`([^`]+)`/g)].map(([, type]) => type)).sort(), own.sort())

  const lines = []
  for await (const line of app.audit.lines()) lines.push(line)
  const text = lines.join('\n')
  for (const secret of [email, sub, 'eve@', '127.0.0.1', 'Ada\'s phone', once, token, password, ada.refreshToken.slice(0, 30)]) t.notOk(text.includes(secret), `${secret} is not in the log`)
  t.match(await app.audit.verify(), { ok: true })
  t.same(await app.audit.unresolved(Date.now() + 1000), [])
})

t.test('administrators read the log at /audit, auditors what is sealed too, others nothing; receipts convince outsiders', async t => {
  const databaseUrl = await freshDatabase(t)
  const { app } = await testServer(t, { ...admin, DATABASE_URL: databaseUrl })
  await register(app, 'ada@example.org')
  const [ada, root] = [await signIn(app, 'ada@example.org'), await signIn(app, admin.ADMIN_EMAIL, admin.ADMIN_PASSWORD)]
  for (const path of ['entries', 'stream', 'checkpoint', 'proof/inclusion?index=0&size=1', 'proof/consistency?from=1&to=1', `receipts/${ada.session.id}`]) {
    t.equal((await call(app, 'GET', `/audit/${path}`)).statusCode, 401, path)
    t.match(await call(app, 'GET', `/audit/${path}`, { token: ada.accessToken }), { statusCode: 403, body: { code: 'FST_SESSION_SCOPE' } }, path)
  }
  const get = async (path: string) => await call(app, 'GET', `/audit/${path}`, { token: root.accessToken })
  await call(app, 'POST', '/api/auth/logout', { token: ada.accessToken })
  t.match(await get(`entries?sub=${ada.user.id}&type=session.end`), {
    statusCode: 200,
    headers: { 'cache-control': 'no-store' },
    body: { entries: [{ type: 'session.end', actor: { sub: ada.user.id, ip: null }, target: { id: ada.session.id }, sealed: ['actor.ip', 'actor.userAgent'] }], cursor: null }
  })
  await execute(databaseUrl, 'update users set roles = array_append(roles, \'auditor\') where email = \'ada@example.org\'')
  const { accessToken: token } = await signIn(app, 'ada@example.org')
  t.match(await call(app, 'GET', '/audit/entries?type=user.register', { token }), { statusCode: 200, body: { entries: [{ data: { email: 'ada@example.org' }, actor: { ip: '127.0.0.1' } }, {}] } })
  const { body: receipt } = await get(`receipts/${ada.session.id}`)
  t.match(verifyReceipt(receipt as never, { vkeys: [...app.audit.vkeys] }), { ok: true, entry: { reason: 'revoked' } })
  t.match(await get('receipts/unknown'), { statusCode: 404, body: { code: 'FST_AUDIT_NOT_FOUND', requestId: /./ } })
  t.match(await get('proof/inclusion?index=0&size=100000'), { statusCode: 400, body: { code: 'FST_AUDIT_RANGE' } })
  t.match(await get('entries?cursor=foreign'), { statusCode: 400, body: { code: 'FST_AUDIT_RANGE' } })
  t.match(await get('entries?typo=1'), { statusCode: 400 })
})

t.test('the log outlives the server; keys of its own can be given to it, and the secret that it began with can go', async t => {
  const dataDir = await embeddedDataDir(t)
  const elsewhere = await temporaryDirectory(t)
  const [old, fresh, master] = [newSecret(), newSecret(), newSecret()]
  const signingKey = String(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }))
  let outside: string[] = []
  let vkeys: readonly string[] = []
  async function run (env: Record<string, string>, use: (app: FastifyInstance, log: readonly string[]) => Promise<void>): Promise<void> {
    const { app, log } = await testServer(t, { DATA_DIR: dataDir, AUDIT_ANCHOR_FILE: join(elsewhere, 'anchor'), AUDIT_COPY: join(elsewhere, 'copy'), ...env })
    await use(app, log)
    t.match(await app.audit.verify({ outside }), { ok: true })
    vkeys = app.audit.vkeys
    await app.close()
    outside = notesIn(await readFile(join(elsewhere, 'anchor'), 'utf8'))
  }
  const rewrapped = (log: readonly string[]): boolean => log.some(line => line.includes('encrypted by the first secret'))
  let sub = ''

  await run({ TOKEN_SECRET: old }, async (app, log) => {
    await register(app, 'ada@example.org')
    sub = (await signIn(app, 'ada@example.org')).user.id
    t.notOk(rewrapped(log))
    t.ok(log.some(line => line.includes(String(app.audit.vkeys[0]))), 'the log of the server tells the public key')
  })
  const former = vkeys.join(',')
  await run({ TOKEN_SECRET: old, AUDIT_MASTER_KEY: master, AUDIT_SIGNING_KEY: signingKey, AUDIT_FORMER_KEYS: former }, async (app, log) => {
    t.ok(rewrapped(log))
    t.match(app.audit.vkeys, [/./, former])
    await signIn(app, 'ada@example.org')
  })
  await run({ TOKEN_SECRET: fresh, AUDIT_MASTER_KEY: master, AUDIT_SIGNING_KEY: signingKey, AUDIT_FORMER_KEYS: former }, async (app, log) => {
    t.notOk(rewrapped(log))
    const { entries } = await app.audit.entries({ sub, type: 'session.start' }, { personal: true })
    t.match(entries, [{ actor: { sub, ip: '127.0.0.1' } }, { actor: { sub } }])
  })
  await t.rejects(testServer(t, { DATA_DIR: dataDir, TOKEN_SECRET: old }), { code: 'FST_AUDIT_KEY' })

  const names = (await readdir(elsewhere)).filter(name => name.startsWith('copy'))
  async function * lines (): AsyncGenerator<string> {
    for (const name of names.sort()) yield * (await readFile(join(elsewhere, name), 'utf8')).split('\n')
  }
  t.match(await verifyLog(recordsOf(lines()), { vkeys: [...vkeys], outside }), { ok: true }, 'the copies are the whole log')
})

t.test('where the log cannot be written, nothing is changed; it goes on when it can', async t => {
  const databaseUrl = await freshDatabase(t)
  const { app } = await testServer(t, { ...admin, DATABASE_URL: databaseUrl })
  await register(app, 'ada@example.org')
  const ada = await signIn(app, 'ada@example.org')
  const root = await signIn(app, admin.ADMIN_EMAIL, admin.ADMIN_PASSWORD)

  // Users can be read and written all the while.
  const holder = new pg.Client({ connectionString: databaseUrl })
  await holder.connect()
  await holder.query('begin; lock table audit_head')
  const unavailable = { statusCode: 503, headers: { 'retry-after': /^\d+$/ }, body: { code: 'FST_AUDIT_UNAVAILABLE', requestId: /./ } }
  const refused = await Promise.all([
    call(app, 'POST', '/api/auth/register', { body: { email: 'eve@example.org', password } }),
    call(app, 'POST', '/api/auth/login', { body: { email: 'ada@example.org', password } }),
    call(app, 'POST', '/api/auth/login', { body: { email: 'ada@example.org', password: 'wrong' } }),
    call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: ada.refreshToken } }),
    call(app, 'POST', '/api/auth/password/change', { token: ada.accessToken, body: { currentPassword: password, newPassword: other } }),
    call(app, 'DELETE', `/api/sessions/${ada.session.id}`, { token: ada.accessToken }),
    call(app, 'PATCH', `/api/admin/users/${ada.user.id}`, { token: root.accessToken, body: { disabled: true } }),
    call(app, 'GET', `/api/admin/users/${ada.user.id}/sessions`, { token: root.accessToken })
  ])
  for (const answer of refused) t.match(answer, unavailable)
  t.match(await call(app, 'GET', '/api/auth/me', { token: ada.accessToken }), { statusCode: 200 }, 'what changes nothing is served')
  await holder.end()

  t.match(await call(app, 'POST', '/api/auth/register', { body: { email: 'eve@example.org', password } }), { statusCode: 201 }, 'by itself')
  t.match(await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken: ada.refreshToken } }), { statusCode: 200 })
  await signIn(app, 'ada@example.org')
  t.match(await app.audit.verify(), { ok: true })
})

t.test('a password whose change ends no sessions is not changed; a user who is shut out while that fails stays so', async t => {
  const { app } = await testServer(t, admin)
  await register(app, 'ada@example.org')
  const [ada, thief] = [await signIn(app, 'ada@example.org'), await signIn(app, 'ada@example.org')]
  let failing = true
  app.tokenRegistry.addHook('preRevoke', () => { if (failing) throw Object.assign(new Error('away'), { statusCode: 503, code: 'TEST_AWAY' }) })
  const change = async () => await call(app, 'POST', '/api/auth/password/change', { token: ada.accessToken, body: { currentPassword: password, newPassword: other } })
  const root = await signIn(app, admin.ADMIN_EMAIL, admin.ADMIN_PASSWORD)
  const disable = async () => await call(app, 'PATCH', `/api/admin/users/${ada.user.id}`, { token: root.accessToken, body: { disabled: true } })
  t.match((await during(app, change)).short, ['password.change failure TEST_AWAY'])
  failing = false
  t.match(await change(), { statusCode: 200, body: { ended: 1 } }, 'it can be asked for again')
  t.equal((await call(app, 'GET', '/api/auth/me', { token: thief.accessToken })).statusCode, 401)
  failing = true
  t.match((await during(app, disable)).short, [/refuse/, 'user.disable failure TEST_AWAY'])
  failing = false
  t.match(await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@example.org', password: other } }), { statusCode: 403 })
  t.match(await disable(), { statusCode: 200, body: { ended: 1 } })
})
