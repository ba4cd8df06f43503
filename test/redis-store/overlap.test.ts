import { randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createRedisStore } from '../../plugins/redis-store/index.ts'
import { build, newSecret } from '../support/build.ts'
import { deferred } from '../support/deferred.ts'
import { sharedRedis } from '../support/redis.ts'

/** Stops in the middle of endAll: when what is to end was set aside, before any of it has ended. */
class Halting extends Redis {
  readonly reached = deferred()
  readonly goOn = deferred()
  halts = false
  #seen = 0

  override sendCommand (...sent: Parameters<Redis['sendCommand']>): unknown {
    const [command] = sent
    const aside = command.name.startsWith('eval') && command.args.some(arg => /:cx:/.test(String(arg)))
    if (!this.halts || !aside || ++this.#seen < 2) return super.sendCommand(...sent)
    this.reached.resolve()
    return this.goOn.promise.then(() => super.sendCommand(...sent))
  }
}

async function two (t: Test) {
  const { url } = await sharedRedis()
  const [secret, keyPrefix] = [newSecret(), `${randomBytes(6).toString('base64url')}:`]
  const client = new Halting(url)
  t.teardown(() => client.disconnect())
  const stores = [await createRedisStore({ client, keyPrefix }), await createRedisStore({ url, keyPrefix })] as const
  for (const store of stores) t.teardown(() => store.close())
  const [one, other] = [(await build(t, { secret, store: stores[0], cache: false })).tokenRegistry, (await build(t, { secret, store: stores[1], cache: false })).tokenRegistry]
  await one.revokeAll({ sub: 'nobody' }) // scripts are known
  return { client, one, other }
}

t.test('what was to end when revokeAll was called has ended when it returns, also where another revokeAll is under way', async t => {
  const { client, one, other } = await two(t)
  const { token } = await one.issue({ sub: 'alice' })
  client.halts = true
  const first = one.revokeAll({ sub: 'alice' })
  await client.reached.promise
  await other.revokeAll({ sub: 'alice' })
  t.equal(await other.get(token), null, 'it was there when the second was called, which has returned')
  client.goOn.resolve()
  await first
})

t.test('reuse of a one-time token ends what came of it, also where revokeAll is under way', async t => {
  const { client, one, other } = await two(t)
  const code = await one.issue({ sub: 'alice', use: 'once' })
  await one.consume(code.token)
  const { token } = await one.issue({ sub: 'alice', origin: code.session.id })
  client.halts = true
  const first = one.revokeAll({ sub: 'alice' })
  await client.reached.promise
  await t.rejects(other.consume(code.token), { code: 'FST_TOKEN_REUSED' })
  t.equal(await other.get(token), null, 'reuse was told, and what came of it has ended')
  client.goOn.resolve()
  await first
})
