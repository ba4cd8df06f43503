import createError from '@fastify/error'
import fastifyRateLimit, { normalizeIP } from '@fastify/rate-limit'
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { RateLimit } from '../config.ts'
import { clientAddress } from './client-address.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** An onRequest hook that counts requests by address, and refuses those beyond a limit. Each one counts for itself. */
    limitBy (limit: RateLimit | false): (request: FastifyRequest, reply: FastifyReply) => Promise<void>
  }
}

const TooManyRequests = createError<[number]>('APP_RATE_LIMIT', 'Too many requests from this address: retry in %d seconds', 429)

/**
 * Limits all requests by IP address, those that are refused and those to unknown routes too. A route with `rateLimit: false` in its
 * config is not counted.
 */
const rateLimits: FastifyPluginAsync<{ limit: RateLimit | false }> = async (app, { limit }) => {
  await app.register(fastifyRateLimit, { global: false, keyGenerator: networkOf })

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

  const limitAll = app.limitBy(limit)
  app.addHook('onRequest', async (request, reply) => {
    if (request.routeOptions.config?.rateLimit !== false) await limitAll(request, reply)
  })
}

/** Whose budget a request counts against: an IPv4 address, the /64 of an IPv6 address, or that of all whose address is not known. */
function networkOf (request: FastifyRequest): string {
  const address = clientAddress(request)
  return address === null ? 'unknown' : normalizeIP(address)
}

export default fp(rateLimits, { name: 'app-rate-limits', fastify: '5.x' })
