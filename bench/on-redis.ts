import { randomBytes } from 'node:crypto'
import { setTimeout as after } from 'node:timers/promises'
import Fastify from 'fastify'
import tokenRegistry, { type TokenRegistry } from 'fastify-token-registry'
import redisStore from 'fastify-token-registry/redis-store'
import { Redis } from 'ioredis'
import { redisUrl } from './redis.ts'

// Calls of the registry on Redis, in a process of their own: `on-redis.ts <name>…` tells what was measured. Times are ns.

export interface RedisTimings {
  calls: Array<{ title: string, times: number[] }>
  revokeAll: { times: number[], longest: number[] } | null
  /** From when a session was told to end until another process, which serves a full core, knew it. */
  seen: number[] | null
}

const WARM_UP = 200
const SAMPLES = 2000
const OTHERS = 100_000
const MANY = 10_000
const REVOKE_ALLS = 10
const SEEN = 500
/** ms between two revocations that another process is to see */
const PAUSE = 10
/** µs, of the commands that the slow log holds: it copies what it holds, and its scripts' commands too. */
const SLOW = 500
/** What `slowlog-log-slower-than` makes of nothing. */
const NEVER = 10_000_000

const app = Fastify()
await app.register(redisStore, { url: redisUrl(), keyPrefix: 'calls:', commandTimeout: '10s' })
await app.register(tokenRegistry, { secret: 'kb7Yx0vQ2mZr9TnW4cHs8LfJ6pDa1GeU', cache: false })
await app.ready()
const { tokenRegistry: registry } = app

async function issueMany (count: number, subjectOf: (i: number) => string): Promise<string[]> {
  const tokens: string[] = []
  for (let first = 0; first < count; first += 500) {
    tokens.push(...await Promise.all(Array.from({ length: 500 }, async (_, i) => (await registry.issue({ sub: subjectOf(first + i) })).token)))
  }
  return tokens
}

/** One after the other, as one caller has it. */
async function time (title: string, call: (registry: TokenRegistry, token: string) => Promise<unknown>): Promise<RedisTimings['calls'][number]> {
  const times: number[] = []
  const tokens = await issueMany(WARM_UP + SAMPLES + 500, i => `user-${i % 1000}`)
  for (let i = -WARM_UP; i < SAMPLES; i++) {
    const token = tokens[WARM_UP + i] ?? ''
    const from = process.hrtime.bigint()
    await call(registry, token)
    const ns = Number(process.hrtime.bigint() - from)
    if (i >= 0) times.push(ns)
  }
  return { title, times }
}

async function timeRevokeAll (): Promise<NonNullable<RedisTimings['revokeAll']>> {
  const [times, longest]: [number[], number[]] = [[], []]
  const redis = new Redis(redisUrl())
  await issueMany(OTHERS, i => `other-${i % (OTHERS / 4)}`)
  await redis.config('SET', 'slowlog-max-len', 10_000)
  for (let i = 0; i < REVOKE_ALLS; i++) {
    const sub = `everywhere-${i}`
    await issueMany(MANY, () => sub)
    await redis.slowlog('RESET')
    await redis.config('SET', 'slowlog-log-slower-than', SLOW)
    const from = process.hrtime.bigint()
    const count = await registry.revokeAll({ sub })
    times.push(Number(process.hrtime.bigint() - from))
    await redis.config('SET', 'slowlog-log-slower-than', NEVER)
    if (count !== MANY) throw new Error(`${count} of ${MANY} were revoked`)
    const entries = await redis.slowlog('GET', 10_000) as Array<[number, number, number]> // number, time, µs
    longest.push(Math.max(SLOW * 1000, ...entries.map(([, , micros]) => micros * 1000)))
  }
  redis.disconnect()
  return { times, longest }
}

/** What it takes a revocation to reach the process that the bench keeps busy, which says when it heard of it. */
async function timeSeen (): Promise<number[]> {
  const told = new Map<string, bigint>()
  const redis = new Redis(redisUrl())
  await redis.subscribe('seen')
  redis.on('message', (_channel: string, text: string) => {
    const [id = '', ns = '0'] = text.split(' ')
    told.set(id, BigInt(ns))
  })
  const times: number[] = []
  for (let i = -20; i < SEEN; i++) {
    const { session } = await registry.issue({ sub: `seen-${randomBytes(6).toString('hex')}` })
    const from = process.hrtime.bigint()
    await registry.revokeById(session.id)
    const giveUpAt = performance.now() + 5000
    while (!told.has(session.id) && performance.now() < giveUpAt) await after(PAUSE)
    const at = told.get(session.id)
    if (at === undefined) throw new Error('a revocation was not seen within 5 s')
    if (i >= 0) times.push(Number(at - from))
  }
  redis.disconnect()
  return times
}

const names = process.argv.slice(2)
const calls: RedisTimings['calls'] = []
if (names.includes('redis-issue')) calls.push(await time('issue', async registry => await registry.issue({ sub: 'newcomer' })))
if (names.includes('redis-verify')) calls.push(await time('verify, cache miss', async (registry, token) => await registry.verify(token)))
if (names.includes('redis-rotate')) calls.push(await time('rotate', async (registry, token) => await registry.rotate(token)))
if (names.includes('redis-revoke')) calls.push(await time('revoke', async (registry, token) => await registry.revoke(token)))
const revokeAll = names.includes('redis-revokeAll') ? await timeRevokeAll() : null
const seen = names.includes('redis-seen') ? await timeSeen() : null
process.send?.({ calls, revokeAll, seen } satisfies RedisTimings)
process.once('disconnect', () => process.exit())
