import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { checkKey, jwtOf, pinnedAlgorithm } from './jwt.ts'
import { JwtOptions } from './errors.ts'
import { resolveOptions, type SessionJwtOptions } from './options.ts'
import { probe } from './probe.ts'
import { SessionJwt } from './session-jwt.ts'
import { accessTokenType } from './token-type.ts'

declare module 'fastify' {
  interface FastifyInstance {
    sessionJwt: SessionJwt
  }
}

const sessionJwt: FastifyPluginAsync<SessionJwtOptions> = async (app, given) => {
  const { namespace, ...options } = resolveOptions(given)
  const jwt = jwtOf(app, namespace)
  const algorithm = pinnedAlgorithm(jwt, options.algorithm)
  checkKey(jwt, algorithm)

  const partsBy = (now: () => number) => ({
    signer: new SessionJwt(jwt, now, { ...options, algorithm }),
    type: accessTokenType(jwt, now, { ...options, algorithm })
  })
  const { tokenRegistry } = app
  const fault = tokenRegistry.addAccessTokenLifetime('ttl of session-jwt', options.ttl)
  if (fault !== null) throw new JwtOptions(fault)
  // Tried out by a clock that stands still: however long that takes, nothing expires meanwhile.
  const startedAt = tokenRegistry.now()
  await probe(partsBy(() => startedAt), startedAt)

  const { signer, type } = partsBy(() => tokenRegistry.now())
  tokenRegistry.addTokenType(type)
  app.decorate('sessionJwt', signer)
}

export default fp(sessionJwt, { name: 'session-jwt', fastify: '5.x', dependencies: ['token-registry', '@fastify/jwt'] })
export { denylistTrusted, type DenylistTrustedOptions } from './denylist-trusted.ts'
export { JwtOptions, JwtRefused } from './errors.ts'
export { jwtKeys, type Algorithm, type JwtKey, type JwtKeys } from './keys.ts'
export type { SessionJwtOptions } from './options.ts'
export type { ServiceClaims, SessionJwt, SignableSession, SignedJwt } from './session-jwt.ts'
