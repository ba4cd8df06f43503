import createError from '@fastify/error'

/** Redis cannot be used at start. */
export const RedisStart = createError<[string, ErrorOptions]>('APP_REDIS_START', 'Redis at REDIS_URL cannot be used: %s', 500)
