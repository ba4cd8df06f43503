import Fastify, { type FastifyInstance } from 'fastify'
import { randomBytes } from 'node:crypto'
import type { Test } from 'tap'
import tokenRegistry, { type TokenRegistryOptions } from '../../plugins/token-registry/index.ts'

/** A secret that no other test has. */
export function newSecret (): string {
  return randomBytes(32).toString('base64')
}

/** A server with the registry, closed with the test. */
export async function build (t: Test, options: Partial<TokenRegistryOptions> = {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret(), ...options })
  return app
}
