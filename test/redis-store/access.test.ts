import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import { hostileStrings, malformedStrings, sessionRecord } from '../../plugins/testing/index.ts'
import type { SessionLimit, SessionRecord } from '../../plugins/token-registry/index.ts'
import { build } from '../support/build.ts'
import { redisCluster, redisServer, until } from '../support/redis.ts'
import { newPrefix } from '../support/redis-store.ts'

const readme = readFileSync('plugins/redis-store/README.md', 'utf8')
const cause = { reason: 'revoked', by: null, op: 'an operation' }

/** Makes a store use every command that it knows. */
async function useAll (t: Test, options: RedisStoreOptions): Promise<void> {
  const store = await createRedisStore({ ...options, keyPrefix: `tr:${newPrefix()}` })
  t.teardown(() => store.close())
  const adopted = randomBytes(18).toString('base64url')
  const presented = (generation: number, once = false) => ({ once, generation, kid: 1, binding: null, reuseWindow: 0, by: null })
  const insert = async (session: Partial<SessionRecord>, limits: SessionLimit[] = []): Promise<string> => {
    const record = sessionRecord({ meta: { ipAddress: '192.0.2.1' }, client: 'app', idleTimeout: 60_000, ...session })
    await store.insert([record], { limits, op: record.op })
    return record.id
  }
  const first = await insert({})
  const second = await insert({}, [{ name: 'one', max: 1, onExceed: 'end-oldest' }])
  const bobs: string[] = []
  const many: SessionLimit[] = [{ name: 'many', max: 130, onExceed: 'end-least-recently-used' }]
  for (let i = 0; i < 130; i++) bobs.push(await insert({ sub: 'bob' }, many))
  await insert({ sub: 'bob' }, many)
  await store.touch(bobs.slice(0, 20).map(id => ({ id, at: store.now() + 10 })))
  await insert({ sub: 'bob' }, many)
  await insert({ id: adopted })
  const code = await insert({ use: 'once' })
  await store.rotate(code, presented(0, true), 'consume')
  await insert({ origin: code })
  await store.rotate(code, presented(0, true), 'consume again')
  await store.rotate(code, presented(0, true), 'consume again')

  for (const id of [first, second, adopted]) {
    await store.get(id)
    await store.touch([{ id, at: store.now() + 10 }])
    await store.update(id, { idleTimeout: 90_000 })
    await store.rotate(id, presented(0), id)
  }
  for (const query of [{}, { tenant: '', sub: 'alice' }, { ipAddress: '192.0.2.1' }, { client: 'app' }]) {
    await store.find(query, { limit: 1 })
    await store.count(query)
  }
  await store.mark('a purpose', 'a key', store.now() + 60_000)
  await store.marked('a purpose', 'a key')
  await store.end([second], cause)
  await store.ending(second)
  await store.ending(sessionRecord().id)

  const brief = await insert({ expiresAt: Date.now() + 50 })
  await until('a session has expired', [], async () => await store.get(brief) === null)
  await store.ending(brief)
  await insert({})
  await store.endAll({ tenant: '', sub: 'alice', except: [adopted] }, cause)
  await store.sweep()
  await store.check({ repair: true })
  await until('changes are watched', [], () => store.staleness < 1000)
  await store.health()
}

/** The rule that the README gives after some words, as arguments of ACL SETUSER. */
function ruleAfter (words: string): string[] {
  const [, rule = ''] = readme.slice(readme.indexOf(words)).match(/```\n(.*?)```/s) ?? []
  return rule.trim().split(/\s+/)
}

t.test('a user with the rights that the README names, and no other, can do everything; none of them is idle', async t => {
  const rule = ruleAfter('## ACL rule')
  t.match(rule, ['ACL', 'SETUSER', 'sessions', 'on'])
  const [, , user = '', ...rights] = rule
  const standalone = await redisServer(t)
  const { nodes, servers } = await redisCluster(t)
  for (const server of [standalone, ...servers]) await server.command('acl', 'setuser', user, ...rights)
  const access = { username: user, password: 'secret' }
  await useAll(t, { url: standalone.url, ...access, indexes: ['ip', 'client'] })
  await useAll(t, { nodes, ...access, durability: 'replicas' })
  let stats = ''
  for (const server of [standalone, ...servers]) {
    t.same(await server.command('acl', 'log'), [])
    stats += String(await server.command('info', 'commandstats'))
  }
  // Replicas are told +readonly, as soon as the client has got round to them.
  for (const right of rights.filter(right => right.startsWith('+') && right !== '+readonly')) t.ok(stats.includes(`cmdstat_${right.slice(1)}:`), `${right} is needed`)
})

t.test('a user who may do less is told so at start', async t => {
  const server = await redisServer(t)
  await server.command('acl', 'setuser', 'nobody', 'on', '>hunter2', 'allkeys', 'nocommands')
  const url = `redis://nobody:hunter2@127.0.0.1:${server.port}`
  await t.rejects(createRedisStore({ url }), { code: 'FST_STORE_ABSENT', message: /NOPERM/ })
  await server.command('acl', 'setuser', 'nobody', '+ping', '+info')
  await t.rejects(createRedisStore({ url }), { code: 'FST_STORE_ABSENT', message: /NOPERM/ })
})

t.test('with TLS', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'tls-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1']
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.crt', '-subj', '/CN=Test CA')
  openssl('req', '-x509', ...key, '-keyout', 'redis.key', '-out', 'redis.crt', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-CA', 'ca.crt', '-CAkey', 'ca.key')
  const file = (name: string): string => join(folder, name)
  const server = await redisServer(t, {
    'tls-port': '0', 'tls-cert-file': file('redis.crt'), 'tls-key-file': file('redis.key'), 'tls-ca-cert-file': file('ca.crt'), 'tls-auth-clients': 'no'
  })
  await server.command('config', 'set', 'tls-port', String(server.port + 1), 'port', String(server.port))
  const url = `rediss://localhost:${server.port + 1}`
  const ca = readFileSync(file('ca.crt'))

  const store = await createRedisStore({ url, tls: { ca } }, (error, message) => t.fail(message, { error }))
  t.teardown(() => store.close())
  const session = sessionRecord()
  await store.insert([session], { op: 'x' })
  t.match(await store.get(session.id), { sub: 'alice' })
  await until('changes are watched', [server], () => store.staleness < 1000)
  await t.rejects(createRedisStore({ url }), { code: 'FST_STORE_ABSENT', message: /certificate/ })
  await t.rejects(createRedisStore({ url, tls: { ca, servername: 'other.example' } }), { code: 'FST_STORE_ABSENT', message: /altnames|Hostname/ })
  const unchecked = await createRedisStore({ url, tls: { rejectUnauthorized: false } })
  await unchecked.close()
})

t.test('sessions are in the database that is given, and in no other', async t => {
  const server = await redisServer(t)
  const keyPrefix = 'tr:'
  const stores = await Promise.all([{ url: `${server.url}/3` }, { url: server.url, database: 4 }, { url: server.url }].map(async options => await createRedisStore({ ...options, keyPrefix })))
  const sessions = stores.map(() => sessionRecord())
  for (const [i, store] of stores.entries()) {
    t.teardown(() => store.close())
    await store.insert(sessions.slice(i, i + 1), { op: 'x' })
  }
  for (const [i, store] of stores.entries()) {
    t.same((await store.find({}, { limit: 9 })).sessions.map(({ id }) => id), [sessions[i]?.id])
    await until('changes are watched', [server], () => store.staleness < 1000)
  }
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  const heard: string[][] = []
  stores[0]?.onInvalidate(ids => heard.push([...ids]))
  const other = await createRedisStore({ url: `${server.url}/3`, keyPrefix })
  t.teardown(() => other.close())
  await other.end([sessions[0]?.id ?? ''], cause)
  await until('the other store hears of it', [server], () => heard.some(([id]) => id === sessions[0]?.id))
  t.match(await client.info('keyspace'), /db0:[^]*db3:[^]*db4:/)
})

/** All keys of a server but those that begin so, and what they hold. */
async function others (client: Redis, prefixes: readonly string[]): Promise<Array<[string, Buffer | null]>> {
  const keys = (await client.keys('*')).filter(key => !prefixes.some(prefix => key.startsWith(prefix))).sort()
  return await Promise.all(keys.map(async key => [key, await client.dumpBuffer(key)] as [string, Buffer | null]))
}

t.test('a prefix means itself, whatever a pattern or a script could take it for', async t => {
  const server = await redisServer(t)
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  const prefixes = ['*', '?:', '[a-z]:', '[^a]', '\\', '\\*', 'a b ', '%s', '"]]', 'x\n', '\'', 'é', '😀'.repeat(16), 'redis.call(', '-- ', 'x'.repeat(64)]
  const near = ['a:', 'b:', 'xx', 'a', '\\\\', '\\a', 'ab']
  for (const prefix of near) {
    await client.set(`${prefix}s:${sessionRecord().id}`, 'of somebody else')
    await client.zadd(`${prefix}x:\n"alice"`, 1, 'of somebody else')
  }
  const before = await others(client, prefixes)
  const stores = await Promise.all(prefixes.map(async keyPrefix => await createRedisStore({ url: server.url, keyPrefix })))
  for (const store of stores) t.teardown(() => store.close())
  const sessions = stores.map(() => [sessionRecord(), sessionRecord()])
  for (const [i, store] of stores.entries()) await store.insert(sessions[i] ?? [], { op: 'x' })
  for (const [i, store] of stores.entries()) {
    const { sessions: found } = await store.find({}, { limit: 9 })
    t.same(found.map(({ id }) => id).sort(), sessions[i]?.map(({ id }) => id).sort(), String(prefixes[i]))
    t.equal(await store.count({}), 2)
    t.equal(store.corrupt, 0)
    await until('changes are watched', [server], () => store.staleness < 1000)
  }
  for (const [i, store] of stores.entries()) {
    const id = sessions[i]?.[0]?.id ?? ''
    const heard: string[] = []
    store.onInvalidate(ids => heard.push(...ids))
    t.equal((await store.end([id], cause)).length, 1)
    await until('a change is heard of', [server], () => heard.filter(one => one === id).length >= 2)
    t.equal(await store.endAll({ tenant: '', sub: 'alice' }, { ...cause, op: 'another' }), 1)
    t.equal(await store.count({}), 0)
  }
  t.same(await others(client, prefixes), before)
})

t.test('ids, subjects and marks are opaque: other keys stay as they are, and no pattern is made of them', async t => {
  const server = await redisServer(t)
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  const keyPrefix = newPrefix()
  const sentinel = sessionRecord({ sub: 'an untouched subject' })
  const store = await createRedisStore({ url: server.url, keyPrefix })
  const { tokenRegistry: registry } = await build(t, { store, cache: false })
  t.teardown(() => store.close())
  await store.insert([sentinel], { op: 'x' })
  for (const name of ['session', 'a', 'tr:s:x', `${keyPrefix.slice(0, -1)}`, '*', '{}']) await client.set(name, 'of somebody else')
  const before = await others(client, [keyPrefix])

  const monitor = await client.monitor()
  t.teardown(() => monitor.disconnect())
  const commands: string[][] = []
  monitor.on('monitor', (_time: string, args: string[]) => { commands.push(args) })

  const huge = 'x'.repeat(2 ** 20)
  const texts = [...hostileStrings, ...malformedStrings, `${keyPrefix}*`, '*'.repeat(24), '?'.repeat(24), '[A-Za-z0-9_-]*'.padEnd(24, '*'), `${sentinel.id}\n`, `${sentinel.id}\0`, huge]
  for (const [i, text] of texts.entries()) {
    t.equal(await store.get(text), null)
    t.equal(await store.ending(text), null)
    t.equal(await store.update(text, { meta: {} }), null)
    t.same(await store.end([text], cause), [])
    await store.touch([{ id: text, at: Date.now() }])
    t.same(await store.rotate(text, { generation: 0, kid: 1, once: false, binding: null, reuseWindow: 0, by: null }, text), { status: 'unknown' })
    await t.rejects(store.insert([sessionRecord({ id: text })], { op: 'x' }), { code: 'FST_TOKEN_VALIDATION' })
    await t.rejects(store.find({}, { limit: 1, cursor: text }), { code: 'FST_TOKEN_VALIDATION' })
    t.equal(await store.mark(text, text, Date.now() + 60_000), true)
    t.equal(await store.marked(text, text), true)
    t.equal(await store.marked(text, `${text}x`), false)

    if (text === huge) {
      await t.rejects(registry.issue({ sub: text }), { code: 'FST_TOKEN_VALIDATION' })
      continue
    }
    const session = sessionRecord({ sub: text, tenant: text, op: text })
    const { inserted } = await store.insert([session], { op: text })
    t.same(inserted.map(({ id, tenant, sub }) => [id, tenant, sub]), [[session.id, text, text]])
    for (const query of [{ tenant: text, sub: text }, { sub: text }, { client: text }, { deviceId: text }, { ipAddress: text }]) {
      const count = 'sub' in query ? 1 : 0
      t.equal(await store.count(query), count)
      t.equal((await store.find(query, { limit: 9 })).sessions.length, count)
    }
    t.equal(await store.endAll({ tenant: text, sub: text, except: [text] }, { reason: text, by: text, op: `${text}${i}` }), 1)
    t.match(await store.ending(session.id), { reason: text, by: text, sub: text })
    await registry.get(text)
    t.equal(await registry.getById(text), null)
    if (i % 10 === 0) t.match(await store.get(sentinel.id), { id: sentinel.id })
  }
  t.equal(await store.count({}), 1)
  t.same(await others(client, [keyPrefix]), before)

  await client.echo('the end')
  await until('all commands are seen', [server], () => commands.some(([name, text]) => name === 'echo' && text === 'the end'))
  const own = commands.filter(([, , text]) => text !== undefined)
  const names = new Set(commands.map(([name]) => String(name).toLowerCase()))
  t.ok(own.length > 100)
  for (const name of ['flushall', 'flushdb', 'config', 'script']) t.notOk(names.has(name), name)
  t.same(commands.filter(([name]) => /^keys$/i.test(String(name))).map(([, pattern]) => pattern), ['*'], 'that of this test')
  const patterns = commands.filter(([name]) => /^[shz]?scan$/i.test(String(name))).map(args => args.slice(2).join(' '))
  t.same([...new Set(patterns)], [`MATCH ${keyPrefix}s:* COUNT 500`])
})
