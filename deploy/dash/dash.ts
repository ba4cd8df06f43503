import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import { load, loadEnv } from './load.ts'
import { servePage } from './page.ts'
import { startPrometheus } from './prometheus.ts'

// `npm run dash`: the reference server under load, and Prometheus that watches it, so that a person can look. Ctrl-C ends all of it.

const { PORT = '3000', DASH_PORT = '3001', PROMETHEUS_PORT = '9090', REDIS_PORT = '6390' } = process.env
const address = `http://127.0.0.1:${PORT}`
const stopped = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stopped.abort())

const folder = await mkdtemp(join(tmpdir(), 'dash-'))
const children: ChildProcess[] = []

function start (program: string, args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(child)
  return child
}

/** @throws where the program is not installed */
async function started (child: ChildProcess): Promise<void> {
  await once(child, 'spawn')
}

async function redis (): Promise<string> {
  try {
    await started(start('redis-server', ['--port', REDIS_PORT, '--bind', '127.0.0.1', '--save', '', '--dir', folder]))
    return `redis://127.0.0.1:${REDIS_PORT}`
  } catch {
    console.log('redis-server is not installed: sessions are in memory, and what only Redis has stays empty')
    return ''
  }
}

async function serve (token: string): Promise<void> {
  const server = start(process.execPath, ['dist/app/main.js'], {
    ...loadEnv, PORT, METRICS_TOKEN: token, REDIS_URL: await redis(), DATA_DIR: join(folder, 'server')
  })
  server.once('exit', () => stopped.abort(new Error('the server ended')))
  // No other server that may be there takes the token.
  const ready = async (): Promise<boolean> => await fetch(`${address}/metrics`, { headers: { authorization: `Bearer ${token}` } }).then(({ ok }) => ok, () => false)
  while (!await ready()) {
    stopped.signal.throwIfAborted()
    await after(200)
  }
}

try {
  const token = randomBytes(24).toString('base64url')
  await serve(token)
  await mkdir(join(folder, 'prometheus'))
  const prometheus = await startPrometheus({ program: 'prometheus', folder: join(folder, 'prometheus'), port: Number(PROMETHEUS_PORT), target: address, token })
  children.push(prometheus.process)

  await servePage(Number(DASH_PORT), prometheus.address, stopped.signal)
  console.log(`
dashboard   http://127.0.0.1:${DASH_PORT}
server      ${address}/docs
prometheus  ${prometheus.address}

For Grafana: import deploy/grafana/token-registry.json, with that Prometheus as its data source.`)
  const redisPid = children[0]?.pid
  if (redisPid !== undefined) console.log(`For an alert: kill -STOP ${redisPid} hangs Redis, kill -CONT ${redisPid} mends it.`)
  await load(address, stopped.signal)
  stopped.signal.throwIfAborted()
} catch (error) {
  // What fails once all is being stopped fails for that.
  const fault = Object(stopped.signal.aborted ? stopped.signal.reason : error)
  if (fault.name !== 'AbortError') {
    console.error(fault.code === 'ENOENT' ? 'prometheus is not installed: its package is called prometheus, in Debian too' : fault.message)
    process.exitCode = 1
  }
} finally {
  stopped.abort()
  // What needs others before them.
  for (const child of children.toReversed()) {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) continue
    child.kill('SIGCONT')
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
  await rm(folder, { recursive: true })
}
