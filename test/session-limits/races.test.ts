import t, { type Test } from 'tap'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import sessionLimits, { type SessionLimitsOptions } from '../../plugins/session-limits/index.ts'
import { memoryStore, type TokenRegistry, type TokenStore } from '../../plugins/token-registry/index.ts'
import { build, newSecret } from '../support/build.ts'
import { newPrefix } from '../support/redis-store.ts'
import { redisCluster, redisServer, type RedisServer } from '../support/redis.ts'
import { statusesOf } from '../support/rig.ts'

const ROUNDS = Number(process.env['LIMIT_ROUNDS'] ?? 50)
const INSTANCES = 3
const SIGN_INS = 50
const MAX = 3

/** How many keys of sessions name a subject and do not tell how one ended, which begins with E. */
const LIVE_KEYS = `
local count = 0
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local value = redis.call('GET', key)
  if string.find(value, ARGV[2], 1, true) and string.sub(value, 1, 1) ~= 'E' then count = count + 1 end
end
return count`

interface Place {
  registries: TokenRegistry[]
  /** Sessions of a subject that live, by the keys of the store alone; null where it has none to look at. */
  stored: ((sub: string) => Promise<number>) | null
}

type Where = (t: Test, options: SessionLimitsOptions) => Promise<Place>

const stores: Record<string, Where> = {
  memory: async (t, options) => {
    const store = memoryStore()
    t.teardown(() => store.close())
    return { registries: await instances(t, options, Array.from({ length: INSTANCES }, () => store)), stored: null }
  },
  Redis: async (t, options) => {
    const server = await redisServer(t)
    return await onRedis(t, options, { url: server.url }, [server])
  },
  'a Cluster': async (t, options) => {
    const { nodes, servers } = await redisCluster(t, { replicas: 0 })
    return await onRedis(t, options, { nodes }, servers)
  }
}

async function onRedis (t: Test, options: SessionLimitsOptions, where: RedisStoreOptions, servers: readonly RedisServer[]): Promise<Place> {
  const keyPrefix = newPrefix()
  const shared = await Promise.all(Array.from({ length: INSTANCES }, async () => {
    const store = await createRedisStore({ ...where, keyPrefix, commandTimeout: '20s' }) // a busy machine is none of ours
    t.teardown(() => store.close())
    return store
  }))
  const stored = async (sub: string): Promise<number> => {
    const counts = await Promise.all(servers.map(async server => Number(await server.command('eval', LIVE_KEYS, 0, `${keyPrefix}s:*`, `\n${JSON.stringify(sub)}\n`))))
    return counts.reduce((a, b) => a + b, 0)
  }
  return { registries: await instances(t, options, shared), stored }
}

async function instances (t: Test, options: SessionLimitsOptions, shared: readonly TokenStore[]): Promise<TokenRegistry[]> {
  const secret = newSecret()
  return await Promise.all(shared.map(async store => {
    const app = await build(t, { secret, store })
    await app.register(sessionLimits, options)
    return app.tokenRegistry
  }))
}

for (const [name, open] of Object.entries(stores)) {
  t.test(`on ${name}, of ${SIGN_INS} who sign in at once on ${INSTANCES} instances exactly ${MAX} are left`, async t => {
    for (const onExceed of ['end-oldest', 'end-least-recently-used', 'refuse'] as const) {
      const { registries, stored } = await open(t, { limits: [{ per: 'user', max: MAX, onExceed }] })
      const [registry] = registries as [TokenRegistry]
      const ended = new Set<string>()
      for (const each of registries) each.addHook('onEnd', ({ id }) => { ended.add(id) })
      for (let round = 0; round < ROUNDS; round++) {
        const sub = `user ${round}`
        const statuses = await statusesOf(Array.from({ length: SIGN_INS }, async (_, i) => await registries[i % INSTANCES]?.issue({ sub })))
        const { sessions } = await registry.list({ sub })
        const counts = [sessions.length, await registry.count({ sub }), ...stored === null ? [] : [await stored(sub)]]
        const expected = onExceed === 'refuse' ? { ok: MAX, FST_SESSION_LIMIT: SIGN_INS - MAX } : { ok: SIGN_INS }
        if (counts.some(count => count !== MAX) || JSON.stringify(statuses) !== JSON.stringify({ ...statuses, ...expected })) t.fail(`round ${round}: ${JSON.stringify({ counts, statuses })}`)
        t.notOk(sessions.some(({ id }) => ended.has(id)))
      }
      if (onExceed !== 'refuse') t.equal(ended.size, ROUNDS * (SIGN_INS - MAX), 'each ending is told once')
    }
  })
}

for (const [name, open] of Object.entries(stores)) {
  t.test(`on ${name}, of 100 who sign in at once to a tenant of 20 exactly 20 are let in`, async t => {
    const { registries } = await open(t, { limits: [{ per: 'tenant', max: 20 }] })
    const [registry] = registries as [TokenRegistry]
    for (let round = 0; round < 5; round++) {
      const tenant = `tenant ${round}`
      const statuses = await statusesOf(Array.from({ length: 100 }, async (_, i) => await registries[i % INSTANCES]?.issue({ tenant, sub: `user ${i}` })))
      t.same(statuses, { ok: 20, FST_SESSION_LIMIT: 80 })
      t.equal(await registry.count({ tenant }), 20)
      // Every place that is given back is taken again.
      const { sessions } = await registry.list({ tenant })
      await Promise.all(sessions.slice(0, 7).map(async ({ id }, i) => await registries[i % INSTANCES]?.revokeById(id)))
      let letIn = 0
      while (letIn < 7) letIn += (await statusesOf([registry.issue({ tenant, sub: `late ${letIn}` })]))['ok'] ?? 0
      t.equal(await registry.count({ tenant }), 20)
      await t.rejects(registry.issue({ tenant, sub: 'one more' }), { code: 'FST_SESSION_LIMIT' })
    }
  })
}
