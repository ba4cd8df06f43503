import { randomUUID } from 'node:crypto'
import t from 'tap'
import { createRedisStore } from '../../plugins/redis-store/index.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { redisCluster, redisSentinels, redisServer, until } from '../support/redis.ts'
import { newPrefix } from '../support/redis-store.ts'

t.test('a change that no replica has is made, but not confirmed, and its repetition is answered as it was', async t => {
  const { url } = await redisServer(t)
  const store = await createRedisStore({ url, keyPrefix: newPrefix() })
  const durable = await createRedisStore({ url, keyPrefix: newPrefix(), durability: 'replicas' })
  t.teardown(async () => await Promise.all([store.close(), durable.close()]))
  const record = sessionRecord()
  await t.rejects(durable.insert([record], { op: record.op }), { code: 'FST_STORE_UNCONFIRMED', statusCode: 503, critical: true, message: /no replicas/ })
  t.match(await durable.get(record.id), { id: record.id }, 'it was made')
  const cause = { reason: 'revoked', by: null, op: randomUUID() }
  for (let repeated = 0; repeated < 2; repeated++) await t.rejects(durable.end([record.id], cause), { code: 'FST_STORE_UNCONFIRMED' })
  t.equal(await durable.get(record.id), null)
  t.match(await durable.ending(record.id), { reason: 'revoked', op: cause.op })
})

/** What replicas may take on a machine that is busy. */
const commandTimeout = '3s'

t.test('a replica that hangs makes changes unconfirmed, until it goes on', async t => {
  const { sentinels, name, servers } = await redisSentinels(t, { replicas: 1, downAfter: 30_000 })
  const store = await createRedisStore({ sentinels, name, durability: 'replicas', keyPrefix: newPrefix(), commandTimeout })
  t.teardown(async () => await store.close())
  const record = sessionRecord()
  await store.insert([record], { op: record.op })
  const [, replica] = servers
  replica?.pause()
  const cause = { reason: 'revoked', by: null, op: randomUUID() }
  await t.rejects(store.end([record.id], cause), { code: 'FST_STORE_UNCONFIRMED', message: /0 of 1 replicas/ })
  replica?.resume()
  // As soon as the replica has caught up.
  const ended = await until('the repetition to be confirmed', servers, async () => await store.end([record.id], cause).catch(() => false))
  t.match(ended, [{ id: record.id }])
})

t.test('in a Cluster changes are confirmed by the replicas of their primary', async t => {
  const { nodes, servers } = await redisCluster(t)
  const store = await createRedisStore({ nodes, durability: 'replicas', keyPrefix: newPrefix(), commandTimeout })
  t.teardown(async () => await store.close())
  const records = Array.from({ length: 20 }, (_, index) => sessionRecord({ sub: `user ${index}` }))
  await Promise.all(records.map(async record => await store.insert([record], { op: record.op })))
  const presented = { once: false, generation: 0, kid: 1, binding: null, reuseWindow: 0, by: null }
  const outcomes = await Promise.all(records.map(async ({ id }) => await store.rotate(id, presented, randomUUID())))
  t.ok(outcomes.every(({ status }) => status === 'rotated'))
  t.ok(await store.mark('denylist', 'jti', store.now() + 60_000))

  for (const replica of servers.slice(3)) replica.pause()
  const results = await Promise.allSettled(records.map(async ({ id }) => await store.end([id], { reason: 'revoked', by: null, op: randomUUID() })))
  t.ok(results.every(result => result.status === 'rejected' && result.reason.code === 'FST_STORE_UNCONFIRMED'))
  for (const replica of servers.slice(3)) replica.resume()
})
