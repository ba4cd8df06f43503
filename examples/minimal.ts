// Sign in, call a protected route, sign out.
//
//   npx tsx examples/minimal.ts      says how to sign in; then
//   curl localhost:3000/me -H 'authorization: Bearer <token>'
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })

app.post<{ Body: { name: string } }>('/login', {
  schema: { body: { type: 'object', required: ['name'], properties: { name: { type: 'string', minLength: 1, maxLength: 100 } } } }
}, async request => {
  // Here a real service checks a password first.
  const { token, session } = await request.startSession({ sub: request.body.name })
  return { token, expiresAt: session.expiresAt }
})

app.get('/me', { config: { session: true } }, async request => ({ name: request.requireAuth().session.sub }))

app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login -H 'content-type: application/json' -d '{"name":"ada"}'`)
