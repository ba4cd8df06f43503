// Sign-out for the JWTs of a server that already uses @fastify/jwt.
//
//   npx tsx examples/jwt-denylist.ts
import { randomBytes, randomUUID } from 'node:crypto'
import fastifyJwt from '@fastify/jwt'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import { denylistTrusted } from 'fastify-token-registry/session-jwt'

interface Claims {
  sub: string
  jti: string
  exp: number
}

export const app = Fastify()
await app.register(fastifyJwt, {
  secret: process.env['JWT_SECRET'] ?? randomBytes(32).toString('base64'),
  verify: { algorithms: ['HS256'] },
  // The one new line: a JWT on the list is no longer trusted.
  trusted: denylistTrusted()
})
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })

app.post('/login', async () => ({ token: app.jwt.sign({ sub: 'ada', jti: randomUUID() }, { expiresIn: '15m' }) }))

app.get('/me', async request => {
  const { sub } = await request.jwtVerify<Claims>()
  return { sub }
})

app.post('/logout', async request => {
  const { jti, exp } = await request.jwtVerify<Claims>()
  // Kept until the JWT would have expired by itself.
  return { ended: await app.tokenRegistry.denylist.add(jti, exp * 1000) }
})

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
