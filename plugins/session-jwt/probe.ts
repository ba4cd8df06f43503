import { AssertionError } from 'node:assert'
import { randomBytes } from 'node:crypto'
import type { TokenType } from '../token-registry/index.ts'
import { JwtOptions } from './errors.ts'
import type { SessionJwt, SignableSession, SignedJwt } from './session-jwt.ts'

/** ms; less than any ttl gives, so that an `expiresIn` of the host shows */
const LIFETIME = 1000

/**
 * Signs a token and opens it, so that a key that does not fit, and options of `@fastify/jwt` that change claims or refuse ours, are found at
 * registration. What only verifies signs nothing, and has nothing to open.
 *
 * @param now by the clock of both, ms since the epoch
 * @throws {JwtOptions}
 */
export async function probe ({ signer, type }: { signer: SessionJwt, type: TokenType }, now: number): Promise<void> {
  const id = randomBytes(18).toString('base64url')
  const signed = trySign(signer, { id, sub: id, client: null, use: 'session', scope: [], binding: null, expiresAt: now + LIFETIME })
  if (signed === null) return
  let claims
  try {
    claims = (await type.open(signed.token)).claims
  } catch (error) {
    throw new JwtOptions('@fastify/jwt does not verify what it signs here: look at its secret, and at its sign and verify options', { cause: error })
  }
  if (claims.sub !== id || claims.jti !== signed.jti || claims.exp !== signed.expiresAt / 1000) {
    throw new JwtOptions('the sign options of @fastify/jwt change sub, jti or exp: leave expiresIn, sub and jti out of them')
  }
}

/** @returns null where `@fastify/jwt` has no key to sign with */
function trySign (signer: SessionJwt, session: SignableSession): SignedJwt | null {
  try {
    return signer.sign(session)
  } catch (error) {
    if (error instanceof AssertionError) return null
    throw new JwtOptions('@fastify/jwt cannot sign here: look at its secret, and at its sign options', { cause: error })
  }
}
