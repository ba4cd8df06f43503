// What sessions do, for Prometheus: at /metrics, for who has the token of operators.
//
//   npx tsx examples/metrics.ts
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import metrics, { metricsRoutes } from 'fastify-token-registry/metrics'
import { Counter } from 'prom-client'

const operators = process.env['METRICS_TOKEN'] ?? randomBytes(32).toString('hex')

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })
await app.register(metrics, { labels: { region: 'eu' }, reasons: ['fraud'] })
await app.register(metricsRoutes, { token: operators })

// Metrics of the service itself stand beside the others.
const orders = new Counter({ name: 'orders_total', help: 'Orders that were taken.', registers: [app.metrics.register] })

app.post('/login', async request => {
  const { token } = await request.startSession({ sub: 'ada' })
  return { token }
})
app.post('/orders', { config: { session: true } }, async () => {
  orders.inc()
  return { ok: true }
})

// What else has to work for the service: told as token_registry_health_status.
app.tokenRegistry.healthChecks.add('warehouse', async () => ({ status: 'ok' }), { required: false })

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl ${address}/metrics -H "authorization: Bearer ${operators}"`)
