// Sessions of browsers, in a cookie that scripts cannot read and other sites cannot use.
//
//   npx tsx examples/cookie-sessions.ts
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'

export const app = Fastify()
await app.register(tokenRegistry, {
  secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64'),
  idleTimeout: '30m',
  ttl: '12h',
  // Browsers take a Secure cookie from localhost too. Behind TLS nothing changes.
  cookie: true
})

app.get('/', { config: { session: { optional: true } } }, async (request, reply) => {
  reply.type('text/html')
  return request.auth === null
    ? '<form method="post" action="/login"><button>Sign in</button></form>'
    : `<p>Signed in since ${new Date(request.auth.session.issuedAt).toISOString()}</p><form method="post" action="/logout"><button>Sign out</button></form>`
})

// An HTML form without fields: nothing in its body is needed.
app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, async () => null)

app.post('/login', async (request, reply) => {
  await request.startSession({ sub: 'ada' })
  return reply.redirect('/', 303)
})

app.post('/logout', { config: { session: true } }, async (request, reply) => {
  await request.revokeSession()
  return reply.redirect('/', 303)
})

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`Open http://localhost:${new URL(address).port}`)
