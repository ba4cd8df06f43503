import { randomBytes, randomUUID } from 'node:crypto'
import t from 'tap'
import type { RedisStore } from '../../plugins/redis-store/index.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { instances, statusOf, warm, type Instance } from '../support/redis-instance.ts'
import { redisCluster, redisSentinels, until, type RedisServer } from '../support/redis.ts'
import { tokenOf } from '../support/serve.ts'

/** How often each way to die is tried; more often where somebody has the time. */
const ROUNDS = Number(process.env['FAILOVER_ROUNDS'] ?? 2)
/** ms within which writes succeed again */
const SENTINEL_BOUND = 3000
/** Mostly 2.5 to 3.8 s: the servers themselves take that long to agree. */
const CLUSTER_BOUND = 5000

/** Whether a write succeeds. */
async function writes (store: RedisStore, subject: { sub?: string } = {}): Promise<boolean> {
  const record = sessionRecord(subject)
  return await store.insert([record], { op: record.op }).then(() => true, () => false)
}

/** ms from now until a write succeeds */
async function writesAfter (store: RedisStore, servers: readonly RedisServer[], subject?: { sub?: string }): Promise<number> {
  const began = performance.now()
  await until('a write succeeds', servers, async () => await writes(store, subject))
  return performance.now() - began
}

const waysToFail = [['killed', server => server.kill()], ['hung', server => { server.pause() }]] as const satisfies ReadonlyArray<readonly [string, (server: RedisServer) => unknown]>

t.test('with Sentinels', async t => {
  const group = await redisSentinels(t)
  const { name, sentinels, servers } = group
  const instance = instances(t, { sentinels, name })
  const issuer = await instance({ reuseWindow: '1m' })
  const all = [issuer, await instance({ reuseWindow: '1m' }), await instance({ reuseWindow: '1m' })]
  const stores = all.map(({ store }) => store)
  const replicated = async (): Promise<void> => {
    await until('there is a primary, and the replicas are in sync', servers, async () => {
      const replication = String(await (await group.primary()).command('info', 'replication'))
      return replication.match(/state=online/g)?.length === servers.length - 1
    })
  }

  for (const [way, fail] of waysToFail) {
    await t.test(`writes go on after the primary was ${way}`, async t => {
      const times: number[] = []
      for (let round = 0; round < ROUNDS; round++) {
        await replicated()
        const before = await group.primary()
        const began = performance.now()
        await fail(before)
        const [promoted, ...rest] = await Promise.all([
          until('another is promoted', servers, async () => await group.primary() !== before && performance.now() - began),
          ...stores.map(async store => await writesAfter(store, servers))
        ])
        // Sentinels that a busy machine keeps from deciding are none of ours.
        t.ok(Math.max(...rest) < Math.max(SENTINEL_BOUND, promoted + 500))
        times.push(...rest)
        t.not(await group.primary(), before)
        if (way === 'hung') before.resume()
        else await before.start()
      }
      t.comment(`ms: ${times.map(ms => ms.toFixed(0)).join(', ')}`)
      for (const each of all) await warm(each, await tokenOf(each.app))
    })
  }

  await t.test('a primary that is made a replica is left', async t => {
    await replicated()
    const before = await group.primary()
    await until('it is a replica of another', servers, async () => {
      // Refused while a replica that was away has not been asked again; undone where another Sentinel still tells of the failover before.
      if (await group.primary() === before) await group.sentinelServers[0]?.command('sentinel', 'failover', name).catch(() => {})
      return String(await before.command('role')).startsWith('slave')
    })
    t.ok(Math.max(...await Promise.all(stores.map(async store => await writesAfter(store, servers)))) < SENTINEL_BOUND)
  })

  await t.test('100 rotations of one token, on three instances and through a failover, give one successor', async t => {
    await replicated()
    const first = await tokenOf(issuer.app, `rotating ${randomUUID()}`)
    const lineage = [first]
    for (let round = 0; round < 20; round++) {
      const fails = round % 10 === 5 && round < ROUNDS * 10
      if (fails) await replicated()
      const before = await group.primary()
      const token = lineage[round] ?? ''
      const successors = await Promise.all(Array.from({ length: 100 }, async (_, i) => {
        // In the middle: some were answered, some were done and not answered, some were not begun.
        if (fails && i === 50) before.kill().catch(() => {})
        const { app } = all[i % all.length] as Instance // there are three
        let successor = ''
        await until('it is rotated', servers, async () => {
          successor = (await app.tokenRegistry.rotate(token)).token
          return true
        })
        return successor
      }))
      t.equal(new Set(successors).size, 1)
      lineage.push(successors[0] ?? '')
      if (fails) await before.start()
    }
    const living: number[] = []
    for (const [generation, token] of lineage.entries()) if (await statusOf(issuer, token) === 200) living.push(generation)
    t.same(living, [19, 20], 'the last one lives, and for a while that before it')
  })
})

for (const [way, fail] of waysToFail) {
  t.test(`in a Cluster a primary that is ${way} under load stops nothing but its slots, and those for a moment`, async t => {
    const cluster = await redisCluster(t)
    const instance = instances(t, { nodes: cluster.nodes.slice(0, 3), keyPrefix: `${randomBytes(6).toString('base64url')}:` })
    const { store, log } = await instance()
    const subjects = Array.from({ length: 60 }, (_, i) => `user ${i}`)
    const homes = await Promise.all(subjects.map(async sub => {
      const { id } = sessionRecord({ sub })
      return await cluster.primaryOf(`{${id.slice(0, 4)}}`)
    }))
    const [first = ''] = subjects
    const victim = homes[0]
    const faults: string[] = []
    const over = new AbortController()
    let answered = 0
    const load = subjects.filter((_, i) => homes[i] !== victim).map(async sub => {
      while (!over.signal.aborted) {
        const record = sessionRecord({ sub })
        await store.insert([record], { op: record.op }).then(() => { answered++ }, error => { faults.push(String(error.cause ?? error)) })
      }
    })
    if (victim !== undefined) await fail(victim)
    const took = await writesAfter(store, cluster.servers, { sub: first })
    over.abort()
    await Promise.all(load)
    t.comment(`${took.toFixed(0)} ms, in which other slots took ${answered} writes`)
    t.ok(took < CLUSTER_BOUND)
    t.ok(answered > 100)
    t.same(faults, [], 'none of them failed')
    t.notMatch(log.join(), /CROSSSLOT/)
  })
}
