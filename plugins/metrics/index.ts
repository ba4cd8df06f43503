import Fastify, { type FastifyInstance, type FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { Metrics } from './metrics.ts'
import { resolveOptions, type MetricsPluginOptions } from './options.ts'
import { metricsRoutes } from './routes.ts'
import { findTraces } from './traces.ts'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Metrics
  }
}

const metrics: FastifyPluginAsync<MetricsPluginOptions> = async (app, given) => {
  const options = resolveOptions(given)
  const metrics = new Metrics(app.tokenRegistry, options, await findTraces())
  app.decorate('metrics', metrics)
  app.tokenRegistry.observe(metrics.observer)
  metrics.http?.wire(app)
  if (options.listen !== undefined) await listen(app, metrics, options.listen)
}

/** A server of its own, for who reaches that port. */
async function listen (app: FastifyInstance, metrics: Metrics, where: { port: number, host: string }): Promise<void> {
  const own = Fastify({ requestTimeout: 5000, forceCloseConnections: true })
  own.decorate('metrics', metrics)
  await own.register(metricsRoutes, { public: true })
  const address = await own.listen(where)
  app.log.child({ plugin: 'metrics' }).info({ address: `${address}/metrics` }, 'metrics are at a port of their own')
  app.addHook('onClose', async () => { await own.close() })
}

export default fp(metrics, { name: 'metrics', fastify: '5.x', dependencies: ['token-registry'] })
export * from './errors.ts'
export type { Metrics, Scrape } from './metrics.ts'
export type { MetricsPluginOptions } from './options.ts'
export { metricsRoutes, type MetricsRoutesOptions } from './routes.ts'
