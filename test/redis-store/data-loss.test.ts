import { randomUUID } from 'node:crypto'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import type { RedisStore } from '../../plugins/redis-store/redis-store.ts'
import { sessionRecord } from '../../plugins/testing/index.ts'
import { redisServer, until, type RedisServer } from '../support/redis.ts'

const presented = { once: true, generation: 0, kid: 1, binding: null, reuseWindow: 0, by: null }

async function open (t: Test, where: RedisStoreOptions): Promise<{ store: RedisStore, told: string[] }> {
  const told: string[] = []
  const store = await createRedisStore(where, (_error, message) => { told.push(message) })
  t.teardown(async () => await store.close())
  return { store, told }
}

async function insert (store: RedisStore, overrides: Parameters<typeof sessionRecord>[0] = {}): Promise<string> {
  const record = sessionRecord(overrides)
  await store.insert([record], { op: record.op })
  return record.id
}

/** How often each process has told a heartbeat. */
async function beats (server: RedisServer): Promise<number[]> {
  const names = await server.command('keys', 'tr:n:*') as string[] // what KEYS gives
  return await Promise.all(names.map(async name => Number(await server.command('get', name))))
}

/** Waits for a heartbeat of each process. */
async function nextBeat (server: RedisServer): Promise<void> {
  const before = await beats(server)
  await until('another heartbeat', [server], async () => (await beats(server)).every((count, index) => count > Number(before[index])))
}

/** Saves a snapshot now, and gives a function that restarts the server from it. */
async function snapshot (server: RedisServer): Promise<() => Promise<void>> {
  await server.command('save')
  const kept = join(server.folder, 'kept.rdb')
  await copyFile(join(server.folder, 'dump.rdb'), kept)
  return async () => {
    await server.kill()
    await copyFile(kept, join(server.folder, 'dump.rdb'))
    await server.start()
  }
}

t.test('a Redis that comes back from an old snapshot revives nothing that this process ended, consumed or marked', async t => {
  const server = await redisServer(t)
  const { store, told } = await open(t, { url: server.url })
  const [ended, one, other, kept] = [await insert(store), await insert(store, { sub: 'bob' }), await insert(store, { sub: 'bob', use: 'refresh' }), await insert(store)]
  const once = await insert(store, { use: 'once' })
  const issuedAt = store.now()
  const restore = await snapshot(server)

  await store.end([ended], { reason: 'revoked', by: null, op: randomUUID() })
  await store.endAll({ tenant: '', sub: 'bob' }, { reason: 'disabled', by: null, op: randomUUID() })
  const consumed = await store.rotate(once, presented, randomUUID())
  t.equal(consumed.status, 'rotated')
  await store.mark('denylist', 'jti', store.now() + 60_000)
  // The heartbeats go on beyond the snapshot.
  await nextBeat(server)
  await restore()

  await until('the loss to be noticed', [server], () => told.some(message => message.includes('has lost')))
  await until('what was ended to be ended again', [server], async () => await store.marked('denylist', 'jti') && await store.get(ended) === null)
  for (const id of [one, other]) t.equal(await store.get(id), null)
  t.match(await store.ending(one), { reason: 'disabled' })
  t.equal((await store.rotate(once, presented, randomUUID())).status, 'reused', 'a one-time token is consumed once')
  t.match(await store.get(kept), { id: kept })
  t.equal(await store.marked('denylist', 'of another process', issuedAt), true, 'what others may have marked meanwhile counts as marked, where it was issued before')
  t.equal(await store.marked('denylist', 'of another process', store.now() + 1), false)
})

t.test('a Redis that comes back empty refuses what was issued before', async t => {
  const server = await redisServer(t)
  const { store, told } = await open(t, { url: server.url })
  const id = await insert(store)
  const issuedAt = store.now()
  t.equal(await store.marked('denylist', 'jti', issuedAt), false)
  await server.kill()
  await server.restartEmpty()
  await until('the loss to be noticed', [server], () => told.some(message => message.includes('has lost')))
  await until('what is older to be refused', [server], async () => await store.marked('denylist', 'jti', issuedAt))
  t.equal(await store.get(id), null)
  const another = await open(t, { url: server.url })
  t.equal(await another.store.marked('denylist', 'jti', issuedAt), true, 'by a process that came later, too')
})

t.test('each process ends again what it ended, however long Redis was away', async t => {
  const server = await redisServer(t)
  const all = [await open(t, { url: server.url }), await open(t, { url: server.url }), await open(t, { url: server.url })]
  const ids = await Promise.all(all.map(async ({ store }, index) => await insert(store, { sub: `user ${index}` })))
  await nextBeat(server)
  const restore = await snapshot(server)
  await Promise.all(all.map(async ({ store }, index) => await store.end([ids[index] as string], { reason: 'revoked', by: null, op: randomUUID() })))
  await nextBeat(server)
  await server.kill()
  await after(2500)
  await restore()
  for (const { store } of all) await until('it to be heard again', [server], () => store.staleness < 1000)
  for (const [index, { store }] of all.entries()) await until('what it ended to be ended again', [server], async () => await store.get(ids[index] as string) === null)
  for (const { told } of all) t.equal(told.filter(message => message.includes('has lost')).length, 1, 'each says so once')
})

t.test('what was written after the last heartbeat is made again when another server answers, and a restart that lost nothing is no loss', async t => {
  const server = await redisServer(t)
  const { store, told } = await open(t, { url: server.url })
  const issuedAt = store.now()
  for (let times = 0; times < 3; times++) {
    const id = await insert(store)
    await nextBeat(server)
    const restore = await snapshot(server)
    await store.end([id], { reason: 'revoked', by: null, op: randomUUID() })
    await restore()
    await until('it to be ended again', [server], async () => await store.get(id).catch(() => 'not yet') === null)
    t.match(await store.ending(id), { reason: 'revoked' })
  }
  t.same(told.filter(message => message.includes('has lost')), [])
  t.equal(await store.marked('denylist', 'jti', issuedAt), false)
})

t.test('what one process ended for another that had died, it ends again', async t => {
  const server = await redisServer(t)
  const { store } = await open(t, { url: server.url })
  const id = await insert(store)
  await nextBeat(server)
  const cause = { reason: 'revoked', by: null, op: 'op' }
  const restore = await snapshot(server)
  await server.command('zadd', 'tr:q', String(store.now() - 60_000), JSON.stringify({ tenant: '', sub: 'alice', except: [], cause, at: store.now() - 60_000 }))
  await server.command('rename', 'tr:x:\n"alice"', 'tr:cx:\n"alice"\n"op"')
  await server.command('set', 'tr:c:\n"alice"\n"op"', '')
  await store.sweep()
  t.equal(await store.get(id), null)
  await restore()
  await until('it to be ended again', [server], async () => await store.get(id).catch(() => 'not yet') === null)
})
