import Fastify, { type FastifyBaseLogger, type FastifyError, type FastifyInstance, type FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { Metrics } from './metrics.ts'
import { resolveOptions, type MetricsPluginOptions, type ResolvedOptions } from './options.ts'
import { metricsRoutes } from './routes.ts'
import { findTraces } from './traces.ts'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Metrics
  }
}

const metrics: FastifyPluginAsync<MetricsPluginOptions> = async (app, given) => {
  const options = resolveOptions(given)
  const log = app.log.child({ plugin: 'metrics' })
  const metrics = new Metrics(app.tokenRegistry, options, await findTraces(), (context, message) => log.warn(context, message))
  app.decorate('metrics', metrics)
  app.tokenRegistry.observe(metrics.observer)
  metrics.http?.wire(app)
  if (options.listen !== undefined) await serve(app, metrics, options.listen, log)
}

/** A server of its own. It keeps no process alive. */
async function serve (app: FastifyInstance, metrics: Metrics, { port, host = '127.0.0.1', ...operators }: NonNullable<ResolvedOptions['listen']>, log: FastifyBaseLogger): Promise<void> {
  const own = Fastify({ requestTimeout: 5000, forceCloseConnections: true })
  own.decorate('metrics', metrics)
  // A metric of the service's own may fail, and say why.
  own.setErrorHandler<FastifyError>((error, _request, reply) => {
    if (error.statusCode !== undefined && error.statusCode < 500) throw error
    log.error({ err: error }, 'metrics could not be read')
    return reply.code(500).send({ statusCode: 500, error: 'Internal Server Error', message: 'Metrics could not be read: the log says why' })
  })
  await own.register(metricsRoutes, { public: true, ...operators })
  app.addHook('onReady', async () => {
    const address = await own.listen({ port, host })
    own.server.unref()
    log.info({ address: `${address}/metrics` }, 'metrics are at a port of their own')
  })
  app.addHook('onClose', async () => { await own.close() })
}

export default fp(metrics, { name: 'metrics', fastify: '5.x', dependencies: ['token-registry'] })
export * from './errors.ts'
export type { Metrics, Scrape } from './metrics.ts'
export type { MetricsPluginOptions } from './options.ts'
export type { MetricsRegister } from './register.ts'
export { metricsRoutes, type MetricsRoutesOptions } from './routes.ts'
