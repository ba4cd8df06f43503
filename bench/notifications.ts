// What notifications cost a request while their webhook is dead: `npx tsx --conditions=@fastify-token-registry/source bench/notifications.ts [requests]`
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import sessionLimits, { webhookChannel } from 'fastify-token-registry/session-limits'
import { median } from './statistics.ts'

const [requests = 2000] = process.argv.slice(2).map(Number)
const ROUNDS = 15
const WAITING = 10_000

let count = 0

/** A server whose route tells its user something, by a webhook. */
async function open (url: string): Promise<FastifyInstance> {
  const app = Fastify()
  const channel = webhookChannel({ url, secret: randomBytes(32).toString('base64'), allowPrivate: true })
  await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64') })
  await app.register(sessionLimits, { notifications: { channels: [channel], flush: 0 } })
  app.get('/telling', async () => {
    tell(app)
    return { told: true }
  })
  app.get('/quiet', async () => ({ told: false }))
  return app
}

function tell (app: FastifyInstance): void {
  app.sessionLimits.notifications.notify({ type: 'all-ended', sub: `user-${count++}` })
}

async function cost (app: FastifyInstance, url: string): Promise<number> {
  const began = performance.now()
  for (let i = 0; i < requests; i++) await app.inject(url)
  return (performance.now() - began) * 1000 / requests
}

// It takes connections, and says nothing.
const silent = createServer().listen(0, '127.0.0.1')
await once(silent, 'listening')
const { port } = silent.address() as AddressInfo // it listens on TCP
const hung = await open(`http://127.0.0.1:${port}`)
const refusing = await open('http://127.0.0.1:1')
for (const app of [hung, refusing]) for (let i = 0; i < WAITING; i++) tell(app)

const variants = [['no notification', hung, '/quiet'], ['a webhook that hangs', hung, '/telling'], ['a webhook that refuses', refusing, '/telling']] as const
const times = new Map(variants.map(([name]) => [name, [] as number[]]))
for (let round = 0; round < ROUNDS; round++) {
  // In turn, and in another order each time.
  for (const [name, app, url] of variants.toSorted(() => Math.random() - 0.5)) times.get(name)?.push(await cost(app, url))
}
const base = median(times.get('no notification') ?? [])
for (const [name, own] of times) console.log(`${name.padEnd(24)} ${median(own).toFixed(1).padStart(6)} µs a request  ${(median(own) / base).toFixed(2)}`)
process.exit()
