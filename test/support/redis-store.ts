import { randomBytes } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import type { OpenedStore } from '../../plugins/testing/index.ts'

/** Of no other test. */
export function newPrefix (): string {
  return `${randomBytes(6).toString('base64url')}:`
}

/** Opens empty stores on a Redis, for the store contract. */
export function opens (where: RedisStoreOptions): () => Promise<OpenedStore> {
  return async () => {
    const store = await createRedisStore({ ...where, keyPrefix: newPrefix() })
    return {
      store,
      advance: async ms => {
        const until = store.now() + ms
        while (store.now() < until) await setTimeout(until - store.now())
      },
      close: async () => await store.close()
    }
  }
}
