// A server whose sessions are kept in a store of its own: map-store.ts.
//
//   npx tsx examples/custom-store.ts
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import { mapStore } from './map-store.ts'

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64'), store: mapStore() })

app.post('/login', async request => ({ token: (await request.startSession({ sub: 'ada' })).token }))
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
