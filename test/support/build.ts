import Fastify, { type FastifyInstance } from 'fastify'
import { randomBytes } from 'node:crypto'
import type { Test } from 'tap'
import { Keyring } from '../../plugins/token-registry/keyring.ts'
import tokenRegistry, { type TokenRegistryOptions } from '../../plugins/token-registry/index.ts'

/** A secret that no other test has. */
export function newSecret (): string {
  return randomBytes(32).toString('base64')
}

/** Secrets that can stand in one list: of 256 pairs one shares a key id, and is refused. */
export function newSecrets (count: number): string[] {
  const secrets = new Map(Array.from({ length: count }, newSecret).map(secret => [new Keyring([secret], 1).kid, secret]))
  return secrets.size === count ? [...secrets.values()] : newSecrets(count)
}

/** A server with the registry, closed with the test. */
export async function build (t: Test, options: Partial<TokenRegistryOptions> = {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret(), ...options })
  return app
}
