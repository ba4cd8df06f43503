import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setImmediate } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import t from 'tap'
import { childEnv } from './support/child-env.ts'
import { soon } from './support/deferred.ts'
import { redisCluster, redisSentinels, redisServer, sharedRedis, until } from './support/redis.ts'

t.test('a server', async t => {
  t.test('that was killed starts on its port, with what it had on disk', async t => {
    const server = await redisServer(t, { appendonly: 'yes', appendfsync: 'always' })
    const { pid, port } = server
    await server.command('set', 'key', 'value')
    await server.kill()
    await t.rejects(server.command('ping'))
    t.throws(() => server.pid, /does not run/)

    await server.start()
    t.equal(server.port, port)
    t.not(server.pid, pid)
    t.equal(await server.command('get', 'key'), 'value')
    await server.restartEmpty()
    t.equal(await server.command('get', 'key'), null)
  })

  t.test('that keeps nothing on disk has nothing after it was killed', async t => {
    const server = await redisServer(t)
    await server.command('set', 'key', 'value')
    await server.kill()
    await server.start()
    t.equal(await server.command('get', 'key'), null)
  })

  t.test('that is paused takes connections and answers when it is resumed', async t => {
    const [server, other] = await Promise.all([redisServer(t), sharedRedis()])
    server.pause()
    let answered = false
    const answer = server.command('ping').finally(() => { answered = true })
    for (let i = 0; i < 50; i++) await other.command('ping')
    t.notOk(answered)
    t.notOk(server.answers)

    server.resume()
    t.equal(await soon(answer), 'PONG')
  })

  t.test('that is paused can be killed', async t => {
    const server = await redisServer(t)
    server.pause()
    await server.kill()
    await server.start()
    t.equal(await server.command('ping'), 'PONG')
  })

  t.test('that ended by itself can be killed', async t => {
    const server = await redisServer(t)
    await t.rejects(server.command('shutdown'))
    await server.kill()
    t.notOk(server.answers)
  })

  t.test('that does not start says why', async t => {
    await t.rejects(redisServer(t, { 'no-such-directive': '1' }), /Bad directive/)
  })

  t.test('is shared by a file', async t => {
    t.equal(await sharedRedis(), await sharedRedis())
  })

  t.test('ends with a process that is killed', async t => {
    const script = `
      import t from 'tap'
      import { redisServer } from './test/support/redis.ts'
      const { port, folder } = await redisServer(t)
      process.stderr.write(port + ' ' + folder + '\\n')
      setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { env: childEnv, stdio: ['ignore', 'ignore', 'pipe'] })
    const [line] = await once(createInterface(child.stderr), 'line')
    const [port, folder] = String(line).split(' ')
    const client = new Redis({ port: Number(port), retryStrategy: null })
    client.on('error', () => {})
    t.equal(await client.ping(), 'PONG')
    const closed = once(client, 'end')
    child.kill('SIGKILL')
    await soon(closed)
    while (existsSync(String(folder))) await setImmediate()
  })
})

t.test('Sentinels promote a replica of a primary that was killed, and make the primary its replica', async t => {
  const { name, sentinels, servers, primary } = await redisSentinels(t)
  const before = await primary()
  t.equal(before, servers[0])
  const client = new Redis({ sentinels: [...sentinels], name })
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  await client.set('key', 'value')
  t.equal(await client.wait(2, 5000), 2)

  await before.kill()
  const after = await primary()
  t.not(after, before)
  t.equal(await after.command('get', 'key'), 'value')
  await before.start()
  await until('it is a replica', servers, async () => String(await before.command('info', 'replication')).includes('master_link_status:up'))
  t.equal(await primary(), after)
})

t.test('a cluster answers for all slots, and promotes the replica of a primary that was killed', async t => {
  const { nodes, servers, primaryOf } = await redisCluster(t)
  const client = new Cluster([...nodes])
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  const keys = Array.from({ length: 50 }, (_, i) => `key ${i}`)
  for (const key of keys) await client.set(key, key)
  t.equal(new Set(await Promise.all(keys.map(primaryOf))).size, 3)

  const before = await primaryOf('key 0')
  t.ok(servers.slice(0, 3).includes(before))
  await before.kill()
  const after = await primaryOf('key 0')
  t.equal(after, servers[servers.indexOf(before) + 3])
  const values = await Promise.all(keys.map(async key => (await primaryOf(key)).command('get', key)))
  t.same(values, keys)
})
