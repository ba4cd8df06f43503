import { writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import redisStore from 'fastify-token-registry/redis-store'
import { Redis } from 'ioredis'
import { redisUrl } from './redis.ts'

// A server that the load keeps busy with cache hits, `witness.ts <file>`: it tells when it hears that a session of another process ended.

const SESSIONS = 1000

const [file = ''] = process.argv.slice(2)
const app = Fastify()
const redis = new Redis(redisUrl())
await app.register(redisStore, { url: redisUrl(), keyPrefix: 'calls:', commandTimeout: '10s' })
await app.register(tokenRegistry, { secret: 'kb7Yx0vQ2mZr9TnW4cHs8LfJ6pDa1GeU' })
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
await app.listen({ host: '127.0.0.1', port: 0 })

// After the registry, whose cache has forgotten it by then.
app.tokenStore?.onInvalidate(ids => {
  const now = process.hrtime.bigint()
  if (ids !== 'all') for (const id of ids) redis.publish('seen', `${id} ${now}`).catch(() => {})
})
const issued = await Promise.all(Array.from({ length: SESSIONS }, async (_, i) => await app.tokenRegistry.issue({ sub: `user-${i}` })))
await writeFile(file, issued.map(({ token }) => `GET /me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\n\r\n`).join(''), 'latin1')
process.send?.({ port: (app.server.address() as AddressInfo).port }) // it listens on TCP
process.once('disconnect', () => process.exit())
