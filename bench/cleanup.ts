// What it takes to remove idle sessions from Redis: `bench/README.md` says how to run it
import { randomUUID } from 'node:crypto'
import { setTimeout as after } from 'node:timers/promises'
import { createRedisStore, type RedisStore } from 'fastify-token-registry/redis-store'
import { sessionRecord } from 'fastify-token-registry/testing'
import { Redis } from 'ioredis'
import { longestPause } from './pauses.ts'
import { redisUrl, withRedis } from './redis.ts'

const [sessions = 1_000_000] = process.argv.slice(2).map(Number)
const OF_A_SUBJECT = 4
const SUBJECTS_AT_ONCE = 100
const META_BYTES = 300
/** ms, of every other session */
const IDLE = 1000
const KEEP_ENDINGS = 20_000
/** µs, of the commands that the slow log holds: it copies what it holds, and its scripts' commands too. */
const SLOW = 500
const NEVER = 10_000_000
/** Of what has expired, Redis leaves up to a tenth until it is asked for. */
const LEFT = 0.11

/** 300 bytes as JSON, and like no other. */
function metaOf (i: number): { userAgent: string, note: string } {
  const meta = { userAgent: `Mozilla/5.0 (X11; Linux x86_64; rv:${i % 140}.0) Gecko/20100101 Firefox/${i % 140}.0`, note: '' }
  return { ...meta, note: String(i).padEnd(META_BYTES - JSON.stringify(meta).length, '.') }
}

async function fill (store: RedisStore): Promise<void> {
  for (let first = 0; first < sessions; first += OF_A_SUBJECT * SUBJECTS_AT_ONCE) {
    const now = store.now()
    const records = Array.from({ length: OF_A_SUBJECT * SUBJECTS_AT_ONCE }, (_, i) => sessionRecord({
      sub: `user-${Math.floor((first + i) / OF_A_SUBJECT)}`, issuedAt: now, expiresAt: now + 86_400_000, idleTimeout: i % 2 === 0 ? IDLE : null, meta: metaOf(first + i)
    }))
    await store.insert(records, { op: randomUUID() })
  }
}

/** Waits until it holds. @returns s that it took */
async function until (holds: () => boolean | Promise<boolean>): Promise<number> {
  const began = performance.now()
  while (!await holds()) await after(5)
  return (performance.now() - began) / 1000
}

async function memory (redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]) / 2 ** 20
}

/** s of CPU that Redis has taken so far */
async function busy (redis: Redis): Promise<number> {
  return Array.from((await redis.info('cpu')).matchAll(/used_cpu_(?:sys|user):([\d.]+)/g), ([, seconds]) => Number(seconds)).reduce((a, b) => a + b, 0)
}

function tell (what: string, figures: string): void {
  console.log(`${what.padEnd(44)} ${figures}`)
}

async function run (): Promise<void> {
  const redis = new Redis(redisUrl())
  await redis.config('SET', 'slowlog-max-len', 10_000, 'slowlog-log-slower-than', NEVER)
  const empty = await memory(redis)
  const filler = await createRedisStore({ url: redisUrl(), keepEndings: KEEP_ENDINGS, cleanupInterval: false, commandTimeout: '10s' })
  await fill(filler)
  await after(IDLE)
  await filler.close()
  const [full, keys] = [await memory(redis), await redis.dbsize()]
  tell(`${sessions} sessions, half of them idle`, `${(full - empty).toFixed(1)} MiB, ${keys} keys`)

  await redis.config('SET', 'slowlog-log-slower-than', SLOW)
  const store = await createRedisStore({ url: redisUrl(), keepEndings: KEEP_ENDINGS, cleanupInterval: 100 })
  const figure = (name: string): number => Number(store.figures()[name])
  await until(() => figure('removed') > 0)
  const [began, idleFor] = [performance.now(), await busy(redis)]
  const pause = await longestPause(() => figure('removed') >= sessions / 2)
  tell('until all idle ones were removed', `${((performance.now() - began) / 1000).toFixed(1)} s, ${(await busy(redis) - idleFor).toFixed(1)} s of them Redis was busy`)
  tell('longest event loop pause', `${pause.toFixed(1)} ms`)
  const slow = await redis.slowlog('GET', 10_000) as Array<[id: number, at: number, micros: number]> // as SLOWLOG says
  const longest = slow.map(([, , micros]) => micros / 1000).toSorted((a, b) => b - a)
  tell('longest commands', longest.length === 0 ? `below ${SLOW / 1000} ms` : `${longest.slice(0, 5).map(ms => ms.toFixed(2)).join(', ')} ms; ${longest.length} above ${SLOW / 1000} ms`)

  const rest = keys - sessions / 2
  const forgotten = await until(async () => await redis.dbsize() - rest < LEFT * sessions / 2)
  tell('memory, when endings were forgotten', `${(await memory(redis) - empty).toFixed(1)} MiB, ${forgotten.toFixed(0)} s later`)

  const passes = figure('cleanups')
  await until(() => figure('cleanups') > passes)
  const before = await busy(redis)
  const pass = await until(() => figure('cleanups') > passes + 1)
  tell('a pass that finds nothing to remove', `${pass.toFixed(1)} s, ${(await busy(redis) - before).toFixed(2)} s of them Redis was busy`)
  await store.close()
  redis.disconnect()
}

await withRedis(AbortSignal.timeout(3_600_000), run)
