// Server-sent events that end with the session that opened them, wherever and however it ends.
//
//   npx tsx examples/live-connection.ts      says how to sign in; then
//   curl -N localhost:3000/events -H 'authorization: Bearer <token>'
//   curl -X POST localhost:3000/logout -H 'authorization: Bearer <token>'
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'

export const app = Fastify({ forceCloseConnections: true })
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })

app.post('/login', async request => await request.startSession({ sub: 'ada' }))
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

app.get('/events', { config: { session: true } }, (request, reply) => {
  const { session } = request.requireAuth()
  reply.hijack()
  const stream = reply.raw
  stream.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  stream.write(`data: hello ${session.sub}\n\n`)
  const ticking = setInterval(() => stream.write(`data: ${new Date().toISOString()}\n\n`), 1000)

  // With a WebSocket the same: watch(session.id, () => socket.close(4401)), and socket.on('close', stop).
  const stop = app.tokenRegistry.watch(session.id, ending => {
    stream.end(`event: signed-out\ndata: ${ending?.reason ?? 'unknown'}\n\n`)
  })
  stream.on('close', () => {
    clearInterval(ticking)
    stop()
  })
})

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
