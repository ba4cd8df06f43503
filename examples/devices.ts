// The devices that a user signs in with: named, trusted, signed out, and a word to the owner about a new one.
//
//   npx tsx examples/devices.ts      says how to sign in; do it with -H 'device-token: <that of the answer>' too, then
//   curl localhost:3000/devices -H 'authorization: Bearer <token>'
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import sessionLimits from 'fastify-token-registry/session-limits'

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })
await app.register(sessionLimits, { devices: true })
const { devices, notifications } = app.sessionLimits

// In a real service a mail: see smtpChannel. The first sign-in of all is no news.
notifications.add(({ sub, device }) => console.log(`to ${sub}: a sign-in from a new device, ${device?.name}`), { types: ['new-device'] })

// The answer gives a device its token: browsers in a cookie, others in the header `device-token`.
app.post('/login', async request => await request.startSession({ sub: 'ada' }))

app.get('/devices', { config: { session: true } }, async request => {
  const { session } = request.requireAuth()
  return (await devices.list(session)).map(device => ({ ...device, current: device.id === session.meta.deviceId }))
})

app.patch<{ Params: { id: string }, Body: { name?: string, trusted?: boolean } }>('/devices/:id', {
  config: { session: true },
  schema: { body: { type: 'object', properties: { name: { type: 'string' }, trusted: { type: 'boolean' } } } }
}, async request => {
  const { session } = request.requireAuth()
  const { params: { id }, body: { name, trusted } } = request
  if (name !== undefined) await devices.rename(session, id, name)
  if (trusted !== undefined) await devices.trust(session, id, trusted)
  return await devices.get(session, id)
})

// Another's device is one that does not exist: 404.
app.delete<{ Params: { id: string } }>('/devices/:id', { config: { session: true } }, async request => {
  const { session } = request.requireAuth()
  return { ended: await devices.forget(session, request.params.id, { by: session.sub }) }
})

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -i -X POST ${address}/login`)
