import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyServerOptions, type InjectOptions, type LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import tokenRegistry, { memoryStore, type TokenRegistryOptions, type TokenStore } from '../../plugins/token-registry/index.ts'
import { newSecret } from './build.ts'
import { Clock } from './clock.ts'
import { decorated } from './decorated.ts'

export const MINUTE = 60_000
export const BAD_TOKEN = { statusCode: 401, code: 'FST_TOKEN_INVALID', error: 'Unauthorized', message: 'The token is not valid: sign in again' }
export const guarded = { config: { session: true } }
export const thumbprint = 'x'.repeat(43)

export const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
export const cookie = (token: string) => ({ cookie: `__Host-session=${token}` })

/** A server with routes that use everything a request is given. */
export async function serve (t: Test, options: Partial<TokenRegistryOptions> = {}, server: FastifyServerOptions = {}): Promise<FastifyInstance> {
  const app = Fastify(server)
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret(), ...options })

  app.get('/me', guarded, async request => ({ sub: request.requireAuth().session.sub }))
  app.get('/maybe', { config: { session: { optional: true } } }, async ({ auth }) => ({ sub: auth?.session.sub ?? null }))
  app.get('/open', async ({ auth }) => ({ auth }))
  app.post('/me', guarded, async request => ({ sub: request.requireAuth().session.sub }))
  app.post('/login', async request => await request.startSession({ sub: 'alice' }))
  app.post('/rotate', guarded, async request => await request.rotateSession())
  app.post('/logout', guarded, async request => ({ ended: await request.revokeSession() }))
  return app
}

export async function tokenOf (app: FastifyInstance, sub = 'alice'): Promise<string> {
  return (await app.tokenRegistry.issue({ sub })).token
}

/** A list stands for a header that is sent several times, which the types of `inject` know only of some. */
export type Headers = Readonly<Record<string, string | readonly string[]>>

export const inject = (app: FastifyInstance, request: InjectOptions, headers: Headers) => app.inject({ ...request, headers: headers as Record<string, string> })
export const get = (app: FastifyInstance, url: string, headers: Headers = {}) => inject(app, { url }, headers)
export const post = (app: FastifyInstance, url: string, headers: Headers = {}) => inject(app, { method: 'POST', url }, headers)

/** What a server answers to bytes on a connection of their own. */
export async function speak (app: FastifyInstance, ...head: string[]): Promise<string> {
  if (!app.server.listening) await app.listen({ port: 0 })
  const { port } = app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  let answer = ''
  socket.on('data', chunk => { answer += chunk.toString() })
  socket.write(['GET /me HTTP/1.1', 'Host: localhost', 'Connection: close', ...head, '', ''].join('\r\n'))
  await once(socket, 'close')
  return answer
}

/** A link to the memory store that can be cut. */
export class Link {
  /** ms since invalidations were proved to arrive */
  staleness = 0
  /** What calls of the store come to; `emptied`, another process ended all sessions and nobody told. */
  state: 'up' | 'down' | 'silent' | 'emptied' = 'up'
  /** Answers wait for it. */
  answers: Promise<void> = Promise.resolve()
  readonly store: TokenStore

  constructor (t: Test, now = Date.now) {
    const memory = memoryStore({ now })
    t.teardown(() => memory.close())
    const staleness = (): number => this.staleness
    this.store = decorated(memory, {
      get staleness () { return staleness() },
      insert: async (records, options) => await this.#carry(async () => await memory.insert(records, options)),
      get: async id => await this.#carry(async () => this.state === 'emptied' ? null : await memory.get(id)),
      rotate: async (id, presented, op) => await this.#carry(async () => await memory.rotate(id, presented, op)),
      end: async (ids, cause) => await this.#carry(async () => await memory.end(ids, cause)),
      endAll: async (of, cause, told) => await this.#carry(async () => await memory.endAll(of, cause, told)),
      ending: async id => await this.#carry(async () => await memory.ending(id))
    })
  }

  async #carry<T> (call: () => Promise<T>): Promise<T> {
    if (this.state === 'down') throw new Error('ECONNREFUSED')
    if (this.state === 'silent') return await new Promise(() => {})
    const answer = await call()
    await this.answers
    return answer
  }
}

/** A memory store whose clock is moved by hand. */
export function timed (t: Test): { clock: Clock, store: TokenStore } {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now })
  t.teardown(() => store.close())
  return { clock, store }
}

/** What a server logs, at every level. */
export function recorder (): { lines: string[], server: FastifyServerOptions } {
  const lines: string[] = []
  return { lines, server: { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } } }
}

export function equalAnswers (t: Test, answers: Record<string, LightMyRequestResponse>, expected: object, headers: Record<string, string>): void {
  for (const [name, answer] of Object.entries(answers)) {
    t.same(answer.json(), expected, name)
    t.match(answer.headers, headers, name)
    t.same(Object.keys(answer.headers).sort(), ['connection', 'content-length', 'content-type', 'date', ...Object.keys(headers)].sort(), name)
  }
}
