import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import Fastify from 'fastify'
import t from 'tap'
import { httpTable, summarize } from '../bench/report.ts'
import { childEnv } from './support/child-env.ts'
import { temporaryDirectory } from './support/embedded.ts'

/** Slices of a variant that is served at some rates. */
const slices = (...rates: number[]) => rates.map(rate => ({ requests: rate, wall: 1000, cpu: 1000 }))

t.test('the table tells what a cache hit is to reach, against bare Fastify and against @fastify/jwt', async t => {
  const variants = [
    { name: 'bare', slices: slices(40_000, 50_000, 30_000) },
    { name: 'jwt', slices: slices(20_000, 25_000, 15_000) },
    { name: 'token-hit', slices: slices(38_000, 40_000, 30_000) },
    { name: 'access-hit', slices: slices(36_000, 45_000, 27_000) }
  ]
  const [bare, jwt, token, access] = summarize(variants)
  t.match([bare, jwt], [{ target: null, jwtRatio: 2 }, { target: null, jwtRatio: 1 }])
  const target = { rateRatio: 0.95, jwtRatio: 1.5, costRatio: 1.05 }
  t.match(token, { rateRatio: { median: 0.95 }, jwtRatio: 1.9, target })
  t.match(access, { rateRatio: { median: 0.9 }, jwtRatio: 1.8, target })

  const [head = '', ...rows] = httpTable({ variants, passes: { taken: 3, counted: 3 } }).split('\n')
  t.match(head, /of bare +target .*of @fastify\/jwt +target .*of bare +target$/)
  t.match(rows[2], /^session token, cache hit +38000 +0\.950 +0\.950 .* 1\.900 +1\.500 .* 1\.050$/)
  t.notMatch(rows[1], /1\.500/)

  const [, alone] = summarize(variants.filter(({ name }) => name !== 'jwt'))
  t.equal(alone?.jwtRatio, null, 'without @fastify/jwt there is nothing to compare with')
})

t.test('the table tells what Redis may cost, against the memory store and against @fastify/session', async t => {
  const variants = [
    { name: 'bare', slices: slices(40_000, 50_000, 30_000) },
    { name: 'token-hit', slices: slices(38_000, 48_000, 29_000) },
    { name: 'session-redis', slices: slices(10_000, 12_000, 8_000) },
    { name: 'redis-hit', slices: slices(37_000, 45_000, 28_000) },
    { name: 'redis-miss', slices: slices(20_000, 26_000, 14_000) }
  ]
  const [, , , hit, miss] = summarize(variants)
  t.match(hit, { redisRatio: 3.7, target: { rateRatio: 0.96 - 0.02, redisRatio: 3 } })
  t.match(miss, { rateRatio: { median: 0.5 }, target: { rateRatio: 0.5 } })
  const [head = '', ...rows] = httpTable({ variants, passes: { taken: 3, counted: 3 } }).split('\n')
  t.match(head, /of @fastify\/session, Redis +target /)
  t.match(rows[3], /^session token on Redis, cache hit +37000 +0\.925 +0\.940 .* 3\.700 +3\.000 /)

  const [, alone] = summarize(variants.filter(({ name }) => name === 'bare' || name === 'redis-hit'))
  t.same([alone?.redisRatio, alone?.target], [null, { redisRatio: 3 }], 'what was not measured is no target')
})

t.test('where wrk is missing, autocannon sends the prepared requests', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  const names = ['a', 'b', 'c', 'd']
  const seen = new Set<string>()
  const all = new Promise<void>(resolve => {
    app.get('/me', async request => {
      if (seen.add(request.headers.authorization ?? '').size === names.length) resolve()
      return {}
    })
  })
  const url = `${await app.listen({ port: 0 })}/me`
  const file = join(await temporaryDirectory(t), 'requests')
  await writeFile(file, names.map(name => `GET /me HTTP/1.1\r\nHost: x\r\nAuthorization: ${name}\r\n\r\n`).join(''))

  const load = spawn(process.execPath, ['bench/replay.js', url, file, '2', '60'], { env: childEnv, stdio: ['ignore', 'inherit', 'inherit'] })
  t.teardown(() => { load.kill('SIGKILL') })
  const ended = once(load, 'exit')
  await Promise.race([all, ended])
  t.same([...seen].sort(), names)
  load.kill('SIGINT')
  t.same(await ended, [0, null])
})
