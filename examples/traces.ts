// Spans of what sessions do, in the trace of the request. The SDK is the service's own: this one prints what it is given.
//
//   npx tsx examples/traces.ts
import { randomBytes } from 'node:crypto'
import { ConsoleSpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import Fastify from 'fastify'
import tokenRegistry, { memoryStore } from 'fastify-token-registry'
import tracing from 'fastify-token-registry/tracing'

const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(new ConsoleSpanExporter())] })
provider.register()

export const app = Fastify()
// Calls of a store are spans where it is passed in, as one outside the process is.
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64'), store: memoryStore() })
await app.register(tracing)
app.addHook('onClose', async () => { await provider.shutdown() })

app.post('/login', async request => {
  const { token } = await request.startSession({ sub: 'ada' })
  return { token }
})

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -i -X POST ${address}/login -H "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"`)
