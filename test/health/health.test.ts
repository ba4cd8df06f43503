import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import { PassThrough } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import underPressure from '@fastify/under-pressure'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import audit from '../../plugins/audit/index.ts'
import health, { healthRoutes, type HealthPluginOptions, type HealthRoutesOptions } from '../../plugins/health/index.ts'
import tokenRegistry, { memoryStore } from '../../plugins/token-registry/index.ts'
import { audited, fragileLedger } from '../support/audited.ts'
import { build, newSecret } from '../support/build.ts'
import { newCertificate } from '../support/certificate.ts'
import { decorated } from '../support/decorated.ts'
import { deferred } from '../support/deferred.ts'

const token = 'token-of-operators'
const headers = { authorization: `Bearer ${token}` }

async function probed (t: Test, app: FastifyInstance, options: HealthPluginOptions = {}, routes: HealthRoutesOptions = { operators: { token } }): Promise<FastifyInstance> {
  await app.register(health, { shutdownDelay: 0, ...options })
  await app.register(healthRoutes, { prefix: '/health', ...routes })
  return app
}

t.test('a server that works says so, and tells details to operators alone', async t => {
  const app = await probed(t, await build(t))
  await app.register(audit)
  app.tokenRegistry.healthChecks.add('database', () => ({ status: 'ok' }))
  for (const url of ['/health/live', '/health/ready']) {
    const { statusCode, body, headers } = await app.inject(url)
    t.same([statusCode, body, headers['cache-control']], [200, '{"status":"ok"}', 'no-store'])
    t.same([(await app.inject({ method: 'HEAD', url })).statusCode, (await app.inject({ url, headers: { authorization: 'Bearer another-token-of-some' } })).body], [200, body])
  }
  t.match((await app.inject({ url: '/health/ready', headers })).json(), {
    status: 'ok',
    draining: false,
    checks: { store: { status: 'ok', required: true, latency: Number }, audit: { status: 'ok', required: true }, database: { status: 'ok' } }
  })
  t.match((await app.inject({ url: '/health/live', headers })).json(), { status: 'ok', eventLoopDelay: Number, eventLoopUtilization: Number, heapUsedBytes: Number, rssBytes: Number })
})

t.test('where nobody is an operator, nobody is told details', async t => {
  const app = await probed(t, await build(t), {}, {})
  t.equal((await app.inject({ url: '/health/ready', headers })).body, '{"status":"ok"}')
  const allowed = await probed(t, await build(t), {}, { operators: { allow: ['10.0.0.0/8'] } })
  t.match((await allowed.inject({ url: '/health/ready', remoteAddress: '10.1.2.3' })).json(), { checks: {} })
  t.equal((await allowed.inject({ url: '/health/ready', remoteAddress: '192.0.2.1' })).body, '{"status":"ok"}')
})

t.test('a required part that fails makes it unready, another one degraded', async t => {
  const store = memoryStore()
  let mode: 'well' | 'degraded' | 'hangs' = 'degraded'
  const app = await probed(t, await build(t, {
    store: decorated(store, { health: async () => mode === 'hangs' ? await new Promise(() => {}) : { status: mode === 'well' ? 'ok' : mode, latency: 0 } })
  }))
  const ready = async () => await app.inject({ url: '/health/ready', headers })
  t.match((await ready()).json(), { status: 'degraded' })
  t.equal((await ready()).statusCode, 200)
  mode = 'hangs'
  let answer = await ready()
  for (; answer.statusCode === 200; answer = await ready()) await new Promise(resolve => setTimeout(resolve, 20))
  t.match(answer.json(), { status: 'fail', checks: { store: { status: 'fail', detail: 'no answer within 500 ms' } } })
  t.equal((await app.inject({ method: 'HEAD', url: '/health/ready' })).statusCode, 503)
  t.equal((await app.inject('/health/live')).statusCode, 200, 'the process lives')

  const { ledger, state } = fragileLedger()
  const other = await probed(t, await audited(t, { ledger, guarantee: 'best-effort', timeout: 200 }))
  state.mode = 'hangs'
  ledger.head = async () => await Promise.reject(new Error('the disk is gone'))
  t.match((await other.inject({ url: '/health/ready', headers })).json(), { status: 'degraded', checks: { audit: { status: 'fail', required: false, detail: 'the disk is gone' } } })
})

t.test('a process that uses more than it may is not well', async t => {
  const app = await probed(t, await build(t), { maxRssBytes: 1 })
  app.get('/', async () => 'served')
  let answer = await app.inject({ url: '/health/live', headers })
  for (; answer.statusCode === 200; answer = await app.inject({ url: '/health/live', headers })) await new Promise(resolve => setTimeout(resolve, 20))
  t.match(answer.json(), { status: 'fail', rssBytes: Number })
  t.equal((await app.inject('/')).statusCode, 200, 'requests are not refused for it')
})

t.test('of a host that watches its process, it is asked; another one may do so later', async t => {
  const host = await build(t)
  await host.register(underPressure, { maxRssBytes: 1, pressureHandler: () => {}, sampleInterval: 10 })
  await probed(t, host)
  while ((await host.inject('/health/live')).statusCode === 200) await new Promise(resolve => setTimeout(resolve, 20))

  const later = await probed(t, await build(t))
  await later.register(underPressure)
  t.equal((await later.inject('/health/live')).statusCode, 200)
})

t.test('drain lets readiness fail while requests are served, and closes the server', async t => {
  const app = await probed(t, await build(t), { shutdownDelay: '300ms' })
  app.get('/', async () => 'served')
  const address = await app.listen({ port: 0 })
  t.equal((await fetch(address)).headers.get('connection'), 'keep-alive')
  let closed = false
  const drained = app.health.drain().then(() => { closed = true })
  t.equal(app.health.drain(), app.health.drain(), 'once')
  const ready = await fetch(`${address}/health/ready`, { headers })
  t.equal(ready.status, 503)
  t.match(await ready.json(), { status: 'fail', draining: true, checks: { store: { status: 'ok' } } })
  const served = await fetch(address)
  t.same([served.status, served.headers.get('connection'), await served.text()], [200, 'close', 'served'])
  t.equal(closed, false)
  await drained
  await t.rejects(fetch(address))
})

t.test('connections that have sent nothing hold up no closing', async t => {
  const never = { headersTimeout: 0, requestTimeout: 0 } // what Node itself would end them by
  const { key, cert } = newCertificate()
  for (const [server, connected] of [
    [Fastify({ http: never }), async (port: number) => await once(connect(port).resume(), 'connect')],
    [Fastify({ https: { ...never, key, cert } }), async (port: number) => await once(connectTls({ port, ca: cert, servername: 'localhost' }).resume(), 'secureConnect')]
  ] as const) {
    const app: FastifyInstance = server
    await app.register(tokenRegistry, { secret: newSecret() })
    await app.register(health, { shutdownDelay: 0 })
    app.get('/', async () => 'served')
    const { port } = new URL(await app.listen({ host: '127.0.0.1', port: 0 }))
    await connected(Number(port))
    t.equal((await app.inject('/')).body, 'served')
    await app.health.drain()
  }
})

t.test('a connection whose answer began before and half a request hold up no closing', async t => {
  const app = Fastify({ http: { headersTimeout: 0, requestTimeout: 0 } })
  await app.register(tokenRegistry, { secret: newSecret() })
  await app.register(health, { shutdownDelay: 0, closeTimeout: '300ms' })
  const stream = new PassThrough()
  app.get('/stream', async (_request, reply) => await reply.type('text/plain').send(stream))
  app.post('/', async () => 'whole')
  app.addHook('preClose', async () => { stream.end('end') })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  stream.write('begin')
  const streaming = await fetch(`${address}/stream`)
  const half = connect(Number(new URL(address).port)).resume()
  half.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{')
  await once(half, 'connect')
  await app.health.drain()
  t.equal(await streaming.text(), 'beginend')
})

t.test('an answer that is under way reaches who reads slowly', async t => {
  const app = await build(t)
  await app.register(health, { shutdownDelay: 0 })
  const asked = deferred()
  const body = Buffer.alloc(20_000_000, 'x')
  app.get('/', async () => {
    asked.resolve()
    // What has been answered when it begins to close, Node itself ends.
    while (app.server.listening) await setImmediate()
    return body
  })
  const port = Number(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port)
  const unused = connect(port).resume()
  await once(unused, 'connect')
  const reader = connect(port).pause()
  let received = 0
  reader.on('data', (chunk: Buffer) => { received += chunk.length }).pause()
  reader.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await asked.promise
  const closed = app.close()
  // Connections have been looked at.
  await once(unused, 'close')
  reader.resume()
  await once(reader, 'close')
  await closed
  t.ok(received > body.length, `${received} bytes`)
})

t.test('sessions of HTTP/2 end when their answers are over', async t => {
  const app = Fastify({ http2: true, http2SessionTimeout: 0 })
  await app.register(tokenRegistry, { secret: newSecret() })
  await app.register(health, { shutdownDelay: 100, closeTimeout: '1h' })
  app.get('/', async () => 'served')
  const session = connectHttp2(await app.listen({ host: '127.0.0.1', port: 0 }))
  const drained = app.health.drain()
  const request = session.request({ ':path': '/' })
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += chunk
  t.equal(text, 'served')
  await drained
})

t.test('who closes it while it drains waits for nothing', async t => {
  const app = await probed(t, await build(t), { shutdownDelay: '1h' })
  await app.ready()
  const drained = app.health.drain()
  await app.close()
  await drained
})

t.test('options that are none are refused, and named', async t => {
  for (const [options, said] of [
    [{ shutdownDelay: 'soon' }, /health: shutdownDelay is 'soon'/],
    [{ closeTimeout: '2h' }, 'health: closeTimeout is 2h: it may be an hour at most'],
    [{ shutdownDelay: '30d' }, 'health: shutdownDelay is 30d: it may be an hour at most'],
    [{ maxEventLoopDelay: 0 }, /maxEventLoopDelay is 0/],
    [{ maxEventLoopUtilization: 2 }, /maxEventLoopUtilization is 2/],
    [{ colour: 'red' }, /colour is not an option/]
  ] as Array<[HealthPluginOptions, string | RegExp]>) {
    const app = await build(t)
    await t.rejects(async () => await app.register(health, options), { code: 'FST_HEALTH_OPTIONS', message: said })
  }
  const host = await build(t)
  await host.register(underPressure)
  await t.rejects(async () => await host.register(health, { maxRssBytes: 1 }), { code: 'FST_HEALTH_OPTIONS', message: 'health: maxRssBytes: @fastify/under-pressure is registered here already: give it its limits' })
  for (const [options, said] of [
    [{ operator: {} }, 'health: healthRoutes: operator is not an option: there are operators'],
    [{ operators: { token: 'short' } }, /operators.token: it may be/]
  ] as const) {
    const app = await build(t)
    await app.register(health)
    await t.rejects(async () => await app.register(healthRoutes, options as object), { message: said })
  }
  await t.rejects(async () => await Fastify().register(healthRoutes), { code: 'FST_HEALTH_OPTIONS', message: /is not registered here/ })
})
