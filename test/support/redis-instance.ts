import { randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { createRedisStore, type RedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import type { TokenRegistryOptions, TokenStore } from '../../plugins/token-registry/index.ts'
import { newSecret } from './build.ts'
import { until } from './redis.ts'
import { bearer, get, serve } from './serve.ts'

/** A server on Redis, one of several that share it. */
export interface Instance {
  app: FastifyInstance
  store: RedisStore
  /** What the store logged. */
  log: string[]
}

/** Makes servers that share a secret and a prefix of keys. */
export function instances (t: Test, where: RedisStoreOptions): (options?: Options) => Promise<Instance> {
  const [secret, keyPrefix] = [newSecret(), `${randomBytes(6).toString('base64url')}:`]
  return async ({ decorate = (store: RedisStore): TokenStore => store, where: other, ...options } = {}) => {
    const log: string[] = []
    const store = await createRedisStore({ keyPrefix, ...where, ...other }, (error, message) => { log.push(`${message}: ${String(error)}`) })
    t.teardown(() => store.close())
    const app = await serve(t, { secret, store: decorate(store), ...options })
    return { app, store, log }
  }
}

interface Options extends Omit<Partial<TokenRegistryOptions>, 'store'> {
  decorate?: (store: RedisStore) => TokenStore
  /** What this one is told otherwise. */
  where?: RedisStoreOptions
}

export async function statusOf ({ app }: Instance, token: string, url = '/me'): Promise<number> {
  return (await get(app, url, bearer(token))).statusCode
}

/** Whether the next request is answered from memory. */
export function isCached ({ app }: Instance, token: string): boolean {
  return app.tokenRegistry.cached(`Bearer ${token}`) !== undefined
}

/** Asks until the answer is kept in memory. */
export async function warm (instance: Instance, token: string): Promise<void> {
  await until('the session is cached', [], async () => await statusOf(instance, token) === 200 && isCached(instance, token))
}

/** @returns ms from now until a request with the token is refused */
export async function refusedAfter (instance: Instance, token: string): Promise<number> {
  const began = performance.now()
  await until('the token is refused', [], async () => await statusOf(instance, token) === 401)
  return performance.now() - began
}
