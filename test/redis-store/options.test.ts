import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import fastifyRedis from '@fastify/redis'
import Fastify, { type FastifyInstance, type LightMyRequestResponse } from 'fastify'
import { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import redisStore, { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import tokenRegistry from '../../plugins/token-registry/index.ts'
import { newSecret } from '../support/build.ts'
import { childEnv } from '../support/child-env.ts'
import { redisServer, sharedRedis, until } from '../support/redis.ts'
import { bearer, recorder } from '../support/serve.ts'

const newPrefix = (): string => `${randomBytes(6).toString('base64url')}:`
const here = { host: '127.0.0.1', port: 6379 }

/** What registering with options that callers without types could give comes to. */
async function refusal (options: object): Promise<{ code: string, message: string }> {
  const app = Fastify()
  try {
    await app.register(redisStore, options as RedisStoreOptions)
    return { code: '', message: 'no refusal' }
  } catch (error) {
    return error as { code: string, message: string } // all are made by `define`
  } finally {
    await app.close()
  }
}

/** A server that signs in, tells who that is, and signs out. */
async function serve (t: Test, register: (app: FastifyInstance) => Promise<void>, secret = newSecret(), lines?: string[]): Promise<FastifyInstance> {
  const app = Fastify(lines !== undefined ? { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } } : {})
  t.teardown(() => app.close())
  await register(app)
  if (!app.hasDecorator('tokenRegistry')) await app.register(tokenRegistry, { secret, cache: false })
  app.post('/login', async request => await request.startSession({ sub: 'alice' }))
  app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.sub)
  return app
}

const login = (app: FastifyInstance): Promise<LightMyRequestResponse> => app.inject({ method: 'POST', url: '/login' })
const me = (app: FastifyInstance, token: string): Promise<LightMyRequestResponse> => app.inject({ url: '/me', headers: bearer(token) })

t.test('an option that is not what it may be is named, with what it may be, and shown where it cannot be a secret', async t => {
  const faults: Array<[object, RegExp]> = [
    [{ urls: 'redis://hunter2@127.0.0.1' }, /urls is not an option: there are url, nodes/],
    [{ url: here }, /url is not what it may be: redis:\/\/\[user:password@\]host\[:port\]\[\/database\], or rediss:\/\/ for TLS/],
    [{ url: 'http://root:hunter2@127.0.0.1' }, /url is not/],
    [{ url: 'REDIS://127.0.0.1/hunter2' }, /url is not/],
    [{ url: 'redis://:hun#ter2@127.0.0.1' }, /url is not.*percent-encoded/],
    [{ url: 'redis://:hunter2%zz@127.0.0.1' }, /url is not.*percent-encoded/],
    [{ url: 'redis://:hunter2@' }, /url is not/],
    [{ url: 'redis:///1' }, /url is not/],
    [{ url: 'redis://127.0.0.1/hunter2' }, /url is not/],
    [{ url: 'redis://127.0.0.1/-1' }, /url is not/],
    [{ url: 'redis://127.0.0.1/0/hunter2' }, /url is not/],
    [{ url: 'redis://127.0.0.1?password=hunter2' }, /url is not/],
    [{ url: 'redis://127.0.0.1?keyPrefix=hunter2' }, /url is not/],
    [{ url: 'redis://127.0.0.1#hunter2' }, /url is not/],
    [{ nodes: 'redis://:hunter2@a:1' }, /nodes is not what it may be: a list of \{ host, port \}/],
    [{ nodes: [] }, /nodes is not/],
    [{ nodes: ['redis://:hunter2@a:1'] }, /nodes\.0 is not what it may be: \{ host, port \}/],
    [{ nodes: [here, { host: 'redis://:hunter2@a', port: 1 }] }, /nodes\.1\.host is not what it may be: a host name or address/],
    [{ nodes: [{ host: 'a', port: 65536 }] }, /nodes\.0\.port is not what it may be: a port, 1 to 65535/],
    [{ nodes: [{ host: 'a' }] }, /nodes\.0\.port is not/],
    [{ nodes: [{ ...here, password: 'hunter2' }] }, /nodes\.0\.password is not what it may be: \{ host, port \}/],
    [{ sentinels: [{ host: '', port: 1 }], name: 'x' }, /sentinels\.0\.host is not/],
    [{ sentinels: [here], name: '' }, /name is not what it may be: text/],
    [{ url: 'redis://a', username: 7 }, /username is not what it may be: text/],
    [{ url: 'redis://a', password: '' }, /password is not what it may be: text/],
    [{ sentinels: [here], name: 'x', sentinelUsername: '' }, /sentinelUsername is not/],
    [{ sentinels: [here], name: 'x', sentinelPassword: 7 }, /sentinelPassword is not/],
    [{ url: 'redis://a', database: '1' }, /database is '1': it may be a whole number from 0/],
    [{ url: 'redis://a', database: -1 }, /database is -1/],
    [{ url: 'rediss://a', tls: 'hunter2' }, /tls is not what it may be: true, false or options of tls\.connect/],
    [{ url: 'redis://a', keyPrefix: '' }, /keyPrefix is '': it may be text of 1 to 64 characters without braces/],
    [{ url: 'redis://a', keyPrefix: '{tr}:' }, /keyPrefix is '\{tr\}:'/],
    [{ url: 'redis://a', keyPrefix: 'x'.repeat(65) }, /keyPrefix is text of 65 characters/],
    [{ url: 'redis://a', connectTimeout: 'soon' }, /connectTimeout is 'soon': it may be a number of milliseconds, or text such as "15m"/],
    [{ url: 'redis://a', connectTimeout: 9 }, /connectTimeout is 9 ms: it may be 10 to 60000/],
    [{ url: 'redis://a', connectTimeout: '61s' }, /connectTimeout is 61000 ms/],
    [{ url: 'redis://a', commandTimeout: 0 }, /commandTimeout is 0 ms: it may be 10 to 60000/],
    [{ url: 'redis://a', keepEndings: '366d' }, /keepEndings is 31622400000 ms: it may be 1000 to 31536000000/],
    [{ url: 'redis://a', indexes: 'ip' }, /indexes is 'ip': it may be a list of "ip" and "client"/],
    [{ url: 'redis://a', indexes: ['device'] }, /indexes\.0 is 'device': it may be "ip" or "client"/],
    [{ url: 'redis://a', indexes: ['ip', 'ip'] }, /indexes is .*: it may be a list of "ip" and "client"/],
    [{ url: 'redis://a', durability: 'all' }, /durability is 'all': it may be "none" or "replicas"/],
    [{ url: 'redis://a', requireAtStart: 'no' }, /requireAtStart is 'no': it may be true or false/]
  ]
  for (const [options, message] of faults) {
    const refused = await refusal(options)
    t.match(refused, { code: 'FST_STORE_OPTIONS', message }, JSON.stringify(options))
    t.notMatch(refused.message, /hunter2/)
  }
})

t.test('options that contradict one another are both named', async t => {
  const client = new Redis({ lazyConnect: true, keyPrefix: 'app:' })
  const cluster = new Cluster([here], { lazyConnect: true, redisOptions: { keyPrefix: 'app:' } })
  const sound = new Redis({ lazyConnect: true })
  const faults: Array<[object, RegExp]> = [
    [{}, /none of url, nodes, sentinels and client is given/],
    [{ client: undefined }, /none of url, nodes, sentinels and client is given/],
    [{ url: 'redis://:hunter2@a', nodes: [here] }, /url and nodes are given: give one/],
    [{ nodes: [here], sentinels: [here], name: 'x', client: sound }, /nodes and sentinels and client are given/],
    [{ sentinels: [here] }, /sentinels and name go together/],
    [{ url: 'redis://a', name: 'x' }, /sentinels and name go together/],
    [{ nodes: [here], database: 1 }, /database goes not with nodes: a Cluster has only database 0/],
    [{ nodes: [here], username: 'hunter2' }, /username goes with password/],
    [{ url: 'redis://a', username: 'hunter2' }, /a user is given without a password/],
    [{ url: 'redis://hunter2@a' }, /a user is given without a password/],
    [{ url: 'redis://hunter2:x@a', username: 'hunter2', password: 'x' }, /username is given, and url names a user too/],
    [{ url: 'redis://:hunter2@a', password: 'hunter2' }, /password is given, and url has one too/],
    [{ url: 'redis://a/1', database: 1 }, /database is given, and url names one too/],
    [{ url: 'redis://a', tls: true }, /tls is given, and url begins with redis:\/\/: with TLS it is rediss:\/\//],
    [{ url: 'rediss://a', tls: false }, /tls is false, and url begins with rediss:\/\//],
    [{ nodes: [here], sentinelPassword: 'hunter2' }, /sentinelPassword goes only with sentinels/],
    [{ sentinels: [here], name: 'x', sentinelUsername: 'hunter2' }, /sentinelUsername goes with sentinelPassword/],
    [{ client: sound, username: 'hunter2', password: 'hunter2' }, /username goes not with client, which has its own/],
    [{ client: sound, password: 'hunter2' }, /password goes not with client/],
    [{ client: sound, database: 1 }, /database goes not with client/],
    [{ client: sound, tls: true }, /tls goes not with client/],
    [{ client: { hunter2: sound } }, /client is no client of ioredis: with @fastify\/redis it is fastify\.redis, or fastify\.redis\.<namespace>/],
    [{ client: 'redis://:hunter2@a' }, /client is no client/],
    [{ client: null }, /client is no client/],
    [{ client }, /client has a keyPrefix of its own, which scripts would not see: give keyPrefix to redis-store/],
    [{ client: cluster }, /client has a keyPrefix of its own/]
  ]
  for (const [options, message] of faults) {
    const refused = await refusal(options)
    t.match(refused, { code: 'FST_STORE_OPTIONS', message }, String(message))
    t.notMatch(refused.message, /hunter2/)
  }
})

t.test('options are taken as they are, and not changed', async t => {
  const frozen = <T extends object> (options: T): T => {
    for (const part of Object.values(options)) if (typeof part === 'object' && part !== null) frozen(part)
    return Object.freeze(options)
  }
  const nobody = { host: '127.0.0.1', port: 1 }
  for (const options of [{ nodes: [nobody], indexes: ['ip', 'client'], tls: { ca: 'x' } }, { sentinels: [nobody], name: 'x', connectTimeout: 100, keyPrefix: undefined }]) {
    t.match(await refusal(frozen(options)), { code: 'FST_STORE_ABSENT' })
  }
})

t.test('the registry finds the store that was registered before it, and takes one that it is given', async t => {
  const { url } = await sharedRedis()
  const keyPrefix = newPrefix()
  const secret = newSecret()
  const found = await serve(t, async app => { await app.register(redisStore, { url, keyPrefix }) }, secret)
  t.equal(found.tokenStore?.name, 'redis')
  t.match(await found.tokenRegistry.health(), { status: 'ok' })

  const store = await createRedisStore({ url, keyPrefix })
  t.teardown(() => store.close())
  const given = await serve(t, async app => { await app.register(tokenRegistry, { secret, store, cache: false }) })
  const { token } = (await login(found)).json()
  t.match(await me(given, token), { statusCode: 200, body: 'alice' })
  await given.close()
  t.match(await store.health(), { status: 'ok' }, 'who made it closes it')
})

t.test('registered where it cannot be used it says so, and leaves nothing open', async t => {
  const { url } = await sharedRedis()
  const late = await serve(t, async app => { await app.register(tokenRegistry, { secret: newSecret() }) })
  await t.rejects(async () => await late.register(redisStore, { url }), { code: 'FST_STORE_TOO_LATE', message: /before token-registry/ })

  const twice = Fastify()
  t.teardown(() => twice.close())
  await twice.register(redisStore, { url, keyPrefix: newPrefix() })
  await t.rejects(async () => await twice.register(redisStore, { url, keyPrefix: newPrefix() }), { code: 'FST_STORE_OPTIONS', message: /registered here already/ })
})

t.test('it is seen in its context and below, and two with different prefixes never meet', async t => {
  const { url } = await sharedRedis()
  const app = Fastify()
  t.teardown(() => app.close())
  const secret = newSecret()
  const apps: FastifyInstance[] = []
  for (let i = 0; i < 2; i++) {
    app.register(async inner => {
      await inner.register(redisStore, { url, keyPrefix: newPrefix() })
      await inner.register(tokenRegistry, { secret })
      apps.push(inner)
    })
  }
  await app.ready()
  t.notOk(app.hasDecorator('tokenStore'))
  const [a, b] = apps.map(inner => inner.tokenRegistry)
  const issued = await a?.issue({ sub: 'alice' })
  t.match(await a?.get(issued?.token ?? ''), { sub: 'alice' })
  t.equal(await b?.get(issued?.token ?? ''), null)
  t.same([await a?.count({}), await b?.count({}), await b?.revokeAll({ sub: 'alice' }), await a?.count({ sub: 'alice' })], [1, 0, 0, 1])
})

t.test('the host\'s client is used, beside one connection that watches, and stays open', async t => {
  const server = await redisServer(t)
  const connections = async (count: number): Promise<void> => {
    await until(`${count} connections are open`, [server], async () => String(await server.command('client', 'list')).trim().split('\n').length === count + 1)
  }
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(fastifyRedis, { url: server.url })

  const app = Fastify()
  await app.register(redisStore, { client: host.redis, keyPrefix: newPrefix() })
  await app.register(tokenRegistry, { secret: newSecret() })
  const { token } = await app.tokenRegistry.issue({ sub: 'alice' })
  t.match(await app.tokenRegistry.get(token), { sub: 'alice' })
  await until('changes are watched', [server], () => Number(app.tokenStore?.staleness) < 1000)
  await connections(2)
  await app.close()
  await connections(1)
  t.equal(await host.redis.ping(), 'PONG')
})

t.test('a server that has closed leaves nothing behind that keeps its process', async t => {
  const server = await redisServer(t)
  const script = `
    import Fastify from 'fastify'
    import tokenRegistry from 'fastify-token-registry'
    import redisStore from 'fastify-token-registry/redis-store'
    const app = Fastify()
    await app.register(redisStore, { url: '${server.url}' })
    await app.register(tokenRegistry, { secret: '${newSecret()}' })
    const { token } = await app.tokenRegistry.issue({ sub: 'alice' })
    await app.tokenRegistry.verify(token)
    while (app.tokenStore.staleness > 1000) await new Promise(resolve => setImmediate(resolve))
    await app.close()
    console.log('closed')`
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '--conditions=@fastify-token-registry/source', '--input-type=module', '-e', script], { env: childEnv, timeout: 20_000 })
  t.equal(stdout, 'closed\n')
})

t.test('where Redis cannot be used at start, that is said at once', async t => {
  const connectTimeout = 500
  const server = await redisServer(t, { requirepass: 'hunter2' })
  const { port } = server
  const hung = await redisServer(t)
  hung.pause()
  const nobody = { host: '127.0.0.1', port: 1 }
  const host = '127.0.0.1'
  const faults: Array<[RedisStoreOptions, RegExp]> = [
    [{ url: 'redis://root:hunter3@127.0.0.1:1' }, /Redis at 127\.0\.0\.1:1 cannot be used \(connect ECONNREFUSED/],
    [{ url: 'redis://:hunter3@nobody.invalid:6379' }, /Redis at nobody\.invalid:6379 cannot be used \(getaddrinfo/],
    [{ url: `redis://:hunter3@127.0.0.1:${port}` }, /WRONGPASS/],
    [{ url: `redis://root:hunter2@127.0.0.1:${port}` }, /WRONGPASS/],
    [{ url: `redis://127.0.0.1:${port}` }, /NOAUTH/],
    [{ url: `redis://:hunter2@127.0.0.1:${port}/99` }, /DB index is out of range/],
    [{ url: `rediss://:hunter2@127.0.0.1:${port}` }, /no answer within 500 ms|socket/i],
    [{ url: `redis://127.0.0.1:${hung.port}` }, /no answer within 500 ms|timed? ?out/i],
    [{ sentinels: [nobody], name: 'x', password: 'hunter3' }, /Redis at 127\.0\.0\.1:1 \(Sentinels of x\) cannot be used/],
    [{ sentinels: [{ host, port }], name: 'x', sentinelPassword: 'hunter3' }, /Sentinels of x\) cannot be used \(.*WRONGPASS/],
    [{ nodes: [nobody], password: 'hunter3' }, /Redis at 127\.0\.0\.1:1 cannot be used/],
    [{ nodes: [{ host, port }], password: 'hunter3' }, /WRONGPASS/],
    [{ nodes: [{ host, port }], password: 'hunter2' }, /cluster support disabled/],
    [{ client: new Redis({ host, port: 1, lazyConnect: true }) }, /Redis at the client that was given cannot be used/]
  ]
  for (const [options, message] of faults) {
    const { lines, server: { logger } } = recorder()
    const app = Fastify({ ...logger !== undefined && { logger } })
    options.client?.on('error', () => {})
    const began = performance.now()
    const error: unknown = await app.register(redisStore, { ...options, connectTimeout }).then(() => null, error => error)
    t.match(error, { code: 'FST_STORE_ABSENT', statusCode: 500, message }, String(message))
    t.ok(performance.now() - began < connectTimeout + 500, `${message}: ${Math.round(performance.now() - began)} ms`)
    app.log.error(error)
    await app.close()
    t.notMatch(lines.join(), /hunter[23]/, String(message))
    options.client?.disconnect()
  }
})

t.test('a service that need not have Redis at start comes up, answers 503, and works when it appears', async t => {
  const server = await redisServer(t, { requirepass: 'hunter2' })
  await server.kill()
  const lines: string[] = []
  const app = await serve(t, async app => {
    await app.register(redisStore, { url: `redis://:hunter2@127.0.0.1:${server.port}`, requireAtStart: false })
  }, newSecret(), lines)
  const unavailable = { statusCode: 503, headers: { 'retry-after': /^\d+$/ } }
  const absent = await login(app)
  t.match(absent, unavailable)
  t.match(absent.json(), { code: 'FST_STORE_UNAVAILABLE' })
  t.match(await app.tokenRegistry.health(), { status: 'fail' })

  await server.start()
  const { token } = await until('it works', [server], async () => {
    const answer = await login(app)
    return answer.statusCode === 200 && answer.json()
  })
  t.match(await me(app, token), { statusCode: 200, body: 'alice' })
  t.notMatch(lines.join(), /hunter2/)
  await server.kill()
  t.match(await me(app, token), unavailable)
})
