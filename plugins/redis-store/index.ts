import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { Coherence } from './coherence.ts'
import { Confirmed } from './confirmed.ts'
import { Connection } from './connection.ts'
import { discreet, StoreAbsent, StoreOptions, StoreTooLate } from './errors.ts'
import { Keys } from './keys.ts'
import { resolveOptions, type RedisStoreOptions } from './options.ts'
import { RedisStore } from './redis-store.ts'

/**
 * A store on Redis, for token-registry or for a store decorator: standalone, with Sentinels, or a Cluster.
 *
 * @param log is told failures that no caller sees
 * @returns when Redis has answered
 * @throws `FST_STORE_OPTIONS`; `FST_STORE_ABSENT` where Redis does not answer and `requireAtStart` is not false
 * @example
 * const store = await createRedisStore({ url: 'redis://127.0.0.1' })
 * await fastify.register(tokenRegistry, { secret, store })
 */
export async function createRedisStore (given: RedisStoreOptions, log: (error: unknown, message: string) => void = () => {}): Promise<RedisStore> {
  const options = resolveOptions(given)
  const discreetLog: typeof log = (error, message) => log(discreet(error), message)
  const connection = new Connection(options, discreetLog)
  const keys = new Keys(options.keyPrefix, connection.cluster)
  const confirmed = options.durability === 'replicas' ? new Confirmed(options, keys, discreetLog) : null
  const store = new RedisStore(connection, keys, new Coherence(connection, keys), options, confirmed, discreetLog)
  try {
    await store.open()
    return store
  } catch (error) {
    if (error instanceof StoreAbsent) throw error
    const { message, cause } = error as Error // errors of the store are errors
    throw new StoreAbsent(connection.where, cause instanceof Error ? cause.message : message, { cause: error })
  }
}

const redisStore: FastifyPluginAsync<RedisStoreOptions> = async (app, options) => {
  if (app.hasDecorator('tokenRegistry')) throw new StoreTooLate()
  if (app.hasDecorator('tokenStore')) throw new StoreOptions('a store is registered here already, or in a context around this one: use that')
  const log = app.log.child({ plugin: 'redis-store' })
  const store = await createRedisStore(options, (error, message) => log.warn(error, message))
  app.decorate('tokenStore', store)
  app.addHook('onClose', async () => { await store.close() })
}

export default fp(redisStore, { name: 'redis-store', fastify: '5.x' })
export type { CheckReport } from './check.ts'
export { StoreAbsent, StoreOptions, StoreTooLate, StoreUnconfirmed } from './errors.ts'
export type { Address, RedisStoreOptions } from './options.ts'
export type { RedisStore } from './redis-store.ts'
