import type { FastifyRequest } from 'fastify'
import { JwtOptions } from './errors.ts'

export interface DenylistTrustedOptions {
  /** Looks ids up as those of the token's `iss`, for a list of several issuers; add them with `{ issuer }` then. */
  byIssuer?: boolean
  /** Trusts a JWT without `jti`, which nothing can refuse. */
  allowMissingJti?: boolean
  /** Refuses as well what was issued before the list began: a memory store forgets its list with the process. */
  refuseOlder?: boolean
}

/**
 * The `trusted` function of `@fastify/jwt` for JWTs that were issued elsewhere: refuses those whose `jti` is on the denylist of the registry, which
 * may be registered later. A store that does not answer gives its error (503), never trust.
 *
 * @example
 * await app.register(fastifyJwt, { secret, trusted: denylistTrusted() })
 * await app.register(tokenRegistry, { secret })
 */
export function denylistTrusted ({ byIssuer = false, allowMissingJti = false, refuseOlder = false }: DenylistTrustedOptions = {}) {
  // Asynchronous also for a list in memory: @fastify/jwt does not catch what is thrown at once.
  return async function trusted ({ server }: FastifyRequest, { jti, iss, iat }: Readonly<Record<string, unknown>>): Promise<boolean> {
    if (!server.hasDecorator('tokenRegistry')) throw new JwtOptions('denylistTrusted: token-registry is not registered here')
    if (jti === undefined) return allowMissingJti
    if (typeof jti !== 'string' || jti === '' || jti.length > 512) return false
    if (byIssuer && typeof iss !== 'string') return false
    if (refuseOlder && typeof iat !== 'number') return false
    return !await server.tokenRegistry.denylist.has(jti, {
      ...typeof iss === 'string' && byIssuer && { issuer: iss },
      ...typeof iat === 'number' && refuseOlder && { issuedAt: iat * 1000 }
    })
  }
}
