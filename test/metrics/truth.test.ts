import { setTimeout as after } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import metrics from '../../plugins/metrics/index.ts'
import type { RegistryError } from '../../plugins/token-registry/index.ts'
import { parseExposition } from '../support/exposition.ts'
import { instances } from '../support/redis-instance.ts'
import { redisServer } from '../support/redis.ts'
import { bearer, get } from '../support/serve.ts'

const WORKERS = 20
/** ms before Redis is killed, while it is gone, and after it is back. */
const [BEFORE, GONE, AFTERWARDS] = [2000, 1000, 2500]

/** What callers were told, by the names of series. */
class Truth {
  readonly series = new Map<string, number>()
  /** Calls that failed while Redis died: whether Redis did what they asked for nobody was told. */
  unknown = 0

  add (name: string, count = 1): void {
    this.series.set(name, this.get(name) + count)
  }

  get (name: string): number {
    return this.series.get(name) ?? 0
  }

  /** @returns what the call gave, or the code of its error */
  async call<T> (operation: string, work: () => Promise<T>): Promise<{ result: T } | { code: string }> {
    try {
      const result = await work()
      this.add(`token_registry_operations_total{operation=${operation},outcome=success,store=redis}`)
      return { result }
    } catch (error) {
      const { code, critical } = error as RegistryError // what the registry throws
      this.add(`token_registry_operations_total{operation=${operation},outcome=${critical ? 'error' : 'refused'},store=redis}`)
      if (critical) this.unknown++
      return { code }
    }
  }
}

t.test('after random work on three instances, with Redis killed in the middle, the counters tell what callers were told', async t => {
  const redis = await redisServer(t, { appendonly: 'yes', appendfsync: 'always' })
  const open = instances(t, { url: redis.url })
  const apps = await Promise.all([0, 1, 2].map(async () => {
    const { app } = await open({ reuseWindow: 0 })
    await app.register(metrics, { process: false })
    await app.ready()
    return app
  }))
  const any = (): FastifyInstance => apps[Math.floor(Math.random() * apps.length)] as FastifyInstance // there are three
  const truth = new Truth()
  const over = new AbortController()

  async function work (number: number): Promise<void> {
    const tenant = number % 2 === 0 ? 'acme' : 'globex'
    for (let turn = 0; !over.signal.aborted; turn++) {
      const sub = `${number}-${turn}`
      const issued = await truth.call('issue', async () => await any().tokenRegistry.issue({ sub, tenant, client: 'app' }))
      if ('code' in issued) {
        await after(20)
        continue
      }
      truth.add(`token_registry_sessions_issued_total{client=app,tenant=${tenant}}`)
      const { token, session } = issued.result
      const { statusCode } = await get(any(), '/me', bearer(token))
      truth.add(`http_requests_total{method=GET,route=/me,status=${statusCode}}`)
      await (Math.random() < 0.6 ? rotate(tenant, token) : Math.random() < 0.7 ? revoke(tenant, session.id) : revokeAll(tenant, sub))
    }
  }

  async function rotate (tenant: string, token: string): Promise<void> {
    const rotated = await truth.call('rotate', async () => await any().tokenRegistry.rotate(token))
    if ('code' in rotated) return
    truth.add(`token_registry_session_rotations_total{tenant=${tenant}}`)
    const again = await truth.call('rotate', async () => await any().tokenRegistry.rotate(token))
    if ('code' in again && again.code === 'FST_TOKEN_REUSED') {
      truth.add(`token_registry_session_reuses_total{tenant=${tenant}}`)
      truth.add(`token_registry_sessions_ended_total{reason=reuse_recent,tenant=${tenant}}`)
    }
  }

  async function revoke (tenant: string, id: string): Promise<void> {
    const revoked = await truth.call('revoke', async () => await any().tokenRegistry.revokeById(id))
    if ('result' in revoked && revoked.result) truth.add(`token_registry_sessions_ended_total{reason=revoked,tenant=${tenant}}`)
  }

  async function revokeAll (tenant: string, sub: string): Promise<void> {
    const revoked = await truth.call('revokeAll', async () => await any().tokenRegistry.revokeAll({ tenant, sub }))
    if ('result' in revoked) truth.add(`token_registry_sessions_ended_total{reason=revoked,tenant=${tenant}}`, revoked.result)
  }

  const all = Array.from({ length: WORKERS }, async (_, number) => await work(number))
  await after(BEFORE)
  await redis.kill()
  await after(GONE)
  await redis.start()
  await after(AFTERWARDS)
  over.abort()
  await Promise.all(all)

  const counted = new Map<string, number>()
  for (const app of apps) {
    for (const [name, value] of parseExposition((await app.metrics.scrape()).text).series) counted.set(name, (counted.get(name) ?? 0) + value)
  }
  const told = (name: string): boolean => truth.series.has(name)
  t.ok(truth.unknown > 0, `${truth.unknown} calls failed while Redis was gone`)
  t.same(Object.fromEntries([...counted].filter(([name]) => told(name)).sort()), Object.fromEntries([...truth.series].sort()), 'exactly what callers were told')
  const ours = /^token_registry_(sessions_issued|sessions_ended|session_rotations|session_reuses)_total|^token_registry_operations_total\{operation=(issue|rotate|revoke)/
  t.same([...counted].filter(([name, value]) => ours.test(name) && value > 0 && !told(name)), [], 'and nothing else')
  t.comment(`${truth.get('token_registry_operations_total{operation=issue,outcome=success,store=redis}')} sessions`)
})
