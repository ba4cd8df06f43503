import createError from '@fastify/error'
import fastifyRateLimit from '@fastify/rate-limit'
import type { FastifyPluginAsync, onRequestAsyncHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import type { RateLimit } from '../config.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** A hook that counts requests by address, and refuses those beyond a limit. Each one counts for itself. */
    limitBy (limit: RateLimit | false): onRequestAsyncHookHandler
  }
}

const TooManyRequests = createError<[number]>('APP_RATE_LIMIT', 'Too many requests from this address: retry in %d seconds', 429)

/** Limits all requests by IP address, those that are refused and those to unknown routes too. */
const rateLimits: FastifyPluginAsync<{ limit: RateLimit | false }> = async (app, { limit }) => {
  await app.register(fastifyRateLimit, { global: false })

  app.decorate('limitBy', limit => {
    if (limit === false) return async () => {}
    const count = app.createRateLimit({ max: limit.max, timeWindow: limit.timeWindowMs })

    return async (request, reply) => {
      const counted = await count(request)
      if (counted.isAllowed) return
      reply.headers({ 'x-ratelimit-limit': counted.max, 'x-ratelimit-remaining': counted.remaining, 'x-ratelimit-reset': counted.ttlInSeconds })
      if (!counted.isExceeded) return
      reply.header('retry-after', counted.ttlInSeconds)
      throw new TooManyRequests(counted.ttlInSeconds)
    }
  })
  app.addHook('onRequest', app.limitBy(limit))
}

export default fp(rateLimits, { name: 'app-rate-limits', fastify: '5.x' })
