// What limits cost a user with many sessions, a sign-in (a request, without the password hash) and `issue` alone: `npm run build && npx tsx bench/limits.ts [sessions] [sign-ins]`
import { randomBytes } from 'node:crypto'
import Fastify, { type FastifyInstance } from 'fastify'
import tokenRegistry, { memoryStore } from 'fastify-token-registry'
import { createRedisStore } from 'fastify-token-registry/redis-store'
import sessionLimits, { type LimitOption } from 'fastify-token-registry/session-limits'
import { median } from './statistics.ts'

const [sessions = 10_000, signIns = 1000] = process.argv.slice(2).map(Number)
const ROUNDS = 9

const variants: Record<string, LimitOption[]> = {
  'no limit': [],
  'per user, not reached': [{ per: 'user', max: 1_000_000 }],
  'per user, ends the oldest': [{ per: 'user', max: sessions, onExceed: 'end-oldest' }],
  'per user, ends the least recently used': [{ per: 'user', max: sessions, onExceed: 'end-least-recently-used' }],
  'per user, device and client': [{ per: 'user', max: sessions, onExceed: 'end-oldest' }, { per: 'device', max: 3, onExceed: 'end-oldest' }, { per: 'client', max: sessions, onExceed: 'end-oldest' }],
  'per tenant': [{ per: 'tenant', max: 1_000_000 }]
}

type Step = (app: FastifyInstance, i: number) => Promise<unknown>

const deviceOf = (i: number): string => `device ${i % (sessions / 2)}`
const issue: Step = async (app, i) => await app.tokenRegistry.issue({ sub: 'alice', meta: { deviceId: deviceOf(i) } })
const signIn: Step = async (app, i) => {
  const { statusCode } = await app.inject({ method: 'POST', url: '/sign-in', payload: { user: 'alice', device: deviceOf(i) } })
  if (statusCode !== 200) throw new Error(`signing in was answered by ${statusCode}`)
}

async function open (limits: LimitOption[], where: string | null): Promise<FastifyInstance> {
  const app = Fastify()
  const store = where === null ? memoryStore() : await createRedisStore({ url: where, keyPrefix: `bench-${randomBytes(4).toString('hex')}:`, cleanupInterval: false })
  await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64'), store })
  await app.register(sessionLimits, { limits })
  app.post<{ Body: { user: string, device: string } }>('/sign-in', async ({ body: { user, device } }, reply) => {
    const { token } = await app.tokenRegistry.issue({ sub: user, meta: { deviceId: device } })
    reply.header('set-cookie', `session=${token}; HttpOnly; Secure; SameSite=Lax; Path=/`)
    return { user }
  })
  for (let done = 0; done < sessions; done += 50) await Promise.all(Array.from({ length: 50 }, async (_, i) => await issue(app, done + i)))
  return app
}

for (const [name, where] of [['memory', null], ['Redis', process.env['REDIS_URL'] ?? 'redis://127.0.0.1']] as const) {
  const opened = await Promise.all(Object.entries(variants).map(async ([variant, limits]) => ({ variant, app: await open(limits, where), made: sessions, times: new Map<Step, number[]>([[signIn, []], [issue, []]]) })))
  for (let round = 0; round < ROUNDS; round++) {
    // In turn, and in another order each time.
    for (const one of opened.toSorted(() => Math.random() - 0.5)) {
      for (const [step, taken] of one.times) {
        const began = performance.now()
        for (let i = 0; i < signIns; i++) await step(one.app, one.made++)
        taken.push((performance.now() - began) * 1000 / signIns)
      }
    }
  }
  const figure = (step: Step, times: ReadonlyMap<Step, number[]>): string => {
    const [taken, base] = [median(times.get(step) ?? []), median(opened[0]?.times.get(step) ?? [])]
    return `${taken.toFixed(1).padStart(8)} µs  ${(taken / base).toFixed(2)}`
  }
  console.log(`\n${`${name}, ${sessions} sessions of one user`.padEnd(44)} ${'a sign-in'.padStart(15)}  ${'issue alone'.padStart(15)}`)
  for (const { variant, times } of opened) console.log(`${variant.padEnd(44)} ${figure(signIn, times)}  ${figure(issue, times)}`)
}
process.exit()
