// Sessions in a Redis that Sentinels watch: when its primary is lost, a replica takes over, and requests are served again within seconds.
//
//   SENTINELS=10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379 npx tsx examples/redis-sentinel.ts
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import redisStore from 'fastify-token-registry/redis-store'

const sentinels = (process.env['SENTINELS'] ?? '127.0.0.1:26379').split(',').map(address => {
  const [host = '', port] = address.split(':')
  return { host, port: Number(port) }
})

export const app = Fastify()
await app.register(redisStore, {
  sentinels,
  // The group, as Sentinel's configuration calls it.
  name: process.env['SENTINEL_NAME'] ?? 'mymaster',
  // An ending or a rotation is answered when all replicas have it: no failover brings a session back.
  durability: 'replicas'
})
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })

app.post('/login', async request => ({ token: (await request.startSession({ sub: 'ada' })).token }))
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
