// What may be saved is up to the service: here every session names its device, and tokens from elsewhere have a prefix.
//
//   npx tsx examples/custom-validator.ts
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'

declare module 'fastify-token-registry' {
  interface SessionMeta {
    plan?: 'free' | 'pro'
  }
}

export const app = Fastify()
await app.register(tokenRegistry, {
  secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64'),
  // Runs after the default checks. What it throws becomes a 400 with this message.
  validator ({ data: { meta }, token }) {
    if (!meta?.deviceId) throw new Error('name the device in meta.deviceId')
    if (token !== null && !token.startsWith('legacy_')) throw new Error('tokens of the old system begin with legacy_')
  }
})

app.post<{ Querystring: { device?: string } }>('/login', async request => {
  const { device } = request.query
  const { token } = await request.startSession({ sub: 'ada', meta: { plan: 'pro', ...device && { deviceId: device } } })
  return { token }
})

app.post<{ Body: { token: string } }>('/import', async request => {
  const { id } = await app.tokenRegistry.save(request.body.token, { sub: 'ada', meta: { deviceId: 'imported' } }, '30d')
  return { id }
})

app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.meta)

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST '${address}/login?device=phone'`)
