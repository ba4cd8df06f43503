import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { sourcePath } from '../../app/source-path.ts'
import { childEnv } from '../support/child-env.ts'
import { embeddedDataDir, temporaryDirectory } from '../support/embedded.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { password } from '../support/server.ts'

interface Running {
  process: ChildProcess
  address: string
  lines: string[]
  exit: Promise<unknown>
}

const fromSources = ['--import', 'tsx', '--conditions=@fastify-token-registry/source']

/** Starts the server as `npm start` does, but from the sources, on any free port. */
function start (t: Test, env: Record<string, string>): { process: ChildProcess, lines: string[], listening: Promise<Running> } {
  const child = spawn(process.execPath, [...fromSources, sourcePath('app/main.ts')], {
    env: { ...childEnv, PORT: '0', RATE_LIMIT_GLOBAL: 'off', RATE_LIMIT_AUTH: 'off', ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  t.teardown(() => { child.kill('SIGKILL') })
  const exit = once(child, 'exit')
  const lines: string[] = []
  createInterface(child.stderr).on('line', line => lines.push(line))
  const listening = new Promise<Running>((resolve, reject) => {
    createInterface(child.stdout).on('line', line => {
      lines.push(line)
      const { msg, address }: { msg?: string, address?: string } = JSON.parse(line)
      if (msg === 'listening' && address !== undefined) resolve({ process: child, address, lines, exit })
    })
    exit.then(() => reject(new Error(`the server ended:\n${lines.join('\n')}`)))
  })
  return { process: child, lines, listening }
}

async function send (address: string, path: string, body: object): Promise<Response> {
  const response = await fetch(address + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  await response.arrayBuffer()
  return response
}

async function post (address: string, path: string, body: object): Promise<number> {
  return (await send(address, path, body)).status
}

const storages: Record<string, (t: Test) => Promise<Record<string, string>>> = {
  'the embedded database': async t => ({ DATA_DIR: await embeddedDataDir(t) }),
  PostgreSQL: async t => ({ DATA_DIR: await embeddedDataDir(t), DATABASE_URL: await freshDatabase(t, { durable: true }) })
}

for (const [storage, make] of Object.entries(storages)) {
  t.test(`every acknowledged user is there after kill -9, on ${storage}`, async t => {
    const env = await make(t)
    const first = await start(t, env).listening
    const acknowledged: string[] = []
    // Registers people until it is killed in the middle of it.
    const registering = Array.from({ length: 8 }, async (_, lane) => {
      for (let i = 0; ; i++) {
        const email = `user-${lane}-${i}@example.org`
        const status = await post(first.address, '/api/auth/register', { email, password }).catch(() => null)
        if (status === null) return
        if (status === 201) acknowledged.push(email)
        if (acknowledged.length >= 40) first.process.kill('SIGKILL')
      }
    })
    await Promise.all(registering)
    await first.exit
    t.ok(acknowledged.length >= 40)

    const second = await start(t, env).listening
    for (const email of acknowledged) t.equal(await post(second.address, '/api/auth/register', { email, password }), 409, email)
    t.equal(await post(second.address, '/api/auth/login', { email: acknowledged[0], password }), 200)
  })
}

t.test('npm run migrate brings a database to the schema, once, and a server then finds nothing left to do', async t => {
  const migrate = async (env: Record<string, string>) => await promisify(execFile)(process.execPath, [...fromSources, sourcePath('app/database/migrate.ts')], { env: { ...childEnv, ...env } })
  const databaseUrl = await freshDatabase(t)
  const names = await readdir(sourcePath('app/database/migrations'))
  const places: Array<Record<string, string>> = [{ DATA_DIR: await embeddedDataDir(t) }, { DATA_DIR: await temporaryDirectory(t), DATABASE_URL: databaseUrl }]
  for (const env of places) {
    const { stdout } = await migrate(env)
    for (const name of names) t.match(stdout, name)
    t.strictSame(await migrate(env), { stdout: 'nothing to migrate\n', stderr: '' })
    const { address, lines } = await start(t, env).listening
    t.equal(await post(address, '/api/auth/register', { email: 'ada@example.org', password }), 201)
    t.notMatch(lines.join('\n'), 'the database was migrated')
  }
  const { rows } = await execute(databaseUrl, 'select name from schema_migrations')
  t.same(rows.map(({ name }) => name), names)

  const refused = await migrate({ DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/none' }).catch(error => error)
  t.match(refused, { code: 1, stderr: /^PostgreSQL at DATABASE_URL cannot be opened/ })
})

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
