// The registry inside a server that has sessions, JWTs, CORS and an error handler of its own already: nothing of theirs changes.
//
//   npx tsx examples/existing-server.ts
import { randomBytes } from 'node:crypto'
import fastifyCookie from '@fastify/cookie'
import fastifyCors from '@fastify/cors'
import fastifyJwt, { type JwtVerifyFunction } from '@fastify/jwt'
import fastifySession from '@fastify/session'
import Fastify, { type FastifyError } from 'fastify'
import tokenRegistry from 'fastify-token-registry'

const newSecret = () => randomBytes(32).toString('base64')

export const app = Fastify()
app.setErrorHandler<FastifyError>((error, _request, reply) => reply.code(error.statusCode ?? 500).send({ problem: error.code, detail: error.message }))

// What the server had before.
await app.register(fastifyCors, { origin: 'https://app.example.org' })
await app.register(fastifyCookie)
await app.register(fastifySession, { secret: newSecret(), cookie: { secure: false } })
await app.register(fastifyJwt, { secret: newSecret(), namespace: 'partner', decoratorName: 'partner' })

app.get('/visits', async request => {
  const visits = (request.session.get('visits') ?? 0) + 1
  request.session.set('visits', visits)
  return { visits }
})

app.get('/partner', async request => {
  const { sub } = await request.partnerJwtVerify<{ sub: string }>()
  return { partner: sub }
})

// What is new. `request.session` stays that of @fastify/session; ours is `request.auth`.
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? newSecret() })

app.post('/login', async request => {
  const { token } = await request.startSession({ sub: 'ada' })
  return { token }
})
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))

declare module 'fastify' {
  interface Session {
    visits?: number
  }
  interface FastifyRequest {
    /** Of @fastify/jwt, by the name of its namespace. */
    partnerJwtVerify: JwtVerifyFunction
  }
}

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
