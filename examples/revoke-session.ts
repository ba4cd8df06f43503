// End this session, another one, or all others, from a handler. Each is refused from that moment on.
//
//   npx tsx examples/revoke-session.ts
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry, { SessionNotFound } from 'fastify-token-registry'

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })

app.post('/login', async request => {
  const { token, session } = await request.startSession({ sub: 'ada' })
  return { token, id: session.id }
})

app.register(async account => {
  // All routes of this context ask for a session.
  account.addHook('onRoute', route => { route.config = { ...route.config, session: true } })

  account.get('/sessions', async request => {
    const { session: { sub } } = request.requireAuth()
    const { sessions } = await app.tokenRegistry.list({ sub })
    return sessions.map(({ id, meta, lastUsedAt }) => ({ id, userAgent: meta.userAgent, lastUsedAt }))
  })

  account.delete('/sessions/current', async request => ({ ended: await request.revokeSession() }))

  account.delete<{ Params: { id: string } }>('/sessions/:id', async request => {
    const { session: { sub } } = request.requireAuth()
    // `sub` makes sure that nobody ends the session of somebody else.
    if (!await app.tokenRegistry.revokeById(request.params.id, 'revoked', { sub })) throw new SessionNotFound()
    return { ended: true }
  })

  account.delete('/sessions', async request => {
    const { session: { id, sub } } = request.requireAuth()
    return { ended: await app.tokenRegistry.revokeAll({ sub, except: [id] }) }
  })
})

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
