import { randomBytes } from 'node:crypto'
import { on } from 'node:events'
import { writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { setTimeout as after } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import { variants, type Credentials, type Variant } from './variants.ts'

// The server's process: `server.ts <file> <variant>` writes the requests of the variant into the file.

/** What the process tells once it listens. */
export interface Ready {
  port: number
}

/** What it is then asked for, in milliseconds. */
export interface Turn {
  settle: number
  duration: number
}

/** What it measured of itself in a turn: requests, and milliseconds of wall time and of its own CPU. */
export interface Usage {
  requests: number
  wall: number
  cpu: number
}

const SESSIONS = 10_000
const REQUEST_BYTES = 768

const [file = '', name = ''] = process.argv.slice(2)
const subjects = Array.from({ length: SESSIONS }, (_, i) => `user-${String(i).padStart(5, '0')}`)
let served = 0
let failure: Error | undefined

/** What nobody reads differs from request to request too: requests that are all the same stay in caches, the load's and the server's. */
function standIn (): string {
  return randomBytes(42).toString('base64url')
}

/** All variants get the same headers, whichever of them they read; the last one makes all requests equally long. */
function requestOf ({ token = standIn(), cookie = standIn() }: Credentials): string {
  const head = `GET /me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\nCookie: sessionId=${cookie}\r\nX-Padding: `
  const end = '\r\n\r\n'
  return head + 'x'.repeat(REQUEST_BYTES - head.length - end.length) + end
}

/** @throws {Error} where it does not tell who asks, or lets in who presents nothing */
async function prove (app: FastifyInstance, { title, guarded }: Variant, sub: string, request: string): Promise<void> {
  const [, ...headers] = request.trim().split('\r\n').map(line => line.split(': '))
  const known = await app.inject({ url: '/me', headers: Object.fromEntries(headers) })
  const unknown = await app.inject('/me')
  if (known.json().sub === sub && unknown.statusCode === (guarded ? 401 : 200)) return
  throw new Error(`${title} answers ${known.statusCode} ${known.body} to ${sub}, ${unknown.statusCode} to nobody`)
}

async function listen (): Promise<number> {
  const variant = variants[name]
  if (variant === undefined) throw new Error(`${name} is no variant`)

  const app = Fastify()
  app.addHook('onError', async (_request, _reply, error) => { failure = error })
  const requests = (await variant.open(app, subjects)).map(requestOf)
  await prove(app, variant, subjects[0] ?? '', requests[0] ?? '')
  failure = undefined
  await writeFile(file, requests.join(''), 'latin1')

  app.server.on('request', () => { served++ })
  await app.listen({ host: '127.0.0.1', port: 0 })
  return (app.server.address() as AddressInfo).port
}

/** @throws {Error} where a request was refused */
async function measure ({ settle, duration }: Turn): Promise<Usage> {
  await after(settle)
  const [requests, wall, cpu] = [served, performance.now(), process.cpuUsage()]
  await after(duration)
  const { user, system } = process.cpuUsage(cpu)
  if (failure !== undefined) throw failure
  return { requests: served - requests, wall: performance.now() - wall, cpu: (user + system) / 1000 }
}

process.send?.({ port: await listen() } satisfies Ready)

process.once('disconnect', () => process.exit())
for await (const [turn] of on(process, 'message')) process.send?.(await measure(turn))
