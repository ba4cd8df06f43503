import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { embeddedDataDir } from '../support/embedded.ts'
import { password } from '../support/server.ts'
import { post, send, start } from '../support/server-process.ts'

t.test('SIGTERM without a delay fails no request that is in flight while the server closes', async t => {
  const { address, process: server, exit, lines } = await start(t, { DATA_DIR: await embeddedDataDir(t), SHUTDOWN_DELAY: '0s' }).listening
  await post(address, '/api/auth/register', { email: 'ada@example.org', password })
  const logged = (words: string, since = 0): number => lines.slice(since).filter(line => line.includes(words)).length

  // They wait in line for a place to check their password.
  const answers = Array.from({ length: 90 }, () => post(address, '/api/auth/login', { email: 'ada@example.org', password }))
  while (logged('incoming request') < 1 + answers.length) await setImmediate()
  server.kill('SIGTERM')
  for (const status of await Promise.all(answers)) t.equal(status, 200)
  t.same(await exit, [0, null])
  const completed = logged('request completed', lines.findIndex(line => line.includes('"closing"')))
  t.ok(completed > 0, `${completed} were in flight while it closed`)
})

t.test('SIGTERM under load fails no request that is in flight', async t => {
  const { address, process: server, exit, lines } = await start(t, { DATA_DIR: await embeddedDataDir(t) }).listening
  await post(address, '/api/auth/register', { email: 'ada@example.org', password })

  // Each lane sends on connections that are kept alive until an answer tells it, as it tells a load balancer, to go elsewhere.
  let answers = 0
  const load = Array.from({ length: 20 }, async () => {
    for (let last = false; !last;) {
      const response = await send(address, '/api/auth/login', { email: 'ada@example.org', password })
      t.equal(response.status, 200)
      last = response.headers.get('connection') === 'close'
      if (++answers === 40) server.kill('SIGTERM')
    }
  })
  await Promise.all(load)
  t.ok(answers >= 60, 'each lane had an answer after the signal')
  t.same(await exit, [0, null])
  t.ok(lines.some(line => line.includes('"closing"')))
})

t.test('a server says where it is, cuts off who dribbles, and stops when it is told to', async t => {
  const { address, lines, process: server, exit } = await start(t, { DATA_DIR: await embeddedDataDir(t) }).listening
  const log = lines.join('\n')
  for (const word of [`${address}/docs`, 'DATABASE_URL', 'REDIS_URL', 'TOKEN_SECRET', 'JWT_SECRET', 'SMTP_URL', 'sessions are kept in memory']) t.ok(log.includes(word), word)

  const { hostname, port } = new URL(address)
  const socket = connect(Number(port), hostname)
  t.teardown(() => socket.destroy())
  socket.write('GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow:')
  const [answer] = await once(socket, 'data')
  t.match(String(answer), /^HTTP\/1\.1 408/)
  await once(socket, 'close')

  t.equal((await fetch(`${address}/health/ready`)).status, 200)
  server.kill('SIGTERM')
  let ready = 200
  while (ready === 200) ready = (await fetch(`${address}/health/ready`)).status
  t.equal(ready, 503, 'load balancers are told first')
  t.equal((await fetch(`${address}/health/live`)).status, 200)
  t.same(await exit, [0, null])
})

t.test('what keeps the server from starting is said in one line, without a stack', async t => {
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  const address = taken.address()
  const dataDir = await embeddedDataDir(t)
  const faults: Array<[Record<string, string>, RegExp]> = [
    [{ NODE_ENV: 'production' }, /TOKEN_SECRET is not set/],
    [{ PORT: 'x' }, /PORT is "x"/],
    [{ PORT: String(typeof address === 'object' ? address?.port : '') }, /EADDRINUSE/],
    [{ DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/none' }, /PostgreSQL at DATABASE_URL cannot be opened/]
  ]
  for (const [env, said] of faults) {
    const { process: server, lines, listening } = start(t, { DATA_DIR: dataDir, ...env })
    await t.rejects(listening)
    t.equal(server.exitCode, 1)
    t.match(lines.join('\n'), said)
    t.notMatch(lines.join('\n'), /^\s+at /m)
  }
})
