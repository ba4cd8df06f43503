// Sessions in Redis, on the client that the server has already: @fastify/redis.
//
//   docker run -p 6379:6379 redis:7      or any other Redis: REDIS_URL
//   npx tsx examples/redis-store.ts
import { randomBytes } from 'node:crypto'
import fastifyRedis from '@fastify/redis'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import redisStore from 'fastify-token-registry/redis-store'

export const app = Fastify()
await app.register(fastifyRedis, { url: process.env['REDIS_URL'] ?? 'redis://127.0.0.1:6379' })
// Before token-registry, which finds it.
await app.register(redisStore, { client: app.redis, keyPrefix: process.env['KEY_PREFIX'] ?? 'tr:' })
// From the environment: who signs in stays signed in after a restart.
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })

app.post('/login', async request => ({ token: (await request.startSession({ sub: 'ada' })).token }))
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
