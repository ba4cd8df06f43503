// Two instances of a service on one Redis. Each serves sessions from its own cache, and hears within milliseconds of what the other ends.
//
//   docker run -p 6379:6379 redis:7      or any other Redis: REDIS_URL
//   npx tsx examples/two-instances.ts
import { randomBytes } from 'node:crypto'
import Fastify, { type FastifyInstance } from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import redisStore from 'fastify-token-registry/redis-store'

// Both need the same.
const secret = process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64')
const url = process.env['REDIS_URL'] ?? 'redis://127.0.0.1:6379'
const keyPrefix = process.env['KEY_PREFIX'] ?? 'tr:'

async function instance (): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(redisStore, { url, keyPrefix })
  await app.register(tokenRegistry, { secret })
  app.post('/login', async request => ({ token: (await request.startSession({ sub: 'ada' })).token }))
  app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
  app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))
  return app
}

export const app = await instance()
export const other = await instance()
app.addHook('onClose', () => other.close())

const port = Number(process.env['PORT'] ?? 3000)
const address = await app.listen({ port })
const otherAddress = await other.listen({ port: port === 0 ? 0 : port + 1 })

console.log(`Sign in at the first, and use the token at the second: GET ${otherAddress}/me. After POST ${address}/logout that is refused.`)
console.log(`curl -X POST ${address}/login`)
