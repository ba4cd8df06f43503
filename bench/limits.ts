// What limits cost a sign-in of a user with many sessions: `npx tsx --conditions=@fastify-token-registry/source bench/limits.ts [sessions] [sign-ins]`
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry, { memoryStore, type TokenRegistry } from 'fastify-token-registry'
import { createRedisStore } from 'fastify-token-registry/redis-store'
import sessionLimits, { type LimitOption } from 'fastify-token-registry/session-limits'
import { median } from './statistics.ts'

const [sessions = 10_000, signIns = 200] = process.argv.slice(2).map(Number)
const ROUNDS = 15

const variants: Record<string, LimitOption[]> = {
  'no limit': [],
  'per user, not reached': [{ per: 'user', max: 1_000_000 }],
  'per user, ends the oldest': [{ per: 'user', max: sessions, onExceed: 'end-oldest' }],
  'per user, ends the least recently used': [{ per: 'user', max: sessions, onExceed: 'end-least-recently-used' }],
  'per user, device and client': [{ per: 'user', max: sessions, onExceed: 'end-oldest' }, { per: 'device', max: 3, onExceed: 'end-oldest' }, { per: 'client', max: sessions, onExceed: 'end-oldest' }],
  'per tenant': [{ per: 'tenant', max: 1_000_000 }]
}

async function open (limits: LimitOption[], where: string | null): Promise<TokenRegistry> {
  const app = Fastify()
  const store = where === null ? memoryStore() : await createRedisStore({ url: where, keyPrefix: `bench-${randomBytes(4).toString('hex')}:`, cleanupInterval: false })
  await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64'), store })
  await app.register(sessionLimits, { limits })
  for (let done = 0; done < sessions; done += 50) await Promise.all(Array.from({ length: 50 }, async (_, i) => await signIn(app.tokenRegistry, done + i)))
  return app.tokenRegistry
}

async function signIn (registry: TokenRegistry, i: number): Promise<void> {
  await registry.issue({ sub: 'alice', meta: { deviceId: `device ${i % (sessions / 2)}` } })
}

for (const [name, where] of [['memory', null], ['Redis', process.env['REDIS_URL'] ?? 'redis://127.0.0.1']] as const) {
  const opened = await Promise.all(Object.entries(variants).map(async ([variant, limits]) => ({ variant, registry: await open(limits, where), times: [] as number[] })))
  for (let round = 0; round < ROUNDS; round++) {
    // In turn, and in another order each time.
    for (const { registry, times } of opened.toSorted(() => Math.random() - 0.5)) {
      const began = performance.now()
      for (let i = 0; i < signIns; i++) await signIn(registry, round * signIns + i)
      times.push((performance.now() - began) * 1000 / signIns)
    }
  }
  const base = median(opened[0]?.times ?? [])
  console.log(`\n${name}, ${sessions} sessions of one user`)
  for (const { variant, times } of opened) console.log(`${variant.padEnd(42)} ${median(times).toFixed(1).padStart(8)} µs  ${(median(times) / base).toFixed(2)}`)
}
process.exit()
