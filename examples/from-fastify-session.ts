// Moves the sessions of @fastify/session without signing anyone out: their cookies are adopted as they are, and from then on can be listed and
// revoked. Sign-ins from now on get the registry's own tokens, in the same cookie.
//
//   npx tsx examples/from-fastify-session.ts
import { randomBytes } from 'node:crypto'
import fastifyCookie from '@fastify/cookie'
import Fastify from 'fastify'
import tokenRegistry, { TokenExists } from 'fastify-token-registry'

/** What @fastify/session stores: by default a row for every visitor, who need not have signed in. */
interface OldSession { user?: string, cookie: { expires?: Date | string | null } }

const newSecret = () => randomBytes(32).toString('base64')
/** Stands for the store that @fastify/session wrote to, by session id. */
export const oldStore = new Map<string, OldSession>()
const signer = new fastifyCookie.Signer(process.env['OLD_SECRET'] ?? newSecret())

export const app = Fastify()
await app.register(tokenRegistry, {
  secret: process.env['TOKEN_SECRET'] ?? newSecret(),
  // The name that the old cookie has, and keeps; `secure: false` here since this example has no TLS.
  cookie: { name: 'sessionId', secure: false }
})
const { tokenRegistry: registry } = app
/** Rows of the old store, by the id of the session that they became. */
const rowOf = new Map<string, string>()

/** Run at each start, before the server listens. @returns how many were adopted; what is there already stays as it is */
export async function adoptSessions (): Promise<number> {
  let adopted = 0
  for (const [sessionId, { user, cookie: { expires } }] of oldStore) {
    const ttl = expires ? new Date(expires).getTime() - Date.now() : 30 * 86_400_000
    // Sessions in their last second are left behind.
    if (user === undefined || ttl < 1000) continue
    // What browsers send is the signed id.
    const session = await registry.save(signer.sign(sessionId), { sub: user }, ttl).catch(error => error instanceof TokenExists ? null : Promise.reject(error))
    if (session === null) continue
    rowOf.set(session.id, sessionId)
    adopted++
  }
  return adopted
}
// Who signs out must not be adopted again at the next start.
registry.addHook('onEnd', ({ id }) => { oldStore.delete(rowOf.get(id) ?? '') })

app.post('/login', async request => {
  await request.startSession({ sub: 'ada' })
  return { ok: true }
})
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

oldStore.set('the-session-of-ada', { user: 'ada', cookie: {} }).set('the-session-of-a-visitor', { cookie: {} })
console.log(`${await adoptSessions()} of ${oldStore.size} rows adopted`)
const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl ${address}/me --cookie 'sessionId=${encodeURIComponent(signer.sign('the-session-of-ada'))}'`)
