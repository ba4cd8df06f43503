// Three strategies for one session too many, and "sign out the oldest and continue".
//
//   npx tsx examples/session-limits.ts      says how to sign in; do it three times
//   curl -X POST 'localhost:3000/login/strict?continue=true'
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry, { type SessionLimitError } from 'fastify-token-registry'
import sessionLimits, { type LimitOption } from 'fastify-token-registry/session-limits'

/** By the client that signs in, so that all three can be tried on one server. */
const limits: LimitOption[] = [
  // The newest sign-in wins. For most services.
  { name: 'rolling', per: ({ client }) => client === 'rolling' ? 'all' : null, max: 2, onExceed: 'end-oldest' },
  // Whoever is active stays. For services that people keep open all day.
  { name: 'active', per: ({ client }) => client === 'active' ? 'all' : null, max: 2, onExceed: 'end-least-recently-used' },
  // Who is in stays in. For licences by seat.
  { name: 'strict', per: ({ client }) => client === 'strict' ? 'all' : null, max: 2, onExceed: 'refuse' }
]

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })
await app.register(sessionLimits, { limits })

app.post<{ Params: { client: string }, Querystring: { continue?: string } }>('/login/:client', async (request, reply) => {
  // Here a real service checks a password first: what follows is for the owner's eyes.
  const who = { sub: 'ada', client: request.params.client }
  try {
    return await request.startSession(who)
  } catch (error) {
    if (!isLimit(error)) throw error
    const oldest = error.sessions.at(-1)
    if (request.query.continue === 'true' && oldest !== undefined) return await request.startSession({ ...who, endOthers: [oldest.id] })
    return reply.code(429).send({ message: error.message, sessions: error.sessions.map(({ id, issuedAt, meta }) => ({ id, issuedAt, userAgent: meta.userAgent })) })
  }
})

app.get('/sessions', { config: { session: true } }, async request => {
  const { sub, client } = request.requireAuth().session
  const { sessions } = await app.tokenRegistry.list({ sub, ...client !== null && { client } })
  return sessions.map(({ id }) => id)
})

function isLimit (error: unknown): error is SessionLimitError {
  return error instanceof Error && 'code' in error && error.code === 'FST_SESSION_LIMIT'
}

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login/strict`)
