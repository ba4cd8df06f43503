import { randomUUID } from 'node:crypto'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
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
  const beat = Number(await server.command('get', 'tr:n:'))
  await until('another heartbeat', [server], async () => Number(await server.command('get', 'tr:n:')) > beat)
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

t.test('a clock that is set back is no loss', async t => {
  const server = await redisServer(t)
  const { store, told } = await open(t, { url: server.url })
  const ahead = (store.now() + 60_000) * 1000
  await server.command('set', 'tr:n:', String(ahead), 'PX', '60000')
  await until('a few heartbeats', [server], async () => Number(await server.command('get', 'tr:n:')) === ahead && store.staleness < 200)
  t.same(told, [])
})
