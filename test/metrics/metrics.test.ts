import { spawnSync } from 'node:child_process'
import { context, trace, TraceFlags, type Context, type ContextManager } from '@opentelemetry/api'
import { AsyncLocalStorage } from 'node:async_hooks'
import Fastify, { type FastifyInstance } from 'fastify'
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client'
import t, { type Test } from 'tap'
import audit from '../../plugins/audit/index.ts'
import metrics, { metricsRoutes, type MetricsPluginOptions } from '../../plugins/metrics/index.ts'
import { findTraces } from '../../plugins/metrics/traces.ts'
import sessionLimits from '../../plugins/session-limits/index.ts'
import tokenRegistry, { memoryStore, type TokenRegistryOptions } from '../../plugins/token-registry/index.ts'
import { build, newSecret } from '../support/build.ts'
import { decorated } from '../support/decorated.ts'
import { parseExposition } from '../support/exposition.ts'

const openMetrics = 'application/openmetrics-text; version=1.0.0, text/plain;q=0.5'

async function measured (t: Test, options: MetricsPluginOptions = {}, registry: Partial<TokenRegistryOptions> = {}): Promise<FastifyInstance> {
  const app = await build(t, registry)
  await app.register(metrics, { process: false, ...options })
  return app
}

async function seriesOf (app: FastifyInstance): Promise<Map<string, number>> {
  return parseExposition((await app.metrics.scrape()).text).series
}

/** Whether both formats are what Prometheus takes without a remark. */
function check (t: Test, text: string): void {
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })
  t.same({ status, said: stdout + stderr }, { status: 0, said: '' })
}

t.test('operations are counted by what came of them, and what the registry counts is read when it is scraped', async t => {
  const app = await measured(t)
  const { tokenRegistry: registry } = app
  app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.sub)
  app.get('/users/:id', async () => 'ok')

  const { token, session } = await registry.issue({ sub: 'alice' })
  await registry.issue({ sub: 'bob', tenant: 'acme', client: 'app' })
  for (let i = 0; i < 3; i++) t.equal((await app.inject({ url: '/me', headers: { authorization: `Bearer ${token}` } })).statusCode, 200)
  await registry.rotate(token)
  await t.rejects(registry.rotate(`${token}x`))
  await registry.get(token)
  await registry.list({ sub: 'alice' })
  await registry.count({ sub: 'alice' })
  await registry.explain(session.id)
  await registry.revokeById(session.id)
  await registry.revokeAll({ sub: 'bob', tenant: 'acme', reason: 'bob@example.org left' })
  await registry.denylist.add('jti', Date.now() + 60_000)
  for (let i = 0; i < 20; i++) await app.inject({ method: i % 2 ? 'GET' : 'POST', url: `/users/${i}` })
  await app.inject({ method: 'PROPFIND', url: '/nowhere' })

  const { text, contentType } = await app.metrics.scrape()
  t.equal(contentType, 'text/plain; version=0.0.4; charset=utf-8')
  check(t, text)
  const { series, types } = parseExposition(text)
  t.equal(types.get('token_registry_operations_total'), 'counter')
  const of = (name: string, labels = '') => series.get(`token_registry_${name}${labels && `{${labels}}`}`)
  for (const [operation, outcome, count] of [
    ['issue', 'success', 2], ['verify', 'success', 1], ['rotate', 'success', 1], ['rotate', 'refused', 1], ['get', 'success', 1], ['list', 'success', 1], ['count', 'success', 1],
    ['explain', 'success', 1], ['revoke', 'success', 1], ['revokeAll', 'success', 1], ['deny', 'success', 1]
  ] as const) {
    t.equal(of('operations_total', `operation=${operation},outcome=${outcome},store=memory`), count, operation)
    t.equal(of('operation_duration_seconds_count', `operation=${operation},outcome=${outcome},store=memory`), count)
  }
  t.match(Object.fromEntries(series), {
    token_registry_cache_hits_total: 2,
    token_registry_cache_misses_total: 1,
    token_registry_sessions_issued_total: 1,
    'token_registry_sessions_issued_total{client=app,tenant=acme}': 1,
    token_registry_session_rotations_total: 1,
    token_registry_session_reuses_total: 0,
    'token_registry_sessions_ended_total{reason=revoked}': 1,
    'token_registry_sessions_ended_total{reason=other,tenant=acme}': 1,
    token_registry_sessions: 0,
    token_registry_denylist_entries: 1,
    token_registry_cache_staleness_seconds: 0,
    'token_registry_health_status{check=store,status=ok}': 1,
    'token_registry_health_status{check=store,status=fail}': 0,
    'http_requests_total{method=GET,route=/me,status=200}': 3,
    'http_requests_total{method=GET,route=/users/:id,status=200}': 10,
    'http_requests_total{method=POST,route=other,status=404}': 10,
    'http_requests_total{method=other,route=other,status=404}': 1,
    'http_request_duration_seconds_count{method=GET,route=/users/:id}': 10
  })
  t.notMatch(text, /alice|bob@|trs_|users\/1/, 'no subject, token or URL')
})

t.test('what fails is an error where the infrastructure does, and health says which part', async t => {
  const store = memoryStore()
  let broken = false
  const failing = decorated(store, {
    insert: async (...args) => broken ? await Promise.reject(new Error('disk')) : await store.insert(...args),
    health: async () => broken ? await new Promise(() => {}) : await store.health()
  })
  const app = await measured(t, {}, { store: failing })
  app.tokenRegistry.addHook('preSave', data => {
    if (data.sub === 'nobody') throw Object.assign(new Error('no'), { statusCode: 403 })
    if (data.sub === 'odd') throw undefined // eslint-disable-line no-throw-literal
  })
  await app.tokenRegistry.issue({ sub: 'alice' })
  await t.rejects(app.tokenRegistry.issue({ sub: 'nobody' }))
  await app.tokenRegistry.issue({ sub: 'odd' }).catch(() => {})
  broken = true
  await t.rejects(app.tokenRegistry.issue({ sub: 'alice' }))
  const began = performance.now()
  const series = await seriesOf(app)
  t.ok(performance.now() - began < 1000, 'a store that hangs holds nobody up')
  t.equal(series.get('token_registry_health_status{check=store,status=fail}'), 1)
  for (const [outcome, count] of [['success', 1], ['refused', 1], ['error', 2]]) t.equal(series.get(`token_registry_operations_total{operation=issue,outcome=${outcome},store=memory}`), count)
})

t.test('other plugins are read through the registry, those that nobody knows too', async t => {
  const app = await build(t)
  await app.register(sessionLimits, { limits: [{ per: 'user', max: 1 }], devices: true })
  await app.register(audit)
  app.tokenRegistry.healthChecks.add('warehouse', () => ({ status: 'ok' }), { required: false })
  let known = true
  app.tokenRegistry.stats.register('my-plugin', (): Record<string, number> => known ? { queueLength: 7, 'odd name': 1 } : { queueLength: 8 })
  app.tokenRegistry.stats.register('many', () => Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`figure_${i}`, i])))
  await app.register(metrics)
  await app.tokenRegistry.issue({ sub: 'alice' })
  await t.rejects(app.tokenRegistry.issue({ sub: 'alice' }), { code: 'FST_SESSION_LIMIT' })
  const { text } = await app.metrics.scrape()
  check(t, text)
  const series = parseExposition(text).series
  t.match(Object.fromEntries(series), {
    'token_registry_session_limit_refusals_total{limit=per user}': 1,
    token_registry_audit_tree_size: Number,
    token_registry_audit_lag_seconds: 0,
    'token_registry_health_status{check=audit,status=ok}': 1,
    'token_registry_health_required{check=audit}': 1,
    'token_registry_health_required{check=warehouse}': 0,
    token_registry_notifications_sent_total: 0,
    token_registry_devices_unnoted_total: 0,
    token_registry_my_plugin_queue_length: 7,
    token_registry_my_plugin_odd_name: 1,
    process_resident_memory_bytes: Number,
    nodejs_eventloop_lag_p99_seconds: Number
  })
  t.ok(Number(series.get('token_registry_audit_commit_duration_seconds_count{outcome=success}')) > 2)
  t.equal([...series.keys()].filter(key => key.startsWith('token_registry_many_')).length, 98, 'of what is not known, a hundred figures')
  known = false
  const later = await seriesOf(app)
  t.equal(later.get('token_registry_my_plugin_queue_length'), 8)
  t.notOk(later.has('token_registry_my_plugin_odd_name'), 'what nobody knows any more is told no longer')
})

t.test('however many names there are, there are few series', async t => {
  const app = await measured(t, { reasons: ['fraud'], maxClients: 3 })
  for (let i = 0; i < 10_000; i++) {
    const { session } = await app.tokenRegistry.issue({ sub: `user ${i}`, tenant: `tenant ${i}`, client: `client ${i}`, meta: { userAgent: `agent ${i}` } })
    await app.tokenRegistry.revokeById(session.id, i % 2 ? 'fraud' : `reason ${i}`)
    await app.inject({ method: i % 2 ? 'GET' : 'DELETE', url: `/${i}` })
    await t.rejects(app.tokenRegistry.verify(`trs_${i}`))
  }
  const began = performance.now()
  const { text } = await app.metrics.scrape(openMetrics)
  t.comment(`${performance.now() - began} ms, ${text.length} bytes`)
  const { series } = parseExposition(text)
  t.ok(series.size <= 500, `${series.size} series`)
  t.equal(series.get('token_registry_sessions_issued_total{client=client 0,tenant=tenant 0}'), 1)
  t.equal(series.get('token_registry_sessions_issued_total{client=other,tenant=tenant 9}'), 1)
  t.equal(series.get('token_registry_sessions_issued_total{client=other,tenant=other}'), 9990)
  t.equal(series.get('token_registry_sessions_ended_total{reason=fraud,tenant=other}'), 4995)
  t.equal(series.get('token_registry_sessions_ended_total{reason=other,tenant=other}'), 4995)
  t.equal(series.get('http_requests_total{method=GET,route=other,status=404}'), 5000)
})

t.test('OpenMetrics has exemplars where a trace is under way and is recorded; older scrapers get the same without', async t => {
  const storage = new AsyncLocalStorage<Context>()
  const manager: ContextManager = {
    active: () => storage.getStore() ?? context.active(),
    with: (given, work, self, ...args) => storage.run(given, () => work.apply(self, args)),
    bind: (_context, target) => target,
    enable () { return this },
    disable () { return this }
  }
  const active = { ...manager, active: () => storage.getStore() ?? root }
  const root = context.active()
  context.setGlobalContextManager(active)
  t.teardown(() => context.disable())
  const app = await measured(t)
  const within = async (traceFlags: TraceFlags, traceId: string): Promise<unknown> =>
    await context.with(trace.setSpanContext(root, { traceId, spanId: '00f067aa0ba902b7', traceFlags }), async () => await app.tokenRegistry.issue({ sub: 'alice' }))
  await app.tokenRegistry.issue({ sub: 'alice' })
  await within(TraceFlags.NONE, '11111111111111111111111111111111')
  t.same(parseExposition((await app.metrics.scrape(openMetrics)).text).exemplars, [])
  await within(TraceFlags.SAMPLED, '4bf92f3577b34da6a3ce929d0e0e4736')

  const { text, contentType } = await app.metrics.scrape(openMetrics)
  t.equal(contentType, 'application/openmetrics-text; version=1.0.0; charset=utf-8')
  t.match(text, /\n# EOF\n$/)
  const rich = parseExposition(text)
  t.match(rich.exemplars, [{ labels: { trace_id: '4bf92f3577b34da6a3ce929d0e0e4736', span_id: '00f067aa0ba902b7' } }])
  const plain = await app.metrics.scrape('text/plain')
  t.notMatch(plain.text, /trace_id|EOF/)
  t.equal(parseExposition(plain.text).series.get('token_registry_operation_duration_seconds_count{operation=issue,outcome=success,store=memory}'), 3)
  check(t, plain.text)
})

t.test('labels, buckets and the beginning of names are as they were asked for', async t => {
  const app = await measured(t, { namePrefix: 'id_', labels: { region: 'eu "1" # {}' }, buckets: { operation: [0.000001, 0.000002], http: [2] }, http: false })
  await app.tokenRegistry.issue({ sub: 'alice' })
  const text = (await app.metrics.scrape(openMetrics)).text
  const { series } = parseExposition(text)
  const bucket = (le: string) => series.get(`id_operation_duration_seconds_bucket{le=${le},operation=issue,outcome=success,region=eu \\"1\\" # {},store=memory}`)
  t.same([bucket('0.000001'), bucket('0.000002'), bucket('+Inf')], [0, 0, 1])
  t.equal([...series.keys()].filter(key => key.startsWith('id_operation_duration_seconds_bucket')).length, 3)
  t.notOk([...series.keys()].some(key => key.startsWith('http_')))
  check(t, (await app.metrics.scrape()).text)
})

t.test('a registry that is passed in is used, of either kind, and keeps what it has', async t => {
  const own = new Registry()
  const mine = new Counter({ name: 'orders_total', help: 'Orders.', registers: [own] })
  mine.inc(3)
  const app = await measured(t, { register: own })
  await app.tokenRegistry.issue({ sub: 'alice' })
  const { text, contentType } = await app.metrics.scrape(openMetrics)
  t.equal(contentType, own.contentType, 'it is not one of OpenMetrics')
  t.match(Object.fromEntries(parseExposition(text).series), { orders_total: 3, token_registry_sessions_issued_total: 1 })
  t.equal(parseExposition(`${await own.metrics()}`).series.get('token_registry_sessions_issued_total'), 1, 'a route of the host reads the same')

  const other = await build(t)
  await t.rejects(async () => await other.register(metrics, { register: own }), { code: 'FST_METRICS_OPTIONS', message: /^metrics: register: it has token_registry_info already/ })
})

t.test('without the API of OpenTelemetry there are no exemplars', async t => {
  t.equal(await findTraces(async () => await Promise.reject(new Error('not installed'))), null)
})

t.test('a token that is presented again shows, by tenant', async t => {
  const app = await measured(t, {}, { reuseWindow: 0 })
  const { token } = await app.tokenRegistry.issue({ sub: 'alice', tenant: 'acme' })
  await app.tokenRegistry.rotate(token)
  await t.rejects(app.tokenRegistry.rotate(token), { code: 'FST_TOKEN_REUSED' })
  await app.tokenRegistry.issue({ sub: 'bob', tenant: 'other' })
  t.match(Object.fromEntries(await seriesOf(app)), { 'token_registry_session_reuses_total{tenant=acme}': 1, 'token_registry_session_reuses_total{tenant=other}': 0, 'token_registry_sessions_ended_total{reason=reuse_recent,tenant=acme}': 1 })
})

t.test('a request is counted once, by the answer that it got, however it was refused', async t => {
  const app = Fastify({ logger: { level: 'silent' } })
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret() })
  await app.register(metrics, { process: false })
  app.addHook('onSend', async (_request, reply) => { if (reply.statusCode === 201) throw new Error('a hook failed') })
  app.get('/me', { config: { session: true } }, async () => 'ok')
  app.post('/late', async (_request, reply) => await reply.code(201).send('created'))
  const [me, late] = [await app.inject('/me'), await app.inject({ method: 'POST', url: '/late' })]
  t.same([me.statusCode, late.statusCode], [401, 500])
  const series = await seriesOf(app)
  t.match(Object.fromEntries(series), {
    'http_requests_total{method=GET,route=/me,status=401}': 1,
    'http_request_duration_seconds_count{method=GET,route=/me}': 1,
    'http_requests_total{method=POST,route=/late,status=500}': 1,
    'http_requests_total{method=POST,route=/late,status=201}': 0,
    'http_request_duration_seconds_count{method=POST,route=/late}': 1
  })
  t.ok(Number(series.get('http_request_duration_seconds_sum{method=GET,route=/me}')) > 0)
  app.metrics.register.resetMetrics()
  t.equal((await seriesOf(app)).get('http_request_duration_seconds_count{method=GET,route=/me}'), 0)

  const quiet = await measured(t)
  quiet.get('/me', { config: { session: true } }, async () => 'ok')
  await quiet.inject('/me')
  t.equal((await seriesOf(quiet)).get('http_requests_total{method=GET,route=/me,status=401}'), 1)
})

t.test('two instances in one process have registries of their own', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  for (const [name, count] of [['a', 1], ['b', 2]] as const) {
    await app.register(async child => {
      await child.register(tokenRegistry, { secret: newSecret() })
      await child.register(metrics)
      for (let i = 0; i < count; i++) await child.tokenRegistry.issue({ sub: 'alice' })
      child.get(`/${name}`, async () => (await child.metrics.scrape()).text)
    })
  }
  for (const [name, count] of [['a', 1], ['b', 2]] as const) {
    await app.inject(`/${name}`)
    const { series } = parseExposition((await app.inject(`/${name}`)).body)
    t.equal(series.get('token_registry_sessions_issued_total'), count)
    t.equal(series.get(`http_requests_total{method=GET,route=/${name},status=200}`), 1)
    t.equal([...series.keys()].filter(key => key.startsWith('http_requests_total')).length, 1)
    t.ok(series.has('process_cpu_seconds_total'))
  }
})

t.test('what ends at once counts, one-time tokens too where somebody hears of it', async t => {
  const app = await measured(t)
  app.tokenRegistry.addHook('onEnd', () => {})
  for (const use of ['session', 'once', 'once'] as const) await app.tokenRegistry.issue({ sub: 'alice', use })
  t.equal(await app.tokenRegistry.revokeAll({ sub: 'alice' }), 1)
  await app.tokenRegistry.issue({ sub: 'alice', use: 'once' })
  t.equal(await app.tokenRegistry.revokeAll({ sub: 'alice' }), 0)
  t.equal((await seriesOf(app)).get('token_registry_sessions_ended_total{reason=revoked}'), 4)
})

t.test('a token that is bound is no hit where the proof is missing, and is refused', async t => {
  const app = await measured(t)
  app.get('/me', { config: { session: true } }, async () => 'ok')
  const binding = 'a'.repeat(43)
  const { token } = await app.tokenRegistry.issue({ sub: 'alice', binding })
  await app.tokenRegistry.verify(token, { binding })
  for (let i = 0; i < 3; i++) t.equal((await app.inject({ url: '/me', headers: { authorization: `Bearer ${token}` } })).statusCode, 401)
  t.match(Object.fromEntries(await seriesOf(app)), { 'token_registry_operations_total{operation=verify,outcome=refused,store=memory}': 3, token_registry_cache_hits_total: 3 })
})

t.test('where the log is quiet, so are those who guess', async t => {
  for (const [level, logged] of [['info', 0], ['silent', 0]] as const) {
    const lines: string[] = []
    const app = Fastify({ logger: { level, stream: { write: (line: string) => { lines.push(line) } } } })
    t.teardown(() => app.close())
    await app.register(tokenRegistry, { secret: newSecret() })
    await app.register(metrics, { process: false })
    await app.register(metricsRoutes, { token: 'token-of-operators' })
    app.metrics.register.registerMetric(new Gauge({ name: 'mine', help: 'Mine.', registers: [], collect: () => { throw new Error('broken') } }))
    t.equal((await app.inject('/metrics')).statusCode, 401)
    t.equal(lines.length, logged)
    t.equal((await app.inject({ url: '/metrics', headers: { authorization: 'Bearer token-of-operators' } })).statusCode, 500)
    t.equal(lines.length, level === 'info' ? 1 : 0, 'what fails is told at the level of the server')
  }
})

t.test('an instance within another one counts for itself', async t => {
  const app = await measured(t)
  let inner: FastifyInstance = app
  app.get('/outer', async () => 'outer')
  await app.register(async child => {
    inner = child
    await child.register(metrics, { process: false })
    child.get('/inner', async () => 'inner')
  })
  for (const url of ['/inner', '/inner', '/outer']) await app.inject(url)
  const [ofOuter, ofInner] = [await seriesOf(app), await seriesOf(inner)]
  for (const series of [ofOuter, ofInner]) {
    for (const name of ['http_requests_total{method=GET,route=/inner,status=200}', 'http_request_duration_seconds_count{method=GET,route=/inner}']) t.equal(series.get(name), 2, name)
  }
  t.equal(ofOuter.get('http_requests_total{method=GET,route=/outer,status=200}'), 1)
  t.notOk(ofInner.has('http_requests_total{method=GET,route=/outer,status=200}'))
})

t.test('figures that cannot be told are left out, and the log says so once', async t => {
  const app = await build(t)
  const warned: Array<[string, string | undefined]> = []
  app.log.warn = ({ err }: { err?: Error }, message?: string) => { warned.push([String(message), err?.message]) }
  await app.register(metrics, { process: false })
  const { stats } = app.tokenRegistry
  stats.register('broken', () => { throw new Error('backend down') })
  stats.register('none', () => undefined as never)
  stats.register('mine', () => ({ big: 1n, fooBar: 1, foo_bar: 2, jobs_total: 3, total: -1, jobsTotal: -1, oddTotal: Infinity }) as never)
  stats.register('operation', () => ({ duration_seconds: 1, duration_seconds_count: 1 }))
  stats.register('session', () => ({ rotations: 1 }))
  for (let i = 0; i < 2; i++) {
    const { text } = await app.metrics.scrape()
    check(t, text)
    t.match(Object.fromEntries(parseExposition(text).series), { token_registry_mine_foo_bar: 1, token_registry_mine_jobs_total: 3, token_registry_mine: -1, token_registry_session_rotations_total: Number })
    parseExposition((await app.metrics.scrape(openMetrics)).text)
  }
  t.same(warned, [
    ['the figures of broken cannot be read, and are left out', 'backend down'],
    ['the figure foo_bar of mine is left out: there is a metric of its name already', undefined],
    ['the figure jobsTotal of mine is left out: there is a metric of its name already', undefined],
    ['the figure oddTotal of mine is left out while it is no count', undefined],
    ['the figure duration_seconds of operation is left out: there is a metric of its name already', undefined],
    ['the figure duration_seconds_count of operation is left out: there is a metric of its name already', undefined],
    ['the figure rotations of session is left out: there is a metric of its name already', undefined]
  ])
})

t.test('metrics of Node are called as each format calls them, whoever was read before', async t => {
  const first = await measured(t, { process: true })
  t.match(parseExposition((await first.metrics.scrape(openMetrics)).text).series.get('process_cpu_seconds_total'), Number)
  const second = await measured(t, { process: true, register: new Registry() })
  const { text } = await second.metrics.scrape()
  t.match(text, /^# TYPE process_cpu_seconds_total counter$/m)
  check(t, text)

  const register = new Registry()
  collectDefaultMetrics({ register })
  const other = await build(t)
  await t.rejects(async () => await other.register(metrics, { register, process: true }), { code: 'FST_METRICS_OPTIONS', message: /^metrics: register: it has process_\w+ already/ })
})

t.test('OpenMetrics is for who takes it as gladly as plain text', async t => {
  const app = await measured(t)
  for (const [accept, taken] of [
    ['application/openmetrics-text', true], ['application/openmetrics-text; version=1.0.0; q=0.8, text/plain;q=0.5, */*;q=0.1', true],
    ['text/plain;q=0.3,application/openmetrics-text;q=0.3', true], ['Application/OpenMetrics-Text;Q=1', true],
    ['text/plain, application/openmetrics-text;q=0.1', false], ['application/openmetrics-text;q=0', false], ['application/openmetrics-text; q=0.0', false],
    ['application/openmetrics-text;q=x', false], ['*/*', false], ['', false]
  ] as const) t.equal((await app.metrics.scrape(accept)).contentType.startsWith('application/openmetrics-text'), taken, accept)
})

t.test('options that are none are refused, and named', async t => {
  for (const [options, said] of [
    [{ buckets: { operation: [1, 0.5] } }, 'buckets.operation.1 is 0.5: it may be seconds, more than 1, since bounds ascend'],
    [{ buckets: { http: [0] } }, 'buckets.http.0 is 0: it may be seconds, more than 0, since bounds ascend'],
    [{ buckets: { http: [] } }, /^metrics: buckets.http is \[Array\]|buckets.http is/],
    [{ buckets: { http: { 0: 1 } } }, /buckets.http is/],
    [{ buckets: { http: ['1'] } }, /buckets.http.0 is '1': it may be seconds/],
    [{ labels: { 'not a name': 'x' } }, 'labels.not a name is no name of a label: letters, digits and _, neither a digit nor __ first'],
    [{ labels: { __name__: 'x' } }, /labels.__name__ is no name of a label/],
    [{ labels: { le: 'x' } }, 'labels.le is a label that series have already'],
    [{ labels: { region: 7 } }, /labels.region is 7: it may be text/],
    [{ labels: { region: 'eu' }, register: new Registry() }, 'labels: the registry that is given has its own, set them there'],
    [{ register: {} }, 'register: it may be a Registry of prom-client'],
    [{ register: null }, 'register: it may be a Registry of prom-client'],
    [{ register: { registerMetric: () => {} } }, 'register: it may be a Registry of prom-client'],
    [{ labels: { region: () => 'eu' } }, /labels.region is \[Function: region\]: it may be text/],
    [{ maxTenants: Symbol('many') }, /maxTenants is Symbol\(many\)/],
    [{ colour: () => 'red' }, /colour is not an option/],
    [{ namePrefix: '1x' }, /namePrefix is '1x'/],
    [{ maxTenants: -1 }, /maxTenants is -1/],
    [{ reasons: ['Not one'] }, /reasons.0 is 'Not one'/],
    [{ listen: { port: 70_000 } }, /listen.port is 70000/],
    [{ colour: 'red' }, /colour is not an option/]
  ] as Array<[MetricsPluginOptions, string | RegExp]>) {
    const app = await build(t)
    await t.rejects(async () => await app.register(metrics, Object.freeze(options)), { code: 'FST_METRICS_OPTIONS', message: typeof said === 'string' ? `metrics: ${said}` : said })
  }
})

t.test('only operators scrape', async t => {
  const token = 'token-of-operators'
  const app = await measured(t)
  await app.register(metricsRoutes, { token: [token, 'the-one-that-comes-next'], prefix: '/token' })
  await app.register(metricsRoutes, { allow: ['10.0.0.0/8', '::1', '192.0.2.7'], prefix: '/allow' })
  await app.register(metricsRoutes, { token, allow: ['10.0.0.0/8'], prefix: '/both' })
  await app.register(metricsRoutes, { prefix: '/none' })
  const ask = async (url: string, remoteAddress: string, authorization?: string) => await app.inject({ url: `${url}/metrics`, remoteAddress, headers: { ...authorization !== undefined && { authorization } } })

  t.match(await ask('/token', '10.1.2.3'), { statusCode: 401, headers: { 'www-authenticate': 'Bearer' } })
  for (const wrong of [`Bearer ${token}x`, 'Bearer', `Basic ${token}`, `Bearer ${'x'.repeat(8000)}`]) t.match(await ask('/token', '10.1.2.3', wrong), { statusCode: 401 })
  for (const right of [`Bearer ${token}`, 'bearer the-one-that-comes-next']) t.match(await ask('/token', '10.1.2.3', right), { statusCode: 200 })
  t.match(await ask('/allow', '10.1.2.3'), { statusCode: 200, headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8', 'cache-control': 'no-store' } })
  t.match(await ask('/allow', '::ffff:10.1.2.3'), { statusCode: 200 })
  t.match(await ask('/allow', '::1'), { statusCode: 200 })
  t.match(await ask('/allow', '192.0.2.7'), { statusCode: 200 })
  for (const address of ['192.0.2.8', '2001:db8::1', 'a name']) t.match(await ask('/allow', address), { statusCode: 403 })
  t.match(await ask('/both', '192.0.2.7', `Bearer ${token}`), { statusCode: 403 })
  t.match(await ask('/both', '10.1.2.3'), { statusCode: 401 })
  t.match(await ask('/none', '127.0.0.1', `Bearer ${token}`), { statusCode: 404 })

  for (const [options, said] of [
    [{ token: 'short' }, 'metricsRoutes.token: it may be at least 16 letters, digits or -._~+/, or a list of such'],
    [{ token: [token, 7] }, /metricsRoutes.token: it may be/],
    [{ token: 'with spaces it cannot be sent' }, /metricsRoutes.token: it may be/],
    [{ allow: [] }, /metricsRoutes.allow is/],
    [{ allow: ['10.0.0.0/33'] }, /metricsRoutes.allow.0 is "10.0.0.0\/33": it may be an address or a network/],
    [{ allow: ['localhost'] }, /metricsRoutes.allow.0 is "localhost"/],
    [{ allow: ['::1', '10.0.0.0/8/8'] }, /metricsRoutes.allow.1 is/],
    [{ token, allowed: ['10.0.0.0/8'] }, /metricsRoutes.allowed is not an option: there are token, allow/]
  ] as const) {
    const other = await measured(t)
    await t.rejects(async () => await other.register(metricsRoutes, options as object), { message: typeof said === 'string' ? `token-registry: ${said}` : said })
  }
  await t.rejects(async () => await Fastify().register(metricsRoutes, { token }), { code: 'FST_METRICS_OPTIONS', message: /is not registered here/ })
})

t.test('a port of its own is for who reaches it, and closes with the server', async t => {
  const app = await build(t)
  const lines: string[] = []
  app.log.info = (...args: unknown[]) => { lines.push(JSON.stringify(args)) }
  let fails = false
  const errors: string[] = []
  app.log.error = ({ err }: { err: Error }) => { errors.push(err.message) }
  await app.register(metrics, { listen: { port: 0 } })
  app.metrics.register.registerMetric(new Gauge({ name: 'mine', help: 'Mine.', registers: [], collect: () => { if (fails) throw new Error('password=hunter2') } }))
  t.same(lines, [], 'not before all is registered')
  await app.ready()
  const [, address = ''] = /"address":"([^"]+)"/.exec(lines.join('')) ?? []
  const answer = await fetch(address, { headers: { accept: openMetrics } })
  t.equal(answer.headers.get('content-type'), 'application/openmetrics-text; version=1.0.0; charset=utf-8')
  parseExposition(await answer.text())
  fails = true
  const failed = await fetch(address)
  t.same([failed.status, await failed.json()], [500, { statusCode: 500, error: 'Internal Server Error', message: 'Metrics could not be read: the log says why' }])
  t.match(errors, [/hunter2/])
  await app.close()
  await t.rejects(fetch(address))
})
