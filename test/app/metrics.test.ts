import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { parseExposition } from '../support/exposition.ts'
import { call, register, signIn, testServer } from '../support/server.ts'

t.test('metrics and details of health are for who has the token, which is generated where none is set', async t => {
  const { app, dataDir, log } = await testServer(t)
  const token = readFileSync(join(dataDir, 'metrics-token.key'), 'utf8').trim()
  t.match(await call(app, 'GET', '/metrics'), { statusCode: 401, headers: { 'www-authenticate': 'Bearer' }, body: { code: 'FST_OPERATOR_TOKEN', requestId: /./ } })
  await register(app, 'ada@example.org')
  const { accessToken } = await signIn(app, 'ada@example.org')
  await call(app, 'GET', '/api/auth/me', { token: accessToken })
  const { body, statusCode } = await app.inject({ url: '/metrics', headers: { authorization: `Bearer ${token}`, accept: 'application/openmetrics-text' } })
  t.equal(statusCode, 200)
  t.match(Object.fromEntries(parseExposition(body).series), {
    token_registry_sessions: 1,
    'token_registry_health_status{check=database,status=ok}': 1,
    'token_registry_health_status{check=audit,status=ok}': 1,
    token_registry_audit_dropped_total: 0,
    'http_requests_total{method=GET,route=/api/auth/me,status=200}': 1
  })
  t.ok(log.some(line => line.includes('metrics-token.key')), 'the log says where it is')
  t.notOk(log.some(line => line.includes(token)))
})

t.test('in production nobody reads what nobody was given a token for', async t => {
  const { app } = await testServer(t, { NODE_ENV: 'production', TOKEN_SECRET: randomBytes(32).toString('hex'), JWT_SECRET: randomBytes(32).toString('hex') })
  t.equal((await call(app, 'GET', '/metrics')).statusCode, 404)
  t.same((await call(app, 'GET', '/health/ready')).body, { status: 'ok' })
})

t.test('metrics may have a port of their own', async t => {
  const free = createServer().listen(0, '127.0.0.1')
  await once(free, 'listening')
  const { port } = free.address() as { port: number } // it listens
  free.close()
  await once(free, 'close')
  const token = 'token-of-operators'
  const closed = await testServer(t, { METRICS_PORT: String(port), METRICS_TOKEN: token })
  const statusOf = async (headers = {}): Promise<number> => (await fetch(`http://127.0.0.1:${port}/metrics`, { headers })).status
  t.same([await statusOf(), await statusOf({ authorization: `Bearer ${token}` })], [401, 200], 'who was named is asked for there, too')
  await closed.app.close()
  const elsewhere = await testServer(t, { METRICS_PORT: String(port), METRICS_ALLOW: '192.0.2.0/24' })
  t.equal(await statusOf(), 403)
  await elsewhere.app.close()
  const { app } = await testServer(t, { METRICS_PORT: String(port) })
  t.equal((await call(app, 'GET', '/metrics')).statusCode, 404)
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`)
  t.equal(answer.status, 200)
  parseExposition(await answer.text())
})

t.test('whatever is asked of all routes, there are few series', async t => {
  const token = 'token-of-operators'
  const { app } = await testServer(t, { METRICS_TOKEN: token })
  const { paths } = (await app.inject('/docs/json')).json() as { paths: Record<string, object> }
  for (const path of Object.keys(paths)) {
    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const) {
      if (path === '/audit/stream') continue
      for (const id of ['a', 'b']) await app.inject({ method, url: path.replace(/\{\w+\}/g, id), headers: { 'user-agent': `agent ${method} ${id}` } })
    }
  }
  for (let i = 0; i < 1000; i++) await app.inject({ url: `/${i}?token=${i}`, headers: { authorization: `Bearer ${i}` } })
  const began = performance.now()
  const { body } = await app.inject({ url: '/metrics', headers: { authorization: `Bearer ${token}` } })
  t.comment(`${performance.now() - began} ms`)
  const { series } = parseExposition(body)
  t.ok(series.size <= 1500, `${series.size} series`)
})
