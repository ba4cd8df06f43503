import { randomBytes } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStoreOptions } from '../plugins/redis-store/index.ts'
import { storeContract, type OpenedStore } from '../plugins/testing/index.ts'
import { redisCluster, redisSentinels, sharedRedis } from './support/redis.ts'

/** Of no other test. */
function newPrefix (): string {
  return `${randomBytes(6).toString('base64url')}:`
}

function opens (where: RedisStoreOptions): () => Promise<OpenedStore> {
  return async () => {
    const store = await createRedisStore({ ...where, keyPrefix: newPrefix() }, (error, message) => t.fail(message, { error }))
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

async function contract (t: Test, where: RedisStoreOptions): Promise<void> {
  t.jobs = 8
  for (const { name, run } of storeContract(opens(where))) t.test(name, { buffered: true }, async () => await run())
}

t.test('the store contract, standalone', async t => await contract(t, { url: (await sharedRedis()).url }))

t.test('the store contract, with Sentinels', async t => {
  const { name, sentinels } = await redisSentinels(t)
  await contract(t, { sentinels, name })
})

t.test('the store contract, in a Cluster', async t => {
  const { nodes } = await redisCluster(t)
  await contract(t, { nodes })
})
