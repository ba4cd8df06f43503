import { context, trace } from '@opentelemetry/api'
import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { TracingOptions } from './errors.ts'
import { resolveOptions, type TracingPluginOptions } from './options.ts'
import { requestIdOf } from './request-ids.ts'
import { contextOf, keepsContext, spanObserver } from './spans.ts'

/** Around all others: what they measure is in the trace. */
const OUTSIDE = -1000

const tracing: FastifyPluginAsync<TracingPluginOptions> = async (app, given) => {
  const { requestIds, responseHeader } = resolveOptions(given)
  const { tokenRegistry } = app
  tokenRegistry.observe(spanObserver(trace.getTracer('fastify-token-registry'), tokenRegistry.storeName), { priority: OUTSIDE })

  if (requestIds) {
    if (app.initialConfig.requestIdHeader) throw new TracingOptions('Fastify\'s requestIdHeader takes whatever callers send: leave it out of the server, or set requestIds to false')
    app.setGenReqId(({ headers }) => requestIdOf(headers, () => trace.getActiveSpan()?.spanContext().traceId))
  }
  // Whatever the handler does is in the trace of the request. Not sooner: what reads a body loses it.
  if (keepsContext()) app.addHook('preValidation', (request, _reply, done) => context.with(contextOf(request), done))
  if (responseHeader !== false) {
    app.addHook('onSend', (request, reply, payload, done) => {
      reply.header(responseHeader, request.id)
      done(null, payload)
    })
  }
}

export default fp(tracing, { name: 'tracing', fastify: '5.x', dependencies: ['token-registry'] })
export * from './errors.ts'
export type { TracingPluginOptions } from './options.ts'
