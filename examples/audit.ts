// Who did what, provably unaltered: proof for an outsider that a session was revoked.
//
//   npx tsx examples/audit.ts      says how to sign in; then, with the token and the id of the session that the answer has
//   curl -X POST localhost:3000/logout -H 'authorization: Bearer <token>'
//   curl localhost:3000/audit/receipts/<id> -H 'authorization: Bearer <token of another sign-in>'
//   curl localhost:3000/audit/entries -H 'authorization: Bearer <token of another sign-in>'
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import audit, { auditRoutes, memoryLedger } from 'fastify-token-registry/audit'
import { verifyReceipt } from 'fastify-token-registry/audit/verify'

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })
// In production sqlLedger(new pg.Pool(…)), and anchors where who can write to the database cannot.
await app.register(audit, { ledger: memoryLedger(), origin: 'localhost/audit' })
await app.register(auditRoutes, { prefix: '/audit' })

app.post('/login', async request => await request.startSession({ sub: 'ada', scope: ['audit:read'] }))
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

app.post('/mail', { config: { session: true } }, async request => {
  await request.audit({ type: 'mail.change', data: { email: 'ada@example.com' } }) // sealed: it takes the scope audit:pii to read it
  return 'changed'
})

// What an outsider does, who has the receipt and the public keys, and nothing else.
app.post('/verify', async request => verifyReceipt(request.body, { vkeys: app.audit.vkeys, origin: 'localhost/audit' }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
