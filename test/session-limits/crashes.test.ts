import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createRedisStore } from '../../plugins/redis-store/index.ts'
import sessionLimits from '../../plugins/session-limits/index.ts'
import { build, newSecret } from '../support/build.ts'
import { childEnv } from '../support/child-env.ts'
import { newPrefix } from '../support/redis-store.ts'
import { redisServer, until } from '../support/redis.ts'

const MAX = 1000
const INSTANCES = 3
const USERS = 100
const KILLS = Number(process.env['LIMIT_KILLS'] ?? 6)

/** How many keys are of sessions that live. One look is one moment. */
const LIVE = `
local count = 0
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  if redis.call('GETRANGE', key, 0, 0) ~= 'E' then count = count + 1 end
end
return count`

t.test('a tenant is never above its limit, and loses no place for longer than 5 s, while instances are killed', async t => {
  const server = await redisServer(t)
  const { url } = server
  const [keyPrefix, secret] = [newPrefix(), newSecret()]
  const live = async (): Promise<number> => Number(await server.command('eval', LIVE, 0, `${keyPrefix}s:*`))

  const children = await Promise.all(Array.from({ length: INSTANCES }, async () => await start(t, { url, keyPrefix, secret })))
  const seen: number[] = []
  const over = new AbortController()
  const watching = (async () => {
    while (!over.signal.aborted) {
      seen.push(await live())
      await setTimeout(20)
    }
  })()
  await until('the tenant is full', [], async () => (seen.at(-1) ?? 0) > MAX - 3 * USERS)
  for (let kill = 0; kill < KILLS; kill++) {
    // Not in step with anything.
    await setTimeout(Math.random() * 300)
    const victim = kill % INSTANCES
    children[victim]?.kill('SIGKILL')
    children[victim] = await start(t, { url, keyPrefix, secret })
  }
  for (const child of children) child.kill('SIGKILL')
  over.abort()
  await watching
  t.ok(Math.max(...seen) <= MAX, `at most ${Math.max(...seen)} in ${seen.length} looks`)

  // From now on every place that no session has is lost. Who signs in finds it.
  const store = await createRedisStore({ url, keyPrefix })
  t.teardown(() => store.close())
  const app = await build(t, { secret, store })
  await app.register(sessionLimits, { limits: [{ per: 'tenant', max: MAX }] })
  const began = performance.now()
  await until('every place is taken', [], async () => {
    await app.tokenRegistry.issue({ sub: 'late' }).catch(() => {})
    return await live() === MAX
  })
  t.comment(`all places were found ${(performance.now() - began).toFixed(0)} ms after the last instance was killed`)
  t.ok(performance.now() - began < 5000)
  await t.rejects(app.tokenRegistry.issue({ sub: 'late' }), { code: 'FST_SESSION_LIMIT' })
  t.equal(await app.tokenRegistry.count({}), MAX)
})

async function start (t: Test, settings: { url: string, keyPrefix: string, secret: string }): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--import', 'tsx', 'test/support/sign-in-child.ts', JSON.stringify({ ...settings, max: MAX, users: USERS })], { env: childEnv, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => { child.kill('SIGKILL') })
  await once(child.stdout, 'data')
  return child
}
