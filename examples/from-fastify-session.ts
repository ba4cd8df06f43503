// Moves the sessions of @fastify/session without signing anyone out: their cookies are adopted as they are, and from then on can be listed and
// revoked. Sign-ins from now on get the registry's own tokens, in the same cookie.
//
//   npx tsx examples/from-fastify-session.ts
import fastifyCookie from '@fastify/cookie'
import Fastify, { type FastifyInstance } from 'fastify'
import tokenRegistry, { type AdoptedToken } from 'fastify-token-registry'

/** A row of the store that @fastify/session wrote to. */
export interface OldSession {
  sessionId: string
  session: { user: string, cookie: { expires?: Date | string | null } }
}

/** Run once, before the new version takes requests. */
export async function moveSessions (app: FastifyInstance, oldSecret: string, rows: readonly OldSession[]): Promise<number> {
  const signer = new fastifyCookie.Signer(oldSecret)
  const adopted = rows.flatMap(({ sessionId, session: { user, cookie: { expires } } }): AdoptedToken[] => {
    const ttl = expires ? new Date(expires).getTime() - Date.now() : 30 * 86_400_000
    // What browsers send is the signed id. Sessions in their last second are left behind.
    return ttl < 1000 ? [] : [{ token: signer.sign(sessionId), data: { sub: user }, ttl }]
  })
  for (let start = 0; start < adopted.length; start += 1000) await app.tokenRegistry.saveBatch(adopted.slice(start, start + 1000))
  return adopted.length
}

export async function build (secret: string): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(tokenRegistry, {
    secret,
    // The name that the old plugin gave its cookie; `secure: false` here since this example has no TLS.
    cookie: { name: 'sessionId', secure: false }
  })
  app.post('/login', async request => {
    await request.startSession({ sub: 'ada' })
    return { ok: true }
  })
  app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
  app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))
  return app
}
