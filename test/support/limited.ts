import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import sessionLimits, { type SessionLimitsOptions } from '../../plugins/session-limits/index.ts'
import { memoryStore, type IssuedToken, type SessionData, type SessionLimitError, type TokenRegistry, type TokenRegistryOptions } from '../../plugins/token-registry/index.ts'
import { Clock } from './clock.ts'
import { serve } from './serve.ts'

export interface Limited {
  app: FastifyInstance
  registry: TokenRegistry
  clock: Clock
  /** What the server logged as an error. */
  errors: string[]
  issue (data?: Partial<SessionData>): Promise<IssuedToken>
  /** Ids of sessions that live, the oldest first. */
  live (sub?: string, tenant?: string): Promise<string[]>
}

/** A server with limits, on a memory store whose clock is moved by hand. */
export async function limited (t: Test, options: SessionLimitsOptions, registryOptions: Partial<TokenRegistryOptions> = {}): Promise<Limited> {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now })
  t.teardown(() => store.close())
  const errors: string[] = []
  const app = await serve(t, { store, ...registryOptions }, { logger: { level: 'error', stream: { write: (line: string) => { errors.push(line) } } } })
  await app.register(sessionLimits, options)
  const registry = app.tokenRegistry
  return {
    app,
    registry,
    clock,
    errors,
    issue: async (data = {}) => {
      clock.advance(1)
      return await registry.issue({ sub: 'alice', ...data })
    },
    live: async (sub = 'alice', tenant = '') => (await registry.list({ sub, tenant, limit: 500 })).sessions.map(({ id }) => id).reverse()
  }
}

/** The refusal of a sign-in. */
export async function refusalOf (signIn: Promise<unknown>): Promise<SessionLimitError> {
  return await signIn.then(() => { throw new Error('nothing refused it') }, (error: SessionLimitError) => error)
}
