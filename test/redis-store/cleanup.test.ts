import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import type { Ending, SessionRecord } from '../../plugins/token-registry/index.ts'
import { redisProxy } from '../support/redis-proxy.ts'
import { redisCluster, redisServer, sharedRedis, until, type RedisServer } from '../support/redis.ts'
import { newPrefix } from '../support/redis-store.ts'

/** ms that a lease lasts, and what else it may take another process to take it. */
const LEASE = 5000
const SLACK = 1500
/** Sessions that a step ends at most. */
const STEP = 10

const idle = { idleTimeout: 100 }

async function open (t: Test, where: RedisStoreOptions, log?: string[]): Promise<RedisStore> {
  const store = await createRedisStore({ cleanupInterval: 100, ...where }, (error, message) => log?.push(`${message}: ${String(error)}`))
  t.teardown(async () => await store.close())
  return store
}

/** Stores sessions, four of each subject where none is named. */
async function insert (store: RedisStore, count: number, overrides: Partial<SessionRecord> = {}): Promise<SessionRecord[]> {
  const all: SessionRecord[] = []
  for (let first = 0; first < count; first += 2000) {
    const records = Array.from({ length: Math.min(2000, count - first) }, (_, i) => sessionRecord({ sub: `user ${Math.floor((first + i) / 4)}`, ...overrides }))
    all.push(...(await store.insert(records, { op: randomUUID() })).inserted)
  }
  return all
}

/** What instances tell to have expired. */
function tellings (stores: readonly RedisStore[]): Ending[] {
  const told: Ending[] = []
  for (const store of stores) store.onExpire((_, ending) => told.push(ending))
  return told
}

function sum (stores: readonly RedisStore[], name: string): number {
  return stores.reduce((total, store) => total + Number(store.figures()[name]), 0)
}

async function keys (servers: readonly RedisServer[], pattern: string): Promise<string[]> {
  return (await Promise.all(servers.map(async server => await server.command('keys', pattern) as string[]))).flat().sort()
}

interface Seen {
  name: string
  args: string[]
  /** The connection, or `lua`. */
  from: string
}

/** What a server is told from now on. By a socket: a client of ioredis takes for answers what comes with that to MONITOR. */
async function monitored (t: Test, server: RedisServer): Promise<{ seen: Seen[], flush: () => Promise<void> }> {
  const socket = connect(server.port, server.host)
  t.teardown(() => socket.destroy())
  const seen: Seen[] = []
  const lines = createInterface({ input: socket })
  lines.on('line', line => {
    const [, from, command = ''] = /^\+\S+ \[\d+ (\S+)\] (.*)$/.exec(line) ?? []
    if (from === undefined) return
    const [name = '', ...args] = Array.from(command.matchAll(/"((?:[^"\\]|\\.)*)"/g), ([, text = '']) => text)
    seen.push({ name: name.toLowerCase(), args, from })
  })
  const begun = once(lines, 'line')
  socket.write('MONITOR\r\n')
  await begun
  return {
    seen,
    flush: async () => {
      const mark = randomUUID()
      await server.command('echo', mark)
      await until('all commands are seen', [server], () => seen.some(({ name, args: [text] }) => name === 'echo' && text === mark))
    }
  }
}

t.test('what expired and nobody asks for leaves the store and its indexes, and is told once by all instances together', async t => {
  const server = await redisServer(t)
  const where: RedisStoreOptions = { url: server.url, keyPrefix: 'tr:', keepEndings: 5000, indexes: ['ip'] }
  const stores = await Promise.all(Array.from({ length: 3 }, async () => await open(t, where)))
  const [store] = stores as [RedisStore]
  const told = tellings(stores)
  const before = await keys([server], 'tr:[sxoui]:*')

  const lives = await insert(store, 40, { meta: { ipAddress: '192.0.2.1' } })
  const used = await insert(store, 4, { idleTimeout: 500 })
  await store.touch(used.map(({ id, lastUsedAt }) => ({ id, at: lastUsedAt + 20 })))
  const gone = [
    ...used,
    ...await insert(store, 300, { ...idle, meta: { ipAddress: '192.0.2.2' } }),
    ...await insert(store, 50, { expiresAt: Date.now() + 100 }),
    ...await insert(store, 50, { expiresAt: Date.now() + 100, use: 'once', sub: 'code' }),
    ...await insert(store, 2 * STEP + 7, { ...idle, sub: 'many' })
  ]
  await until('all of it is told', [server], () => told.length >= gone.length)
  t.same((await keys([server], 'tr:[xo]:*')), Array.from({ length: 10 }, (_, i) => `tr:x:\n"user ${i}"`).sort(), 'indexes list what lives')
  t.same(told.map(({ id }) => id).sort(), gone.map(({ id }) => id).sort(), 'each once')
  t.match(told.find(({ id }) => id === gone[0]?.id), { reason: 'idle', by: null, at: Number(gone[0]?.lastUsedAt) + 520, sub: 'user 0' })
  t.match(told.find(({ sub }) => sub === 'code'), { reason: 'expired' })
  t.match(await store.ending(String(gone.at(-1)?.id)), { reason: 'idle', sub: 'many' }, 'an ending is kept for a while')

  const left = [...lives.map(({ id }) => `tr:s:${id}`), ...(await keys([server], 'tr:[xi]:*'))].sort()
  await until('endings are forgotten', [server], async () => (await keys([server], 'tr:[sxoui]:*')).length === left.length)
  t.same(await keys([server], 'tr:[sxoui]:*'), left)
  t.equal((await keys([server], 'tr:i:*')).length, 1, 'the other address has nobody any more')
  t.same(before, [])
  t.equal(told.length, gone.length)
  t.equal(sum(stores, 'removed'), gone.length)
  for (const { id } of lives.slice(0, 3)) t.match(await store.get(id), { id })
})

t.test('one instance at a time goes through, and all together no more often than twice in an interval', async t => {
  const server = await redisServer(t)
  const first = await open(t, { url: server.url, cleanupInterval: false })
  await insert(first, 3000)
  const { seen, flush } = await monitored(t, server)
  const began = performance.now()
  const stores = await Promise.all(Array.from({ length: 3 }, async () => await open(t, { url: server.url })))
  await until('each has been at it', [server], () => stores.every(store => Number(store.figures()['cleanups']) > 1))
  const passes = sum(stores, 'cleanups')
  t.ok(performance.now() - began >= (passes - 1) * 50)
  t.equal(first.figures()['cleanups'], 0, 'one that is told never to does not')
  t.ok(stores.some(store => store.figures()['sessions'] === 3000), 'who went through last knows how many live')
  t.notOk('sessions' in first.figures())

  await flush()
  const scans = seen.filter(({ name }) => name === 'scan')
  t.same(new Set(scans.map(({ args }) => args.slice(1).join(' '))), new Set(['MATCH tr:[xo]:* COUNT 250 TYPE zset']))
  const begun = scans.filter(({ args: [cursor] }) => cursor === '0')
  t.ok(begun.length >= passes && scans.length > 5 * begun.length)
  let current: Seen | undefined
  const between = scans.filter(scan => {
    if (scan.args[0] === '0') current = scan
    return scan.from !== current?.from
  })
  t.same(between, [], 'no other comes in between')
})

t.test('of 20,000 sessions half of which are idle each step ends a few, and memory returns', async t => {
  // By default Redis leaves up to a tenth of what has expired until it is asked for.
  const server = await redisServer(t, { 'active-expire-effort': '10' })
  const memory = async (): Promise<number> => Number(/used_memory:(\d+)/.exec(String(await server.command('info', 'memory')))?.[1])
  const store = await open(t, { url: server.url, keepEndings: 1000, cleanupInterval: false })
  await insert(store, 10_000)
  const before = await memory()
  const told = tellings([store])
  await insert(store, 10_000, idle)
  const full = await memory()

  const { seen, flush } = await monitored(t, server)
  const other = await open(t, { url: server.url, keepEndings: 1000 })
  await until('all of it is gone', [server], () => other.figures()['removed'] === 10_000)
  await flush()
  await until('a pass is done', [server], () => Number(other.figures()['cleanups']) > 0)
  const given = seen.filter(({ name, args }) => name === 'evalsha' && String(args[2]).startsWith('tr:s:')).map(({ args }) => Number(args[1]))
  t.equal(given.reduce((a, b) => a + b, 0), 10_000)
  t.ok(Math.max(...given) <= STEP, 'no script is given more')
  t.ok(given.length <= 3 * 10_000 / STEP, 'nor much less')
  const looks = seen.filter(({ name, from }) => name === 'zrangebyscore' && from !== 'lua')
  t.ok(looks.length >= 2500 && looks.every(({ args }) => args.slice(3).join(' ') === `LIMIT 0 ${STEP}`))
  t.same(told, [], 'nobody else has told any')
  t.ok(await store.count({}) >= 10_000, 'some may count twice while Redis makes its table of keys smaller')

  await until('memory returns', [server], async () => await memory() - before < 0.25 * (full - before))
})

t.test('a subject whose sessions cannot all be read, or are gone, keeps nobody waiting', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url, cleanupInterval: false })
  const sessions = await insert(store, 200, { ...idle, sub: 'alice' })
  const [damaged, gone, early] = [sessions.slice(0, 60), sessions.slice(60, 110), await insert(store, 10, { sub: 'alice' })]
  await Promise.all(damaged.map(async ({ id }) => await server.command('set', `tr:s:${id}`, 'garbage', 'KEEPTTL')))
  await Promise.all(gone.map(async ({ id }) => await server.command('del', `tr:s:${id}`)))
  // One that the index takes for expired, though it is not.
  await server.command('zadd', 'tr:x:\n"alice"', 7, String(early[0]?.id))
  const foreign = ['tr:x:list', 'tr:o:"code"', 'tr:x:\n"alice"\n', 'tr:x:\n7', 'tr:x:""\n"alice"']
  for (const key of foreign) await server.command('zadd', key, 1, 'theirs')
  await server.command('set', 'tr:x:\n"text"', 'theirs')

  const other = await open(t, { url: server.url })
  await until('the rest is removed', [server], () => other.figures()['removed'] === 90)
  const passes = Number(other.figures()['cleanups'])
  await until('two more passes are done', [server], () => Number(other.figures()['cleanups']) > passes + 1)
  t.equal(await server.command('zcard', 'tr:x:\n"alice"'), 70, 'what is there stays listed')
  t.match(await store.get(String(early[0]?.id)), { sub: 'alice' })
  for (const key of foreign) t.equal(await server.command('zscore', key, 'theirs'), '1')
})

t.test('what a search or a use finds expired is ended in slices too', async t => {
  const server = await redisServer(t)
  const store = await open(t, { url: server.url, cleanupInterval: false })
  const sessions = await insert(store, 200, { ...idle, sub: 'alice' })
  const told = tellings([store])
  await until('they are idle', [server], () => sessions.every(({ lastUsedAt }) => lastUsedAt + 100 < store.now()))
  const { seen, flush } = await monitored(t, server)
  t.same((await store.find({ tenant: '', sub: 'alice' }, { limit: 10 })).sessions, [])
  await until('all are told', [server], () => told.length === 200)
  await flush()
  t.ok(seen.filter(({ name }) => name === 'evalsha').every(({ args }) => Number(args[1]) <= 80))
  t.equal(store.figures()['removed'], 200)
})

t.test('where the one that holds the lease falls silent, another goes on when it ends', async t => {
  const server = await redisServer(t)
  const proxy = await redisProxy(t, server.port)
  const idler = await open(t, { url: server.url, cleanupInterval: false })
  await insert(idler, 4000, idle)
  const silent = await open(t, { url: proxy.url, commandTimeout: 300 })
  await until('one is at it', [server], () => Number(silent.figures()['removed']) > 0)
  proxy.halt()
  proxy.haltNew(true)
  const began = performance.now()
  const other = await open(t, { url: server.url })
  await until('another is', [server], () => Number(other.figures()['removed']) > 0)
  const ms = performance.now() - began
  t.ok(ms < LEASE + SLACK, `after ${ms.toFixed(0)} ms`)
  await until('all of it is gone', [server], () => sum([silent, other], 'removed') >= 4000 - STEP) // of those that it ended in silence it does not know
  t.ok(silent.figures()['cleanups'] === 0)
  await until('nothing is left', [server], async () => (await keys([server], 'tr:x:*')).length === 0)
})

t.test('where the one that holds the lease closes, another goes on at once', async t => {
  const server = await redisServer(t)
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  const idler = await open(t, { url: server.url, cleanupInterval: false })
  await insert(idler, 4000, idle)
  for (const where of [{ url: server.url }, { client }]) {
    const closing = await open(t, where)
    await until('one is at it', [server], () => Number(closing.figures()['removed']) > 0)
    t.equal(await server.command('exists', 'tr:l:cleanup'), 1)
    await closing.close()
    await until('it has let go', [server], async () => await server.command('exists', 'tr:l:cleanup') === 0)
    t.equal(closing.figures()['cleanups'], 0)
  }
  const { seen, flush } = await monitored(t, server)
  t.equal(await client.ping(), 'PONG')
  const other = await open(t, { url: server.url })
  await until('another is at it', [server], () => Number(other.figures()['removed']) > 0)
  await until('all of it is gone', [server], async () => (await keys([server], 'tr:x:*')).length === 0)
  await flush()
  t.equal(new Set(seen.filter(({ name }) => name === 'scan').map(({ from }) => from)).size, 1, 'and the ones that closed are not')
})

t.test('one that hung, while another took the lease, notices before it goes on', async t => {
  const server = await redisServer(t)
  const idler = await open(t, { url: server.url, cleanupInterval: false })
  await insert(idler, 4000, idle)
  const store = await open(t, { url: server.url, commandTimeout: '20s' })
  await until('it is at it', [server], () => Number(store.figures()['removed']) > 0)
  const { seen, flush } = await monitored(t, server)
  // This process does nothing meanwhile.
  execFileSync('sh', ['-c', `until [ "$(redis-cli -p ${server.port} set tr:l:cleanup another nx px 60000)" = OK ]; do :; done`])
  const asksForTheLease = ({ name, args }: Seen): boolean => name === 'evalsha' && args[2] === 'tr:l:cleanup'
  const since = (): Seen[] => seen.slice(seen.findLastIndex(({ name, args }) => name === 'set' && args[1] === 'another'))
  await until('it asks for the lease four times', [server], () => since().filter(asksForTheLease).length > 3)
  await flush()
  t.same(since().filter(({ name, args }) => name === 'evalsha' && String(args[2]).startsWith('tr:s:')), [], 'it ends nothing more')
  t.ok(Number(store.figures()['removed']) < 4000)
  t.equal(store.figures()['cleanups'], 0)
})

t.test('a failure is told where it persists, once each time', async t => {
  const server = await redisServer(t)
  const user = async (...rights: string[]): Promise<void> => { await server.command('acl', 'setuser', 'sessions', ...rights) }
  await user('on', '>secret', '~*', '&*', '+@all', '-zrangebyscore')
  const log: string[] = []
  const store = await open(t, { url: server.url, username: 'sessions', password: 'secret' }, log)
  await insert(store, 10, idle)
  await insert(store, 1)
  const { seen } = await monitored(t, server)
  const failures = (): number => seen.filter(({ name, args }) => name === 'evalsha' && args[2] === 'tr:l:cleanup').length
  for (const times of [1, 2]) {
    const before = failures()
    await until('it is told', [server], () => log.length === times)
    await until('it has failed some times more', [server], () => failures() > before + 6)
    t.equal(log.length, times)
    t.match(log.at(-1), /what has expired is not removed from Redis: ReplyError: NOPERM/)

    await user('+zrangebyscore')
    const passes = Number(store.figures()['cleanups'])
    await until('it succeeds', [server], () => Number(store.figures()['cleanups']) > passes)
    await user('-zrangebyscore')
  }
  t.equal(store.figures()['removed'], 10)
})

t.test('in a Cluster', async t => {
  const { nodes, servers } = await redisCluster(t, { replicas: 0 })
  const stores = await Promise.all(Array.from({ length: 3 }, async () => await open(t, { nodes, keepEndings: 1000 })))
  const [store] = stores as [RedisStore]

  await t.test('indexes of all primaries are gone through', async t => {
    const told = tellings(stores)
    const lives = await insert(store, 40)
    const minted = await insert(store, 400, idle)
    const adopted = await Promise.all(Array.from({ length: 20 }, async (_, i) => (await insert(store, 1, { ...idle, id: randomBytes(18).toString('base64url'), sub: `user ${i}` }))[0] as SessionRecord))
    await until('all of it is told', servers, () => told.length >= minted.length + adopted.length)
    t.same(told.map(({ id }) => id).sort(), [...minted, ...adopted].map(({ id }) => id).sort(), 'each once')
    await until('endings are forgotten', servers, async () => (await keys(servers, 'tr:s:*')).length === lives.length)
    t.equal((await keys(servers, 'tr:x:*')).length, 10)
    t.equal(sum(stores, 'removed'), told.length)
  })

  await t.test('an index that is on its way to another primary is passed over, and the others are not', async t => {
    const [from, to] = servers as [RedisServer, RedisServer]
    const mine = await keys([from], 'tr:x:*')
    const slot = Number(await from.command('cluster', 'keyslot', String(mine[0])))
    await to.command('cluster', 'setslot', slot, 'importing', String(await from.command('cluster', 'myid')))
    t.teardown(async () => await to.command('cluster', 'setslot', slot, 'stable'))
    const client = new Redis(to.url)
    t.teardown(() => client.disconnect())
    await client.call('ASKING')
    await client.zadd(`${mine[0]}`, 1, 'moved already')

    const told = tellings(stores)
    const gone = await insert(store, 100, idle)
    await until('all of it is told', servers, () => told.length >= gone.length)
    const passes = sum(stores, 'cleanups')
    await until('passes are done', servers, () => sum(stores, 'cleanups') > passes)
    await client.call('ASKING')
    t.equal(await client.zcard(`${mine[0]}`), 1)

    const found: string[] = []
    for await (const { sub } of store.subjects()) found.push(sub)
    t.same(new Set(found), new Set(Array.from({ length: 10 }, (_, i) => `user ${i}`)), 'who has sessions is told all the same')
  })
})

t.test('the interval is named where it is not what it may be', async t => {
  const { url } = await sharedRedis()
  const faults: Array<[unknown, RegExp]> = [
    ['soon', /cleanupInterval is 'soon': it may be a number of milliseconds, or text such as "15m", or false/],
    [true, /cleanupInterval is true/],
    [99, /cleanupInterval is 99 ms: it may be 100 to 86400000/],
    ['25h', /cleanupInterval is 90000000 ms/]
  ]
  for (const [cleanupInterval, message] of faults) {
    await t.rejects(createRedisStore({ url, keyPrefix: newPrefix(), cleanupInterval } as RedisStoreOptions), { code: 'FST_STORE_OPTIONS', message })
  }
})
