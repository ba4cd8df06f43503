import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import tokenRegistry, { memoryStore, type MemoryStore, type TokenRegistryOptions, type TokenStore } from '../plugins/token-registry/index.ts'
import { build, newSecret, newSecrets } from './support/build.ts'
import { Clock } from './support/clock.ts'

/** Registers the plugin with options that may be of any kind. */
async function register (t: Test, options: object): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(async () => await app.close().catch(() => {}))
  await app.register(tokenRegistry, options as TokenRegistryOptions)
  return app
}

async function refused (t: Test, options: object, message: string | RegExp): Promise<void> {
  const expected = typeof message === 'string' ? `token-registry: ${message}` : message
  await t.rejects(register(t, { secret: newSecret(), ...options }), { code: 'FST_TOKEN_OPTIONS', statusCode: 500, message: expected })
}

/** How long a session may live and be idle that is issued without a word about it. */
async function lifetimes (t: Test, options: object): Promise<[number, number | null]> {
  const app = await build(t, options)
  const { session: { issuedAt, expiresAt, idleTimeout } } = await app.tokenRegistry.issue({ sub: 'alice' })
  return [expiresAt - issuedAt, idleTimeout]
}

t.test('durations are numbers of milliseconds, or text', async t => {
  t.same(await lifetimes(t, {}), [30 * 86_400_000, null])
  t.same(await lifetimes(t, { ttl: 60_000 }), [60_000, null])
  for (const [text, ms] of [['90s', 90_000], ['15m', 900_000], ['12h', 43_200_000], ['7d', 604_800_000], ['60000ms', 60_000]] as const) {
    t.same(await lifetimes(t, { ttl: text }), [ms, null], text)
  }
  t.same(await lifetimes(t, { ttl: '365d', idleTimeout: '30m', serveCachedFor: '1m', reuseWindow: '0s', operationTimeout: '1h', hookTimeout: '1ms', cache: { maxStaleness: '500ms' } }), [365 * 86_400_000, 1_800_000])
  t.same(await lifetimes(t, { ttl: '1s', reuseWindow: 999, cache: false }), [1000, null])
  t.same(await lifetimes(t, { ttl: undefined, idleTimeout: undefined, cache: undefined, cookie: undefined, store: undefined, dpop: undefined, session: undefined }), [30 * 86_400_000, null])
})

t.test('an option that is not what it may be is named, with what it was and what it may be', async t => {
  const aDuration = 'it may be a number of milliseconds, or text such as "15m"'
  const options = 'secret, ttl, idleTimeout, reuseWindow, operationTimeout, hookTimeout, serveCachedFor, cache, cookie, dpop, session, validator, store'
  for (const [given, message] of [
    [{ ttl: '15 minutes' }, `ttl is '15 minutes': ${aDuration}`],
    [{ ttl: '' }, `ttl is '': ${aDuration}`],
    [{ ttl: '-1s' }, `ttl is '-1s': ${aDuration}`],
    [{ ttl: -1 }, `ttl is -1: ${aDuration}`],
    [{ ttl: 1.5 }, `ttl is 1.5: ${aDuration}`],
    [{ ttl: NaN }, `ttl is NaN: ${aDuration}`],
    [{ ttl: Infinity }, `ttl is Infinity: ${aDuration}`],
    [{ ttl: 10n }, `ttl is 10n: ${aDuration}`],
    [{ ttl: null }, `ttl is null: ${aDuration}`],
    [{ ttl: 'x'.repeat(1000) }, `ttl is text of 1000 characters: ${aDuration}`],
    [{ idleTimeout: true }, `idleTimeout is true: ${aDuration}, or null`],
    [{ reuseWindow: null }, `reuseWindow is null: ${aDuration}`],
    [{ operationTimeout: [5] }, `operationTimeout is [Array]: ${aDuration}`],
    [{ hookTimeout: '1w' }, `hookTimeout is '1w': ${aDuration}`],
    [{ serveCachedFor: 'always' }, `serveCachedFor is 'always': ${aDuration}`],
    [{ ttl: 999 }, 'ttl is 999 ms: it may be 1000 to 31536000000'],
    [{ ttl: '366d' }, 'ttl is 31622400000 ms: it may be 1000 to 31536000000'],
    [{ ttl: '999999999999999d' }, /^token-registry: ttl is \S+ ms: it may be/],
    [{ idleTimeout: 0 }, 'idleTimeout is 0 ms: it may be 1000 to 31536000000'],
    [{ reuseWindow: '25h' }, 'reuseWindow is 90000000 ms: it may be 0 to 86400000'],
    [{ operationTimeout: 0 }, 'operationTimeout is 0 ms: it may be 1 to 3600000'],
    [{ operationTimeout: '25d' }, 'operationTimeout is 2160000000 ms: it may be 1 to 3600000'],
    [{ hookTimeout: '2h' }, 'hookTimeout is 7200000 ms: it may be 1 to 3600000'],
    [{ cache: true }, 'cache is true: it may be false, or { max, maxStaleness }'],
    [{ cache: null }, 'cache is null: it may be false, or { max, maxStaleness }'],
    [{ cache: { max: 0 } }, 'cache.max is 0: it may be a whole number from 1 to 10000000'],
    [{ cache: { max: '5' } }, 'cache.max is \'5\': it may be a whole number from 1 to 10000000'],
    [{ cache: { maxStaleness: 'x' } }, `cache.maxStaleness is 'x': ${aDuration}`],
    [{ cache: { size: 5 } }, 'cache.size is not an option: there are max, maxStaleness'],
    [{ cookie: 'session' }, 'cookie is \'session\': it may be true, false, or { name, secure, sameSite }'],
    [{ cookie: { secure: 'no' } }, 'cookie.secure is \'no\': it may be true or false'],
    [{ cookie: { sameSite: 'Lax' } }, 'cookie.sameSite is \'Lax\': it may be "lax", "strict" or "none"'],
    [{ cookie: { name: 'a b' } }, 'cookie.name is \'a b\': it may be 1 to 128 letters, digits or any of !#$%&\'*+-.^_`|~'],
    [{ cookie: { name: 'a;b' } }, /^token-registry: cookie\.name is 'a;b': it may be/],
    [{ cookie: { name: '' } }, /^token-registry: cookie\.name is '': it may be/],
    [{ cookie: { domain: 'example.org' } }, 'cookie.domain is not an option: there are name, secure, sameSite'],
    [{ cookie: { name: '__Host-sid', secure: false } }, 'cookie.name is __Host-sid, which browsers take only with cookie.secure: true'],
    [{ cookie: { name: '__secure-sid', secure: false } }, 'cookie.name is __secure-sid, which browsers take only with cookie.secure: true'],
    [{ cookie: { secure: false, sameSite: 'none' } }, 'cookie.sameSite is "none", which browsers take only with cookie.secure: true'],
    [{ dpop: true }, 'dpop is true: it may be a function'],
    [{ validator: 'lax' }, 'validator is "lax": it may be \'default\', \'strict\', \'none\' or a function'],
    [{ session: 'yes' }, 'session is \'yes\': it may be true, false or { optional, scope, serveCachedFor, noStore }'],
    [{ session: null }, 'session is null: it may be true, false or { optional, scope, serveCachedFor, noStore }'],
    [{ session: { scop: 'a' } }, 'session.scop is not an option: there are optional, scope, serveCachedFor, noStore'],
    [{ session: { optional: true, scope: 'a' } }, 'session has scope and optional, which contradict each other'],
    [{ store: 'redis' }, 'store lacks insert, get, rotate, end, find, health'],
    [{ store: { get () {}, health () {} } }, 'store lacks insert, rotate, end, find'],
    [{ tll: '1h' }, `tll is not an option: there are ${options}`],
    [{ prefix: '/auth' }, `prefix is not an option: there are ${options}`]
  ] as const) await refused(t, given, message)
})

t.test('lifetimes that contradict each other are refused, both of them named', async t => {
  for (const [given, message] of [
    [{ ttl: '10s', reuseWindow: '10s' }, 'reuseWindow (10000 ms) is not shorter than ttl (10000 ms): one of them must change'],
    [{ ttl: '5s' }, 'reuseWindow (10000 ms) is not shorter than ttl (5000 ms): one of them must change'],
    [{ ttl: '1h', serveCachedFor: '2h' }, 'serveCachedFor (7200000 ms) is not shorter than ttl (3600000 ms): one of them must change'],
    [{ ttl: '1h', idleTimeout: '1h' }, 'idleTimeout (3600000 ms) is not shorter than ttl (3600000 ms): one of them must change'],
    [{ idleTimeout: '31d' }, 'idleTimeout (2678400000 ms) is not shorter than ttl (2592000000 ms): one of them must change'],
    [{ idleTimeout: '10s' }, 'reuseWindow (10000 ms) is not shorter than idleTimeout (10000 ms): one of them must change'],
    [{ idleTimeout: '1m', serveCachedFor: '1m' }, 'serveCachedFor (60000 ms) is not shorter than idleTimeout (60000 ms): one of them must change'],
    [{ idleTimeout: '1m', cache: { maxStaleness: '1m' } }, 'cache.maxStaleness (60000 ms) is not shorter than idleTimeout (60000 ms): one of them must change']
  ] as const) await refused(t, given, message)
})

t.test('a secret that can be guessed is refused, and never repeated', async t => {
  const good = newSecret()
  const weak: Array<[unknown, string]> = [
    [undefined, 'secret is of type undefined: it may be a string of at least 32 bytes, or a list of 1 to 100; make one with: openssl rand -base64 32'],
    [null, 'secret is of type object: it may be'],
    [12345678901234567890123456789012n, 'secret is of type bigint: it may be'],
    [Buffer.from(good), 'secret is of type object: it may be'],
    [[], 'secret is of type object: it may be'],
    [Array.from({ length: 101 }, newSecret), 'secret is of type object: it may be'],
    [[good, 5], 'secret.1 is of type number: it may be a string of at least 32 bytes'],
    ['', 'secret has 0 bytes: at least 32 are needed'],
    [good.slice(0, 31), 'secret has 31 bytes: at least 32 are needed'],
    ['a'.repeat(64), 'secret is made of fewer than 8 different characters'],
    ['correct horse battery '.repeat(3), 'secret repeats itself'],
    ['0123456789abcdefghijklmnopqrstuvwxyz', 'secret counts up or down'],
    ['ZYXWVUTSRQPONMLKJIHGFEDCBA9876543210', 'secret counts up or down'],
    ['please-change-me-before-production-12', 'secret is a placeholder'],
    ['ChangeThis-to-something-long-and-random', 'secret is a placeholder'],
    ['your-secret-goes-right-here-5f2d9a', 'secret is a placeholder'],
    ['this is only a placeholder, 7f3k2', 'secret is a placeholder'],
    [[good, good], 'secret.1 has the same key id'],
    [[good, 'short'], 'secret.1 has 5 bytes']
  ]
  for (const [secret, message] of weak) {
    const error: unknown = await register(t, { secret }).then(() => null, error => error)
    t.match(error, { code: 'FST_TOKEN_OPTIONS', message: `token-registry: ${message}` }, message)
    for (const text of [secret].flat()) if (typeof text === 'string' && text !== '') t.notMatch(error, { message: text })
  }
})

t.test('what stands in the wrong place is not repeated: it may be a secret', async t => {
  const secret = newSecret()
  for (const options of [{ secrets: secret }, { tokenSecret: secret }, { cookie: { secret } }, { cache: { password: secret } }, { session: { secret } }, { cookie: [secret] }, { store: { secret } }, { ttl: { secret } }, { cookie: secret }, { session: secret }, { ttl: secret }, { store: secret }, { cookie: { name: `${secret} ` } }]) {
    const error: unknown = await register(t, { secret: newSecret(), ...options }).then(() => null, error => error)
    t.match(error, { code: 'FST_TOKEN_OPTIONS' })
    t.notMatch(error, { message: secret })
  }
})

t.test('a secret is replaced without signing anyone out', async t => {
  const [old = '', young = ''] = newSecrets(2)
  const store = memoryStore()
  t.teardown(() => store.close())
  const before = await build(t, { secret: old, store })
  const { token } = await before.tokenRegistry.issue({ sub: 'alice' })

  const during = await build(t, { secret: [young, old], store })
  t.match(await during.tokenRegistry.verify(token), { session: { sub: 'alice' } })
  const { token: successor } = await during.tokenRegistry.rotate(token)

  const after = await build(t, { secret: young, store })
  t.match(await after.tokenRegistry.verify(successor), { session: { sub: 'alice' } })
  await t.rejects(after.tokenRegistry.verify(token), { code: 'FST_TOKEN_INVALID' })
})

t.test('options are not changed, and are not looked at again', async t => {
  const options = Object.freeze({ secret: Object.freeze([newSecret()]), cache: Object.freeze({ max: 5 }), cookie: Object.freeze({ name: 'sid' }), session: Object.freeze({ noStore: true }) })
  const app = await build(t, options)
  t.match(await app.tokenRegistry.issue({ sub: 'alice' }), { token: /^trs_/ })
})

t.test('it closes the store that it made, and no other', async t => {
  const brought = (): MemoryStore => {
    const store = memoryStore()
    t.teardown(() => store.close())
    return store
  }
  const leaves = async (options: object, decorator?: TokenStore): Promise<number> => {
    const app = Fastify()
    if (decorator !== undefined) app.decorate('tokenStore', decorator)
    await app.register(tokenRegistry, { secret: newSecret(), ...options })
    await app.tokenRegistry.issue({ sub: 'alice' })
    await app.close()
    return await app.tokenRegistry.count({ sub: 'alice' })
  }

  t.equal(await leaves({}), 0)
  t.equal(await leaves({ store: undefined }), 0)
  t.equal(await leaves({ store: brought() }), 1)
  t.equal(await leaves({}, brought()), 1)
  const second = brought()
  t.equal(await leaves({ store: brought() }, second), 1)
  t.equal(await second.count({}), 0, 'what is passed in goes first')
})

t.test('what waits to be written is written before the server has closed', async t => {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now })
  t.teardown(() => store.close())
  const app = await build(t, { store })
  const { token, session: { id } } = await app.tokenRegistry.issue({ sub: 'alice' })
  clock.advance(5000)
  await app.tokenRegistry.verify(token)
  await app.close()
  t.match(await store.get(id), { lastUsedAt: clock.now() })
})

t.test('a failure that no caller sees is logged', async t => {
  const lines: string[] = []
  const app = Fastify({ logger: { stream: { write: (line: string) => { lines.push(line) } } } })
  await app.register(tokenRegistry, { secret: newSecret() })
  app.tokenRegistry.addHook('postSave', () => { throw new Error('out of disk') })
  await app.tokenRegistry.issue({ sub: 'alice' })
  await app.close()
  t.match(lines.map(line => JSON.parse(line)), [{ level: 50, msg: 'the postSave hook failed', err: { message: 'out of disk' } }])
})
