import underPressure from '@fastify/under-pressure'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { endConnections } from './connections.ts'
import { HealthOptions } from './errors.ts'
import { Health, type Process } from './health.ts'
import { resolveOptions, type HealthPluginOptions, type Pressure } from './options.ts'

declare module 'fastify' {
  interface FastifyInstance {
    health: Health
  }
}

const health: FastifyPluginAsync<HealthPluginOptions> = async (app, given) => {
  const { shutdownDelay, closeTimeout, pressure } = resolveOptions(given)
  const health = new Health({
    // The host's, where it has one before this.
    process: app.hasPlugin('@fastify/under-pressure') ? hostOf(app, pressure) : await watchProcess(app, pressure),
    checks: app.tokenRegistry.healthChecks,
    shutdownDelay,
    close: async () => { await app.close() }
  })
  app.decorate('health', health)
  // A connection that is kept alive after its last answer would hold up the closing.
  app.addHook('onSend', (request, reply, payload, done) => {
    if (health.draining && request.raw.httpVersionMajor === 1) reply.header('connection', 'close')
    done(null, payload)
  })
  app.addHook('preClose', async () => { health.closed() })
  endConnections(app, closeTimeout)
}

function hostOf (app: FastifyInstance, pressure: Pressure): Process {
  const [limit] = Object.keys(pressure)
  if (limit !== undefined) throw new HealthOptions(`${limit}: @fastify/under-pressure is registered here already: give it its limits`)
  return processOf(app)
}

/** In a context of its own: the host may register the same plugin later. */
async function watchProcess (app: FastifyInstance, pressure: Pressure): Promise<Process> {
  let own: FastifyInstance = app
  await app.register(async child => {
    await child.register(underPressure, { ...pressure, sampleInterval: 1000, eventLoopUtilizationMode: 'interval' })
    own = child
  })
  return processOf(own)
}

function processOf (app: FastifyInstance): Process {
  return {
    usage: () => {
      const { eventLoopDelay, eventLoopUtilized, heapUsed, rssBytes } = app.memoryUsage()
      return { eventLoopDelay, eventLoopUtilization: eventLoopUtilized, heapUsedBytes: heapUsed, rssBytes }
    },
    isUnderPressure: () => app.isUnderPressure()
  }
}

export default fp(health, { name: 'health', fastify: '5.x', dependencies: ['token-registry'] })
export * from './errors.ts'
export type { Health, Readiness, Usage } from './health.ts'
export type { HealthPluginOptions, Pressure } from './options.ts'
export { healthRoutes, type HealthRoutesOptions } from './routes.ts'
