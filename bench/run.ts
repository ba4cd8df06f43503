import { setMaxListeners } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { calls, isCallName } from './calls.ts'
import { Child } from './child.ts'
import { LOAD_CORE, pins } from './cores.ts'
import { measure, type Measured } from './http.ts'
import type { Timing } from './in-process.ts'
import { Load, tool } from './load.ts'
import type { Million } from './million.ts'
import type { RedisTimings } from './on-redis.ts'
import { hasRedis, withRedis } from './redis.ts'
import { callTable, httpTable, millionTable, redisTable, summarize } from './report.ts'
import { variants } from './variants.ts'

// `npm run bench`: README.md says what is measured, and how.

const MILLION = 'million'
const SEEN = 'redis-seen'
const redisCalls = ['redis-issue', 'redis-verify', 'redis-rotate', 'redis-revoke', 'redis-revokeAll', SEEN]
const all = [...Object.keys(variants), ...Object.keys(calls), ...redisCalls, MILLION]
/** ms that the whole run may take */
const LIMIT = 40 * 60_000

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: all.join() },
    slices: { type: 'string', default: '20' },
    turn: { type: 'string', default: '1000' },
    json: { type: 'boolean', default: false }
  }
})
const { json } = values
const chosen = values.only.split(',')
const needsRedis = (name: string): boolean => variants[name]?.redis === true || redisCalls.includes(name)
const leftOut = hasRedis ? [] : chosen.filter(needsRedis)
const only = chosen.filter(name => !leftOut.includes(name))
const unknown = only.find(name => !all.includes(name))
if (unknown !== undefined) throw new RangeError(`--only has ${unknown}: it may have ${all.join(', ')}`)
const slices = Number(values.slices)
if (!Number.isInteger(slices) || slices < 1) throw new RangeError(`--slices is ${values.slices}: it may be 1 or more`)
const turn = Number(values.turn)
if (!Number.isInteger(1000 / turn)) throw new RangeError(`--turn is ${values.turn}: it may be a divisor of 1000, in ms`)

const stopped = new AbortController()
// More than once: npm passes on a Ctrl-C that the terminal has sent already.
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stopped.abort(new Error(`stopped by ${name}`)))
const signal = AbortSignal.any([stopped.signal, AbortSignal.timeout(LIMIT)])
// Each process that is started listens.
setMaxListeners(0, signal)

async function runHttp (): Promise<Measured | null> {
  const names = Object.keys(variants).filter(name => only.includes(name))
  if (names.length === 0) return null
  // All ratios are to the bare server.
  return await measure([...new Set(['bare', ...names])], { slices, turn }, signal)
}

async function runCalls (): Promise<Timing[]> {
  const names = only.filter(isCallName)
  if (names.length === 0) return []
  const child = new Child('in-process.ts', names, signal)
  const timings: Timing[] = []
  while (timings.length < names.length) timings.push(await child.ask<Timing>())
  await child.end()
  return timings
}

async function runRedisCalls (): Promise<RedisTimings | null> {
  const names = only.filter(name => redisCalls.includes(name))
  if (names.length === 0) return null
  const timings: RedisTimings = await askRedisCalls(names.filter(name => name !== SEEN))
  if (!names.includes(SEEN)) return timings
  // The one that revokes shares the other core with the load: it does little, the one that hears it has its own core.
  const folder = await mkdtemp(join(tmpdir(), 'bench-seen-'))
  const file = join(folder, 'requests')
  const witness = new Child('witness.ts', [file], signal)
  try {
    const { port } = await witness.ask<{ port: number }>()
    const load = new Load(`http://127.0.0.1:${port}/me`, file)
    try {
      await after(2000, undefined, { signal })
      return { ...timings, seen: (await askRedisCalls([SEEN], LOAD_CORE)).seen }
    } finally {
      load.end()
    }
  } finally {
    await witness.end()
    await rm(folder, { recursive: true })
  }
}

async function askRedisCalls (names: readonly string[], core?: number): Promise<RedisTimings> {
  if (names.length === 0) return { calls: [], revokeAll: null, seen: null }
  const child = new Child('on-redis.ts', names, signal, [], core)
  const timings = await child.ask<RedisTimings>()
  await child.end()
  return timings
}

async function runMillion (): Promise<Million | null> {
  if (!only.includes(MILLION)) return null
  // Node tells how long a collection took, but not the steps in which V8 marks beforehand, so there are none.
  const child = new Child('million.ts', [], signal, ['--expose-gc', '--no-incremental-marking', '--max-old-space-size=4096'])
  const million = await child.ask<Million>()
  await child.end()
  return million
}

function print (table: string): void {
  if (!json) console.log(`${table}\n`)
}

/** What may need Redis. */
async function runBoth (): Promise<{ http: Measured | null, redis: RedisTimings | null }> {
  const http = await runHttp()
  if (http !== null) print(httpTable(http))
  const redis = await runRedisCalls()
  if (redis !== null) print(redisTable(redis))
  return { http, redis }
}

async function run (): Promise<void> {
  const machine = { node: process.version, cpu: cpus()[0]?.model ?? 'unknown', load: tool, pinned: pins }
  print(`node ${machine.node}, ${machine.cpu}, load by ${tool}${pins ? '' : '; taskset is missing: server and load share the cores'}`)
  if (leftOut.length > 0) print(`redis-server is not installed: ${leftOut.join(', ')} are left out`)

  const { http, redis } = only.some(needsRedis) ? await withRedis(signal, runBoth) : await runBoth()
  const timings = await runCalls()
  if (timings.length > 0) print(callTable(timings))
  const million = await runMillion()
  if (million !== null) print(millionTable(million))

  const summary = http === null ? [] : summarize(http.variants)
  const report = JSON.stringify({ date: new Date(), ...machine, slices, turn, passes: http?.passes, http: summary, timings, redis, million }, null, 2)
  const results = new URL('results/', import.meta.url)
  await mkdir(results, { recursive: true })
  await writeFile(new URL('latest.json', results), `${report}\n`)
  if (json) console.log(report)

  if (http?.variants.some(variant => variant.slices.length < slices)) {
    console.error(`The server did not have its core often enough: others kept it busy, or ${tool} is too slow to fill it.`)
    process.exitCode = 1
  }
}

await run().catch(error => {
  if (!signal.aborted) throw error
  console.error(signal.reason.message)
  process.exitCode = 1
})
