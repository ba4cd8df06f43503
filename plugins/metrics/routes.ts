import { Type } from '@sinclair/typebox'
import type { FastifyPluginAsync } from 'fastify'
import { errorAnswers, Operators, ownOf, quietLevel, type OperatorOptions } from '../token-registry/index.ts'
import { MetricsOptions } from './errors.ts'

/** `public`: on a port that only operators reach. Else without `token` and `allow` nothing is mounted. */
export type MetricsRoutesOptions = OperatorOptions & { public?: boolean }

/**
 * `GET /metrics` for operators, as OpenMetrics or as text, by `Accept`. Fastify's own `prefix` goes before it.
 *
 * @example
 * await fastify.register(metricsRoutes, { token: process.env.METRICS_TOKEN })
 */
export const metricsRoutes: FastifyPluginAsync<MetricsRoutesOptions> = async (app, { public: isPublic = false, ...who }) => {
  if (!app.hasDecorator('metrics')) throw new MetricsOptions('metricsRoutes: the plugin metrics is not registered here')
  const operators = new Operators(ownOf(who), 'metricsRoutes')
  if (operators.none && !isPublic) {
    app.log.child({ plugin: 'metrics' }).warn('GET /metrics is not mounted: metricsRoutes has neither token nor allow')
    return
  }
  app.get('/metrics', {
    config: { session: false, rateLimit: false },
    logLevel: quietLevel(app),
    schema: {
      operationId: 'getMetrics',
      summary: 'What is measured, for Prometheus',
      tags: ['metrics'],
      security: operators.none ? [] : [{ operator: [] }],
      produces: ['text/plain', 'application/openmetrics-text'],
      response: { 200: Type.String({ description: 'OpenMetrics 1.0.0, or the text format 0.0.4 where that is not accepted', examples: ['# TYPE token_registry_info gauge\ntoken_registry_info{store="memory"} 1\n'] }), ...errorAnswers }
    },
    onRequest: (request, reply, done) => done(operators.refusalOf(request, reply) ?? undefined)
  }, async (request, reply) => {
    const { contentType, text } = await app.metrics.scrape(request.headers.accept)
    return reply.header('content-type', contentType).header('vary', 'accept').header('cache-control', 'no-store').send(text)
  })
}
