import t, { type Test } from 'tap'
import type { RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import { storeContract } from '../../plugins/testing/index.ts'
import { redisCluster, redisSentinels, sharedRedis } from '../support/redis.ts'
import { opens } from '../support/redis-store.ts'

async function contract (t: Test, where: RedisStoreOptions): Promise<void> {
  t.jobs = 4
  for (const { name, run } of storeContract(opens(where))) t.test(name, { buffered: true }, async () => await run())
}

t.test('the store contract, standalone', async t => await contract(t, { url: (await sharedRedis()).url }))

t.test('the store contract, with Sentinels', async t => {
  const { name, sentinels } = await redisSentinels(t)
  await t.test('asynchronously', async t => await contract(t, { sentinels, name }))
  await t.test('confirmed by replicas', async t => await contract(t, { sentinels, name, durability: 'replicas' }))
})

t.test('the store contract, in a Cluster', async t => {
  const { nodes } = await redisCluster(t)
  await contract(t, { nodes, indexes: ['ip', 'client'] })
})
