import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import t from 'tap'
import { asAsked, readBoard, rowsOf } from '../../deploy/dash/board.ts'
import { load, loadEnv } from '../../deploy/dash/load.ts'
import { alerts, query, startPrometheus } from '../../deploy/dash/prometheus.ts'
import { embeddedDataDir } from '../support/embedded.ts'
import { parseExposition } from '../support/exposition.ts'
import { freePort, redisServer } from '../support/redis.ts'
import { start } from '../support/server-process.ts'
import { find, prometheus } from '../support/services.ts'

// The reference server on Redis, used as people use it, and a Prometheus with the configuration of deploy/.

t.test('no panel is empty, and a store that hangs is told within a second, and pages', async t => {
  const bin = find(prometheus)
  if (bin === null) throw new Error('Prometheus is not installed: "npm test" installs it')
  const token = randomBytes(24).toString('base64url')
  const redis = await redisServer(t)
  const { address } = await start(t, { ...loadEnv, LOG_LEVEL: 'info', DATA_DIR: await embeddedDataDir(t), REDIS_URL: redis.url, METRICS_TOKEN: token }).listening

  const operator = async (path: string): Promise<Response> => await fetch(address + path, { headers: { authorization: `Bearer ${token}`, accept: 'application/openmetrics-text' } })

  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'))
  const watch = await startPrometheus({ program: join(bin, 'prometheus'), folder, port: await freePort(), target: address, token })
  const using = new AbortController()
  const used = load(address, using.signal)
  t.teardown(async () => {
    using.abort()
    await used
    watch.process.kill('SIGKILL')
    await new Promise(resolve => watch.process.once('exit', resolve))
    rmSync(folder, { recursive: true, force: true })
  })

  const targets = rowsOf(readBoard()).flatMap(({ panels }) => panels).flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr: asAsked(expr) })))
  const empty = async (): Promise<string[]> => {
    const found = await Promise.all(targets.map(async ({ title, expr }) => ({ title, expr, samples: await query(watch, expr) })))
    return found.filter(({ samples }) => samples.every(({ value }) => value === 'NaN')).map(({ title, expr }) => `${title}: ${expr}`)
  }
  const asked = new Set(targets.flatMap(({ expr }) => expr.match(/\b(token_registry|http|nodejs|process)_\w+/g) ?? []))
  const absent = async (): Promise<string[]> => {
    const series = [...parseExposition(await (await operator('/metrics')).text()).series.keys()]
    return [...asked].filter(name => !series.some(key => key === name || key.startsWith(`${name}{`)))
  }
  const ofTwoStores = 'token_registry_store_failovers_total'
  // Sessions are counted when the store is cleaned up, for the first time after some 75 s.
  await within(110, async () => (await empty()).length === 0 && (await absent()).every(name => name === ofTwoStores))
  t.same(await empty(), [], 'no panel is empty')
  t.same(await absent(), [ofTwoStores], 'nor is 0 shown for what nobody counts, but for who has a second store')
  for (const name of readdirSync('docs/runbooks')) {
    for (const [, block = ''] of readFileSync(join('docs/runbooks', name), 'utf8').matchAll(/```promql\n(.*?)```/gs)) {
      for (const expr of block.trim().split('\n')) await t.resolves(query(watch, expr), `${name}: ${expr}`)
    }
  }
  t.same(await query(watch, 'up').then(([sample]) => sample?.value), '1', 'Prometheus reads what it is given, as OpenMetrics')
  t.same((await alerts(watch)).filter(({ labels, state }) => state === 'firing' && (labels['check'] !== undefined || labels['alertname'] === 'TokenRegistryStoreDown')), [], 'nothing fails')

  redis.pause()
  const paused = Date.now()
  // What it was asked just before is known for a second.
  await after(1500)
  for (const [path, expected] of [
    ['/metrics', /token_registry_health_status\{check="store",status="fail"\} 1/],
    ['/health/ready', /"store":\{"status":"fail"/],
    ['/health/live', /"status":"ok"/]
  ] as const) {
    const began = performance.now()
    const text = await (await operator(path)).text()
    const took = performance.now() - began
    t.match(text, expected, `${path} says what is down`)
    t.ok(took < 1000, `${path} answers within a second: ${Math.round(took)} ms`)
  }
  const down = async (): Promise<boolean> => (await alerts(watch)).some(({ labels, annotations, state }) => labels['alertname'] === 'TokenRegistryStoreDown' && state === 'firing' && annotations['runbook_url']?.endsWith('store-down.md'))
  t.ok(await within(90, down), 'somebody is paged')
  t.comment(`after ${Date.now() - paused} ms`)

  redis.resume()
  t.ok(await within(90, async () => !await down()), 'it is over when the store answers')
})

/** Asks twice a second. @returns whether it came to hold */
async function within (seconds: number, holds: () => Promise<boolean>): Promise<boolean> {
  for (const until = Date.now() + seconds * 1000; Date.now() < until; await after(500)) if (await holds()) return true
  return false
}
