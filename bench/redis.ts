import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LOAD_CORE, onCore, present } from './cores.ts'

const PROGRAM = 'redis-server'
/** Tells the processes of the bench where Redis is. */
const VARIABLE = 'BENCH_REDIS_URL'

export const hasRedis = present(PROGRAM)

/** @throws {Error} where the bench started none */
export function redisUrl (): string {
  const url = process.env[VARIABLE]
  if (url === undefined) throw new Error(`${VARIABLE} is not set`)
  return url
}

/** Does something with a Redis of its own, which keeps nothing on disk and shares the core of the load. */
export async function withRedis<Result> (signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
  const [folder, port] = [await mkdtemp(join(tmpdir(), 'bench-redis-')), await freePort()]
  const options = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no']
  const redis = spawn(...onCore(LOAD_CORE, [PROGRAM, ...options]), { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(redis, 'exit')
  try {
    const ready = new Promise<void>(resolve => redis.stdout.setEncoding('utf8').on('data', text => { if (text.includes('Ready to accept connections')) resolve() }))
    const early = ended.then(([code]) => { throw new Error(`${PROGRAM} ended with ${code}`) })
    early.catch(() => {}) // where it is not awaited any more
    signal.throwIfAborted()
    await Promise.race([ready, early])
    process.env[VARIABLE] = `redis://127.0.0.1:${port}`
    return await work()
  } finally {
    delete process.env[VARIABLE]
    redis.kill('SIGKILL')
    await ended
    await rm(folder, { recursive: true })
  }
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // it listens on TCP
  await once(server.close(), 'close')
  return port
}
