import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { HealthChecks } from '../plugins/token-registry/health-checks.ts'
import { memoryStore, type Observer } from '../plugins/token-registry/index.ts'
import { Tally } from '../plugins/token-registry/tally.ts'
import { build } from './support/build.ts'
import { decorated } from './support/decorated.ts'

t.test('whoever observes runs around operations and calls of the store, the lower priority outside', async t => {
  const { tokenRegistry: registry } = await build(t, { store: memoryStore() })
  const seen: string[] = []
  const noting = (who: string): Observer => async ({ layer, name }, work) => {
    seen.push(`${who} ${layer} ${name}`)
    try {
      return await work()
    } finally {
      seen.push(`${who} done`)
    }
  }
  registry.observe(noting('inner'))
  registry.observe(noting('outer'), { priority: -1 })
  const { session } = await registry.issue({ sub: 'alice' })
  t.same(seen, ['outer registry issue', 'inner registry issue', 'outer store insert', 'inner store insert', 'inner done', 'outer done', 'inner done', 'outer done'])
  seen.length = 0
  t.equal(await registry.observed({ layer: 'mine', name: 'work', request: null }, async () => 7), 7)
  t.same(seen, ['outer mine work', 'inner mine work', 'inner done', 'outer done'])
  seen.length = 0
  await t.rejects(registry.update(session.id, { meta: { deviceId: 7 as never } }))
  t.same(seen, ['outer registry update', 'inner registry update', 'inner done', 'outer done'])
})

t.test('an observer is told on whose behalf, and nothing of a hit of the cache', async t => {
  const app = await build(t)
  const seen: Array<[string, string | undefined]> = []
  app.tokenRegistry.observe(async ({ name, request }, work) => {
    seen.push([name, request?.id])
    return await work()
  })
  app.get('/me', { config: { session: true } }, async request => request.id)
  app.post('/session', async request => (await request.startSession({ sub: 'alice' })).token)
  const { body: token } = await app.inject({ method: 'POST', url: '/session' })
  const headers = { authorization: `Bearer ${token}` }
  const { body: id } = await app.inject({ url: '/me', headers })
  await app.inject({ url: '/me', headers })
  t.match(seen, [['issue', /^req/], ['verify', id]])
  t.equal(seen.length, 2)
})

t.test('each part is asked once a second at most, within its time, and never together', async t => {
  let asked = 0
  const { tokenRegistry: { healthChecks } } = await build(t)
  healthChecks.add('slow', async () => {
    asked++
    return await new Promise(() => {})
  }, { timeout: 30, required: false })
  healthChecks.add('odd', () => { throw undefined }) // eslint-disable-line no-throw-literal
  healthChecks.add('broken', async () => { throw new Error('it is broken') })
  const fine = { asked: 0 }
  healthChecks.add('fine', () => {
    fine.asked++
    return { status: 'degraded', detail: 'it is slow' }
  })
  const [first, second] = await Promise.all([healthChecks.read(), healthChecks.read()])
  t.same(first, second)
  t.match(first, {
    store: { status: 'ok', required: true, latency: Number },
    slow: { status: 'fail', required: false, detail: 'no answer within 30 ms' },
    odd: { status: 'fail', detail: 'what was thrown is no error' },
    broken: { status: 'fail', detail: 'it is broken' },
    fine: { status: 'degraded', detail: 'it is slow' }
  })
  while (fine.asked < 2) await Promise.all([healthChecks.read(), pause(20)])
  t.equal(asked, 1, 'what does not answer is not asked again')
  for (const timeout of [0, -1, NaN, Infinity, 901, '100']) t.throws(() => healthChecks.add('other', () => ({ status: 'ok' }), { timeout: timeout as number }), { code: 'FST_TOKEN_OPTIONS', message: /other has a timeout of .*900 ms at most/ })
  t.throws(() => healthChecks.add('other', null as never), { code: 'FST_TOKEN_OPTIONS', message: /other is no function/ })
  for (const name of ['', 'Not one', 'x'.repeat(33)]) t.throws(() => healthChecks.add(name, () => ({ status: 'ok' })), { code: 'FST_TOKEN_OPTIONS' })
  t.throws(() => healthChecks.add('store', () => ({ status: 'ok' })), /there is a health check named store already/)
})

t.test('what a check returns that is no answer is a failure', async t => {
  const checks = new HealthChecks()
  for (const [name, answer] of Object.entries({ up: { status: 'up' }, yes: true, text: 'ok', nothing: undefined, list: [] })) checks.add(name, () => answer as never)
  checks.add('object', () => ({ status: 'ok', detail: { secret: 1 } }) as never)
  const { object, ...others } = await checks.read()
  t.match(object, { status: 'ok', detail: undefined })
  for (const [name, health] of Object.entries(others)) t.match(health, { status: 'fail', detail: 'the check told none of ok, degraded, fail' }, name)
})

t.test('a part whose answer was lost is asked once more, after a while', async t => {
  const checks = new HealthChecks(1500)
  let asked = 0
  const late: Array<(health: { status: 'ok' }) => void> = []
  checks.add('forgetful', () => asked++ === 0 ? new Promise(resolve => { late.push(resolve) }) : { status: 'ok' }, { timeout: 20 })
  t.match(await checks.read(), { forgetful: { status: 'fail' } })
  while ((await checks.read())['forgetful']?.status === 'fail') await pause(50)
  t.equal(asked, 2)
  late[0]?.({ status: 'ok' })
  t.match(await checks.read(), { forgetful: { status: 'ok' } })
})

t.test('a source of figures that fails is left out, where that is told', async t => {
  const { tokenRegistry: { stats } } = await build(t)
  stats.register('broken', () => { throw new Error('no figures') })
  t.throws(() => stats.read(), /no figures/)
  const told: unknown[] = []
  t.notOk('broken' in stats.read((name, error) => told.push(name, error)))
  t.match(told, ['broken', /no figures/])
})

t.test('a tally tells so many names apart, and loses nothing', async t => {
  const tally = new Tally(['tenant', 'reason'], 2)
  for (const tenant of ['a', 'b', 'c', 'd', 'a']) tally.add(tenant, tenant === 'a' ? 'x' : 'y', 2)
  t.same([...tally.entries()], [['a', 'x', 4], ['b', 'y', 2], ['other', 'y', 4]])
  t.same(tally.by('reason'), { x: 4, y: 6 })
  t.same(tally.by('tenant'), { a: 4, b: 2, other: 4 })
  t.equal(tally.total, 10)
})

t.test('what decorates a store keeps what it counts', async t => {
  const { tokenRegistry: registry } = await build(t, { store: decorated(memoryStore(), { name: 'mine' } as never) })
  t.equal(registry.storeName, 'mine')
  await registry.issue({ sub: 'alice' })
  await registry.issue({ sub: 'alice', use: 'once' })
  t.match(registry.stats.read(), { store: { sessions: 1 } }, 'one-time tokens are no sessions')
})
