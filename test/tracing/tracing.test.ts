import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor, type ReadableSpan } from '@opentelemetry/sdk-trace-node'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import audit from '../../plugins/audit/index.ts'
import tracing, { type TracingPluginOptions } from '../../plugins/tracing/index.ts'
import tokenRegistry, { memoryStore, type TokenRegistryOptions } from '../../plugins/token-registry/index.ts'
import { newSecret } from '../support/build.ts'
import { decorated } from '../support/decorated.ts'

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const traceparent = `00-${traceId}-00f067aa0ba902b7-01`

async function traced (t: Test, options: TracingPluginOptions = {}, registry: Partial<TokenRegistryOptions> = {}, server = {}): Promise<FastifyInstance> {
  const app = Fastify(server)
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret(), store: memoryStore(), ...registry })
  await app.register(tracing, options)
  app.get('/id', async request => request.id)
  return app
}

/** A service's own SDK. */
function sdk (t: Test): () => Record<string, ReadableSpan> {
  const exporter = new InMemorySpanExporter()
  const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  provider.register()
  t.teardown(async () => {
    await provider.shutdown()
    for (const api of [trace, context, propagation]) api.disable()
  })
  return () => Object.fromEntries(exporter.getFinishedSpans().map(span => [span.name, span]))
}

t.test('without an SDK everything works, and nothing is traced', async t => {
  const app = await traced(t)
  const { token } = await app.tokenRegistry.issue({ sub: 'alice' })
  t.match(await app.tokenRegistry.verify(token), { session: { sub: 'alice' } })
})

t.test('operations, calls of the store and commits of the audit log are spans in the trace of the request', async t => {
  const spans = sdk(t)
  const app = await traced(t)
  await app.register(audit)
  app.post('/session', async request => (await request.startSession({ sub: 'alice' })).token)
  app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.sub)
  const { body: token } = await app.inject({ method: 'POST', url: '/session', headers: { traceparent } })
  await app.inject({ url: '/me', headers: { traceparent, authorization: `Bearer ${token}` } })

  const { 'token_registry.issue': issue, 'insert memory': insert, 'audit.commit': commit, 'token_registry.verify': verify, 'get memory': get } = spans()
  t.match(issue, { kind: SpanKind.INTERNAL, parentSpanContext: { traceId, spanId: '00f067aa0ba902b7' }, status: { code: SpanStatusCode.UNSET } })
  for (const [child, parent] of [[insert, issue], [commit, issue], [get, verify]]) t.match(child, { parentSpanContext: { traceId, spanId: parent?.spanContext().spanId } }, String(child?.name))
  t.match(insert, { kind: SpanKind.CLIENT, attributes: { 'db.system.name': 'memory', 'db.operation.name': 'insert' } })
  const everything = JSON.stringify(Object.values(spans()).map(({ name, attributes, events, status }) => ({ name, attributes, events, status })))
  t.notMatch(everything, /alice|trs_/)
})

t.test('a span goes on with one that is under way, and is the name of a request that has none', async t => {
  const spans = sdk(t)
  const app = await traced(t)
  const root = trace.getTracer('test').startSpan('root')
  await context.with(trace.setSpan(context.active(), root), async () => {
    await app.tokenRegistry.issue({ sub: 'alice' })
    t.equal((await app.inject('/id')).body, root.spanContext().traceId)
  })
  root.end()
  t.equal(spans()['token_registry.issue']?.parentSpanContext?.spanId, root.spanContext().spanId)
})

t.test('what a handler reads is in the trace of its request, and what is written for many later is in none', async t => {
  const spans = sdk(t)
  const app = await traced(t)
  app.post('/list', { config: { session: true } }, async () => (await app.tokenRegistry.list({ sub: 'alice' })).sessions.length)
  const { token } = await app.tokenRegistry.issue({ sub: 'alice', idleTimeout: '1h' })
  const { body } = await app.inject({ method: 'POST', url: '/list', headers: { traceparent, authorization: `Bearer ${token}` }, payload: { any: 'body' } })
  t.equal(body, '1')
  t.match(spans()['token_registry.list'], { parentSpanContext: { traceId, spanId: '00f067aa0ba902b7' } })
  while (spans()['touch memory'] === undefined) await new Promise(resolve => setTimeout(resolve, 10))
  t.notOk(spans()['touch memory']?.parentSpanContext)
})

t.test('who was refused made no error of the server\'s, and errors are told by their code', async t => {
  const spans = sdk(t)
  const store = memoryStore()
  const app = await traced(t, {}, { store: decorated(store, { insert: async () => { throw new Error('secret-of-somebody') } }) })
  await t.rejects(app.tokenRegistry.rotate('trs_secret-of-somebody'))
  t.match(spans()['token_registry.rotate'], { status: { code: SpanStatusCode.UNSET }, attributes: { 'error.type': 'FST_TOKEN_INVALID' }, events: [] })
  await t.rejects(app.tokenRegistry.issue({ sub: 'alice' }))
  t.match(spans()['token_registry.issue'], { status: { code: SpanStatusCode.ERROR, message: 'FST_STORE_UNAVAILABLE' }, attributes: { 'error.type': 'FST_STORE_UNAVAILABLE' } })
  app.tokenRegistry.addHook('preSave', ({ sub }) => { if (sub === 'mallory') throw Object.assign(new RangeError('no'), { statusCode: 403 }) })
  await t.rejects(app.tokenRegistry.issue({ sub: 'mallory' }))
  t.match(spans()['token_registry.issue'], { status: { code: SpanStatusCode.UNSET }, attributes: { 'error.type': 'RangeError' } })
  t.notMatch(JSON.stringify(Object.values(spans()).map(({ attributes, status }) => ({ attributes, status }))), /secret-of/)
})

t.test('a request is called as its trace, or as a proxy called it, everywhere', async t => {
  const lines: string[] = []
  const app = await traced(t, {}, {}, { logger: { stream: { write: (line: string) => { lines.push(line) } } } })
  for (const [headers, expected] of [
    [{ traceparent }, traceId],
    [{ traceparent: `cc-${traceId}-00f067aa0ba902b7-01-what-comes-later` }, traceId],
    [{ traceparent, 'x-request-id': 'mine' }, traceId],
    [{ 'x-request-id': 'Root=1-67891233-abcdef012345678912345678' }, 'Root=1-67891233-abcdef012345678912345678'],
    [{ traceparent: 'nonsense', 'x-request-id': 'mine' }, 'mine']
  ] as const) {
    lines.length = 0
    const { body, headers: { 'x-request-id': told } } = await app.inject({ url: '/id', headers })
    t.same([body, told], [expected, expected])
    t.ok(lines.length > 0 && lines.every(line => JSON.parse(line).reqId === expected), 'in each line of the log')
    t.equal((await app.inject({ url: '/nowhere', headers })).headers['x-request-id'], expected)
  }
})

t.test('what is malformed is replaced, and never echoed', async t => {
  const app = await traced(t)
  const zeros = '0'.repeat(32)
  for (const headers of [
    { traceparent: '' }, { traceparent: traceId }, { traceparent: traceparent.toUpperCase() }, { traceparent: `${traceparent}-more` }, { traceparent: `ff${traceparent.slice(2)}` },
    { traceparent: `00-${zeros}-00f067aa0ba902b7-01` }, { traceparent: `00-${traceId}-${'0'.repeat(16)}-01` }, { traceparent: `cc-${traceId}-00f067aa0ba902b7-01-${'x'.repeat(8192)}` },
    { traceparent: `${traceparent}, ${traceparent}` }, { 'x-request-id': '' }, { 'x-request-id': 'x'.repeat(129) }, { 'x-request-id': 'x'.repeat(8192) }, { 'x-request-id': 'a b' },
    { 'x-request-id': 'a\r\nset-cookie: b=c' }, { 'x-request-id': '<script>' }, { 'x-request-id': 'ü' }
  ]) {
    const { body, headers: answered } = await app.inject({ url: '/id', headers })
    t.match(body, /^[0-9a-f]{32}$/, JSON.stringify(headers).slice(0, 60))
    t.equal(answered['x-request-id'], body)
    t.notOk('set-cookie' in answered)
  }
})

t.test('no two requests are called the same', async t => {
  const app = await traced(t)
  const ids = await Promise.all(Array.from({ length: 1000 }, async () => (await app.inject('/id')).body))
  t.ok(ids.every(id => /^[0-9a-f]{32}$/.test(id)))
  t.equal(new Set(ids).size, 1000)
})

t.test('requests may keep the names that Fastify gives, and answers may keep quiet', async t => {
  const app = await traced(t, { requestIds: false, responseHeader: 'request-name' }, {}, { requestIdHeader: 'x-mine' })
  t.match(await app.inject({ url: '/id', headers: { traceparent, 'x-mine': 'mine' } }), { body: 'mine', headers: { 'request-name': 'mine', 'x-request-id': undefined } })
  const quiet = await traced(t, { responseHeader: false })
  t.notOk('x-request-id' in (await quiet.inject('/id')).headers)
})

t.test('options that are none are refused, and named', async t => {
  for (const [options, said, server = {}] of [
    [{ requestIds: 1 }, /tracing: requestIds is 1/],
    [{ responseHeader: 'X y' }, /responseHeader is 'X y'/],
    [{ colour: 'red' }, /colour is not an option/],
    [{}, /requestIdHeader takes whatever callers send/, { requestIdHeader: 'x-request-id' }]
  ] as const) await t.rejects(async () => await traced(t, options as object, {}, server), { code: 'FST_TRACING_OPTIONS', message: said })
})
