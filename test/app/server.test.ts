import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { InjectOptions } from 'fastify'
import t from 'tap'
import { childEnv } from '../support/child-env.ts'
import { temporaryDirectory } from '../support/embedded.ts'
import { mailTo } from '../support/outbox.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { call, password, register, signIn, testServer } from '../support/server.ts'
import { severable } from '../support/severable.ts'

const origin = 'https://app.example.org'
const admin = { ADMIN_EMAIL: 'root@example.org', ADMIN_PASSWORD: 'administrators need long ones' }

// Opening a database takes a second: tests that need no server of their own share one, and have users of their own.
const { app, log } = await testServer(t, { CORS_ORIGIN: origin, TRUST_PROXY: '127.0.0.1' })

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
})

t.test('a page of an allowed origin may use every method, and read what it is told of limits and tokens', async t => {
  for (const method of ['PATCH', 'DELETE']) {
    const preflight = await app.inject({ method: 'OPTIONS', url: '/api/sessions', headers: { origin, 'access-control-request-method': method, 'access-control-request-headers': 'authorization' } })
    t.match(preflight, { statusCode: 204, headers: { 'access-control-allow-origin': origin, 'access-control-allow-headers': 'authorization' } })
    t.match(preflight.headers['access-control-allow-methods'], new RegExp(`\\b${method}\\b`))
  }
  const { headers } = await app.inject({ url: '/api/sessions', headers: { origin } })
  for (const name of ['retry-after', 'www-authenticate', 'x-ratelimit-remaining']) t.match(headers['access-control-expose-headers'], new RegExp(name, 'i'))
})

t.test('showing tokens does not use up the limit of signing in', async t => {
  const { app } = await testServer(t, { RATE_LIMIT_AUTH: '4/15m' })
  await register(app, 'ada@office.example.org')
  const { accessToken: token, refreshToken } = await signIn(app, 'ada@office.example.org')
  for (let i = 0; i < 5; i++) {
    t.equal((await call(app, 'GET', '/api/auth/me', { token })).statusCode, 200)
    t.equal((await call(app, 'POST', '/api/auth/refresh', { body: { refreshToken } })).statusCode, 200)
  }
  t.equal((await call(app, 'POST', '/api/auth/logout', { token })).statusCode, 204)
  await signIn(app, 'ada@office.example.org')

  t.equal((await call(app, 'POST', '/api/auth/password/forgot', { body: { email: 'ada@office.example.org' } })).statusCode, 204)
  for (const path of ['register', 'login', 'password/forgot', 'password/reset']) t.equal((await call(app, 'POST', `/api/auth/${path}`, { body: {} })).statusCode, 429, path)
})

t.test('probes are not limited, and use up nobody\'s limit', async t => {
  const { app } = await testServer(t, { RATE_LIMIT_GLOBAL: '2/1h' })
  for (let i = 0; i < 5; i++) {
    for (const url of ['/health/live', '/health/ready']) t.equal((await call(app, 'GET', url)).statusCode, 200, url)
  }
  for (const expected of [404, 404, 429]) t.equal((await call(app, 'GET', '/nowhere')).statusCode, expected)
})

t.test('a client is its address, whatever port a proxy forwards with it', async t => {
  const { app } = await testServer(t, { TRUST_PROXY: '127.0.0.1', RATE_LIMIT_AUTH: '2/15m' })
  await register(app, 'ada@proxy.example.org')
  const login = async (forwarded: string) => await app.inject({
    method: 'POST',
    url: '/api/auth/login',
    headers: { 'x-forwarded-for': forwarded },
    payload: { email: 'ada@proxy.example.org', password }
  })
  const clients: Array<[string[], Array<string | null>]> = [
    [['203.0.113.7:1111', '203.0.113.7', '203.0.113.7:2222'], ['203.0.113.7', '203.0.113.7']],
    [['[2001:db8::1]:1111', '[2001:db8::1]', '2001:db8::1'], ['2001:db8::1', '2001:db8::1']],
    [['unknown', '_hidden', '203.0.113.300:1'], [null, null]]
  ]
  for (const [[first = '', second = '', third = ''], addresses] of clients) {
    const answers = [await login(first), await login(second)]
    t.strictSame(answers.map(answer => answer.json().session?.ipAddress), addresses, first)
    t.equal((await login(third)).statusCode, 429, third)
  }
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

t.test('a URL that the router cannot read is refused, limited and answered as any other', async t => {
  const { app } = await testServer(t, { RATE_LIMIT_GLOBAL: '5/1h', CORS_ORIGIN: origin, TRUST_PROXY: '127.0.0.1' })
  const get = async (url: string) => await app.inject({ url, headers: { origin, 'x-forwarded-for': '203.0.113.7' } })
  const refused: Record<string, object> = {
    '/api/sessions/%': { statusCode: 400, code: 'FST_INPUT_URL', error: 'Bad Request' },
    '/api/sessions/%E0%A4%A': { statusCode: 400, code: 'FST_INPUT_URL', error: 'Bad Request' },
    [`/api/sessions/${'x'.repeat(300)}`]: { statusCode: 400, code: 'FST_ERR_VALIDATION', error: 'Bad Request' }
  }
  for (const [url, body] of Object.entries(refused)) {
    const answer = await get(url)
    t.strictSame(Object.keys(answer.json()), ['statusCode', 'code', 'error', 'message', 'requestId'])
    t.match(answer.json(), { ...body, message: /./, requestId: /^[0-9a-f]{32}$/ })
    t.match(answer, { statusCode: answer.json().statusCode, headers: { 'access-control-allow-origin': origin, 'x-content-type-options': 'nosniff' } })
  }
  for (const expected of [404, 404, 429]) t.equal((await get('/nowhere')).statusCode, expected, 'they counted')
  t.equal((await get('/api/sessions/%')).statusCode, 429)
})

const operators = 'token-of-operators'

t.test('readiness tells which part fails, until it works again, and that the server is about to stop', async t => {
  const database = await severable(t, await freshDatabase(t))
  const { app } = await testServer(t, { DATABASE_URL: database.url, METRICS_TOKEN: operators, SHUTDOWN_DELAY: '1h' })
  const ready = async () => await call(app, 'GET', '/health/ready', { token: operators })
  // What the parts said is said again for a second.
  const until = async (status: number) => {
    const late = performance.now() + 10_000
    for (let answer = await ready(); ; answer = await ready()) if (answer.statusCode === status || performance.now() > late) return answer
  }
  t.match(await call(app, 'GET', '/health/live'), { statusCode: 200, body: { status: 'ok' } })
  t.match(await ready(), { statusCode: 200, body: { status: 'ok', checks: { store: { status: 'ok' }, database: { status: 'ok' }, audit: { status: 'ok', required: true } } } })
  t.same((await call(app, 'GET', '/health/ready')).body, { status: 'ok' }, 'who is no operator is told no more')
  await database.cut()
  t.match(await until(503), { statusCode: 503, body: { status: 'fail', checks: { store: { status: 'ok' }, database: { status: 'fail' } } } })
  t.equal((await call(app, 'GET', '/health/live')).statusCode, 200)
  await database.mend()
  t.match(await until(200), { statusCode: 200, body: { status: 'ok', checks: { database: { status: 'ok' } } } })

  app.health.drain()
  t.match(await ready(), { statusCode: 503, body: { status: 'fail', draining: true, checks: { database: { status: 'ok' } } } })
  t.equal((await call(app, 'GET', '/health/live')).statusCode, 200)
})

t.test('in production no stack is logged', async t => {
  const keys = { TOKEN_SECRET: randomBytes(32).toString('hex'), JWT_SECRET: randomBytes(32).toString('hex') }
  for (const NODE_ENV of ['production', 'development']) {
    const database = await severable(t, await freshDatabase(t))
    const { app, log } = await testServer(t, { NODE_ENV, ...keys, DATABASE_URL: database.url })
    await database.cut()
    t.equal((await call(app, 'POST', '/api/auth/login', { body: { email: 'ada@example.org', password } })).statusCode, 503)
    await call(app, 'POST', '/api/auth/password/forgot', { body: { email: 'ada@example.org' } })
    await app.close()
    const failures = log.filter(line => line.includes('"err":'))
    t.ok(failures.length >= 2, 'a request and work in the background failed')
    for (const line of failures) t.equal(/"stack"|\\n +at /.test(line), NODE_ENV === 'development', line)
    for (const line of failures) t.match(line, /The database does not answer|The audit log is not available/)
  }
})

t.test('a request has one name in its answer, in each line of the log and in the audit log', async t => {
  const [traceId, auditor] = ['4bf92f3577b34da6a3ce929d0e0e4736', { ADMIN_EMAIL: 'root@example.org', ADMIN_PASSWORD: 'a password of the root' }]
  const { app, log } = await testServer(t, auditor)
  const { accessToken } = await signIn(app, auditor.ADMIN_EMAIL, auditor.ADMIN_PASSWORD)
  log.length = 0
  const headers = { traceparent: `00-${traceId}-00f067aa0ba902b7-01` }
  const answer = await app.inject({ method: 'POST', url: '/api/auth/login', headers, payload: { email: auditor.ADMIN_EMAIL, password: 'another one' } })
  t.match([answer.statusCode, answer.headers['x-request-id'], answer.json()], [401, traceId, { requestId: traceId }])
  const lines = log.map(line => JSON.parse(line) as { reqId?: string })
  t.ok(lines.filter(({ reqId }) => reqId !== undefined).length >= 3 && lines.every(({ reqId = traceId }) => reqId === traceId))
  const { entries } = (await call(app, 'GET', '/audit/entries?limit=1&type=session.start', { token: accessToken })).body as { entries: object[] }
  t.match(entries, [{ outcome: 'failure', requestId: traceId }])
  const unreadable = await app.inject({ url: '/api/sessions/%', headers: { 'x-request-id': 'mine' } })
  t.match([unreadable.statusCode, unreadable.headers['x-request-id'], unreadable.json()], [400, 'mine', { requestId: 'mine' }])
})

t.test('a secret that somebody logs is not written', async t => {
  const { app, log } = await testServer(t)
  for (const name of ['authorization', 'cookie', 'password', 'token', 'accessToken', 'refreshToken']) app.log.info({ [name]: 'hunter2', body: { [name]: 'hunter2' } }, 'odd')
  t.equal(log.filter(line => line.includes('[redacted]')).length, 6)
  t.notMatch(log.join(''), /hunter2/)
})

t.test('what came in and could not be read is not logged', async t => {
  const { app, log } = await testServer(t)
  const { port } = new URL(await app.listen({ host: '127.0.0.1', port: 0 }))
  log.length = 0
  const socket = connect(Number(port), '127.0.0.1')
  socket.end('GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hunter2\r\nno header\r\n\r\n')
  await once(socket.resume(), 'close')
  t.match(log, [/client error/])
  // As text, and as the numbers of its bytes.
  for (const secret of ['hunter2', [...Buffer.from('hunter2')].join()]) t.notOk(log.some(line => line.includes(secret)))
})

t.test('the query of a URL, where a client may have put a token, is not logged, nor a whole address', async t => {
  for (const url of ['/api/sessions?access_token=in-the-query', '/nowhere?token=in-the-query', '/api/sessions/%?token=in-the-query']) await app.inject(url)
  t.ok(log.some(line => line.includes('"url":"/api/sessions"')))
  t.notOk(log.some(line => line.includes('in-the-query')))
  t.ok(log.some(line => line.includes('"remoteAddress":"127.0.0.0/24"')), 'nor whose address it is')
  t.notOk(log.some(line => line.includes('127.0.0.1')))
})

for (const storage of ['the embedded database', 'PostgreSQL']) {
  t.test(`no token, password or secret stands in a log, an answer to another, the docs or ${storage}`, async t => {
    const databaseUrl = storage === 'PostgreSQL' ? await freshDatabase(t) : null
    const { app, dataDir, log } = await testServer(t, databaseUrl === null ? admin : { ...admin, DATABASE_URL: databaseUrl })
    const shown: string[] = []
    const send = async (url: string, payload: object, headers: InjectOptions['headers'] = {}) => {
      const answer = await app.inject({ method: 'POST', url, payload, headers })
      if (answer.statusCode >= 400) shown.push(answer.body, JSON.stringify(answer.headers))
      return answer
    }
    const email = 'ada@grep.example.org'
    const passwords = { first: 'the first of the passwords', wrong: 'a password that is wrong', unread: 'a password in a bad body', broken: 'a password in no JSON', next: 'another fine password', common: 'Password1' }

    await send('/api/auth/register', { email, password: passwords.first })
    const ada = (await send('/api/auth/login', { email, password: passwords.first })).json()
    const refreshed = (await send('/api/auth/refresh', { refreshToken: ada.refreshToken })).json()
    await send('/api/auth/register', { email, password: passwords.first })
    await send('/api/auth/register', { email: 'eve@grep.example.org', password: passwords.common })
    await send('/api/auth/login', { email, password: passwords.wrong })
    await send('/api/auth/login', { email, password: passwords.unread, more: 1 })
    await send('/api/auth/login', Buffer.from(`{"email":"${email}","password":"${passwords.broken}`), { 'content-type': 'application/json' })
    await send('/api/auth/refresh', { refreshToken: `${refreshed.refreshToken}x` })
    await send('/api/auth/logout', {}, { authorization: `Bearer ${ada.accessToken}x` })
    await send(`/api/auth/nowhere?token=${refreshed.refreshToken}`, {})
    await send('/api/auth/password/forgot', { email })
    const [resetToken = ''] = /tro_\S{56}/.exec(await mailTo(dataDir, email)) ?? []
    for (let i = 0; i < 2; i++) await send('/api/auth/password/reset', { token: resetToken, password: passwords.next })
    shown.push((await app.inject('/docs/json')).body)
    const rows = databaseUrl === null ? [] : (await execute(databaseUrl, 'select * from users')).rows.map(row => JSON.stringify(row))
    await app.close()

    const keys = await Promise.all((await readdir(dataDir)).filter(name => name.endsWith('.key')).map(name => readFile(join(dataDir, name), 'utf8')))
    t.equal(keys.length, 3)
    const secrets = [
      ...Object.values(passwords), admin.ADMIN_PASSWORD, ada.accessToken, ada.refreshToken, resetToken, refreshed.accessToken, refreshed.refreshToken, ...keys.map(key => key.trim())
    ]
    const kept = databaseUrl === null ? await filesIn(join(dataDir, 'db')) : rows
    for (const secret of secrets) {
      t.ok(secret.length > 8)
      t.notOk(log.some(line => line.includes(secret)), 'in the log')
      t.notOk(shown.some(text => text.includes(secret)), 'in an error or the docs')
      t.notOk(kept.some(data => data.includes(secret)), 'in the database')
    }
    t.ok(shown.length > 15, 'errors were looked at')
    t.ok(kept.some(data => data.includes(email)), 'and what holds the users')
  })
}

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
    'get /audit/entries': [{ session: ['audit:read'] }],
    'get /metrics': [{ operator: [] }],
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
  t.equal(routes, 28)
  t.match(await app.inject('/docs'), { statusCode: 200, headers: { 'content-type': /html/, 'content-security-policy': /^(?!.*upgrade).*script-src 'self' *;/ } })
  t.match(await app.inject('/api-docs'), { statusCode: 302, headers: { location: '/docs' } })
})

t.test('the docs show an example of each body, parameter and answer', async t => {
  const { paths }: OpenApi = (await app.inject('/docs/json')).json()
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { parameters = [], requestBody, responses = {} }] of Object.entries(methods)) {
      for (const { name, schema, example } of parameters) t.ok(example !== undefined || hasExample(schema), `${method} ${path}: ${name}`)
      for (const [status, { content = {} }] of Object.entries({ ...responses, body: requestBody ?? {} })) {
        for (const { schema, example } of Object.values(content)) t.ok(example !== undefined || hasExample(schema), `${method} ${path}: ${status}`)
      }
    }
  }
})

interface Schema {
  type?: string
  const?: unknown
  enum?: unknown[]
  example?: unknown
  examples?: unknown[]
  properties?: Record<string, Schema>
  items?: Schema
}

interface Content {
  content?: Record<string, { schema: Schema, example?: unknown }>
}

interface OpenApi {
  paths: Record<string, Record<string, {
    summary?: string
    tags?: string[]
    security?: object[]
    parameters?: Array<{ name: string, schema: Schema, example?: unknown }>
    requestBody?: Content
    responses?: Record<string, Content>
  }>>
}

/** Whether a schema shows a value, as a whole or of each of its parts. */
function hasExample ({ type, example, examples, properties, items, ...schema }: Schema): boolean {
  if (example !== undefined || examples !== undefined || schema.const !== undefined || schema.enum !== undefined || type === 'null') return true
  if (items !== undefined) return hasExample(items)
  return properties !== undefined && Object.values(properties).every(hasExample)
}

async function filesIn (directory: string): Promise<Buffer[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return await Promise.all(entries.filter(entry => entry.isFile()).map(entry => readFile(join(entry.parentPath, entry.name))))
}
