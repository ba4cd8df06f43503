// Takes over the JWTs of @fastify/jwt without signing anyone out: each becomes a session when it is first seen, and from then on can be listed
// and revoked. Sign-ins from now on get the registry's own tokens.
//
//   npx tsx examples/from-fastify-jwt.ts
import { createHmac, randomBytes, randomUUID } from 'node:crypto'
import fastifyJwt from '@fastify/jwt'
import Fastify from 'fastify'
import tokenRegistry, { TokenExists } from 'fastify-token-registry'

declare module 'fastify-token-registry' {
  interface SessionMeta {
    /** Of the old JWT that became this session. */
    jti?: string
  }
}

/** What the old JWTs say; `exp` in seconds, as all times in JWTs. */
interface OldClaims { sub: string, jti: string, exp: number }

const secret = process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64')
// An adopted token is a token: who presents this text needs no JWT. So it is made with a secret, and not of what stands in logs.
const keyOf = (jti: string) => `old-jwt:${createHmac('sha256', secret).update(`old-jwt:${jti}`).digest('base64url')}`

export const app = Fastify()
await app.register(fastifyJwt, { secret: process.env['JWT_SECRET'] ?? randomBytes(32).toString('base64'), verify: { algorithms: ['HS256'] } })
await app.register(tokenRegistry, { secret })
const { tokenRegistry: registry } = app

registry.addTokenType({
  name: 'jwt of the old system',
  matches: token => token.startsWith('ey'),
  async open (token) {
    const { sub, jti, exp } = app.jwt.verify<OldClaims>(token)
    if (await registry.denylist.has(jti)) throw new Error('its session was ended')
    const key = keyOf(jti)
    const save = () => registry.save(key, { sub, meta: { jti } }, Math.max(1000, exp * 1000 - Date.now()))
    // Two requests may see a JWT first: the one that saves it second finds what the other saved.
    const session = await registry.get(key) ?? await save().catch(error => error instanceof TokenExists ? registry.get(key) : Promise.reject(error))
    if (session === null) throw new Error('its session was ended')
    return { sid: session.id, expiresAt: exp * 1000, claims: { jti } }
  }
})
// A JWT outlives the memory of how its session ended: it stays on the list until it expires.
registry.addHook('onEnd', async ({ meta: { jti }, expiresAt }) => {
  if (jti !== undefined) await registry.denylist.add(jti, expiresAt)
})

app.post('/login', async request => ({ token: (await request.startSession({ sub: 'ada' })).token }))
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
app.get('/sessions', { config: { session: true } }, async request => {
  const { sessions } = await registry.list({ sub: request.requireAuth().session.sub })
  return sessions.map(({ id, issuedAt }) => ({ id, issuedAt }))
})
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
const oldJwt = app.jwt.sign({ sub: 'ada', jti: randomUUID() }, { expiresIn: '1h' })
console.log(`curl ${address}/sessions -H 'authorization: Bearer ${oldJwt}'`)
