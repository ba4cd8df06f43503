import { TokenExpired, type TokenType } from '../token-registry/index.ts'
import { checkForm, type AccessTokenClaims } from './claims.ts'
import { refused } from './errors.ts'
import { headerOf, isAccessToken } from './header.ts'
import type { Jwt } from './jwt.ts'
import type { Algorithm, JwtKeys } from './keys.ts'

export interface Expected {
  issuer: string
  /** One of the token's audiences. */
  audience: string
  algorithm: Algorithm
  /** Keys that were replaced, chosen by the token's `kid`. */
  previousKeys: readonly JwtKeys[]
  /** ms by which the clocks of issuer and verifier may differ */
  clockTolerance: number
}

const headerNames = new Set(['alg', 'typ', 'kid'])

/**
 * Opens the access tokens of sessions. A JWT of another `typ` is left to other token types, and to adopted tokens.
 *
 * @param now the clock that sessions live by, ms since the epoch
 */
export function accessTokenType (jwt: Jwt, now: () => number, { issuer, audience, algorithm, previousKeys, clockTolerance }: Expected): TokenType {
  const current = { algorithms: [algorithm] }
  const previous = new Map<unknown, object>(previousKeys.map(({ secret, sign, verify }) => [sign.kid, {
    key: typeof secret === 'string' ? secret : secret.public,
    algorithms: verify.algorithms
  }]))

  return {
    name: 'session-jwt',
    matches: token => isAccessToken(headerOf(token)),
    open (token) {
      const header = headerOf(token)
      if (!isAccessToken(header)) throw refused('it is no access token')
      // Closed: nothing that a token brings along (jwk, jku, x5u, crit, b64, zip) takes part in its own verification.
      if (!Object.keys(header).every(name => headerNames.has(name))) throw refused('its header holds more than alg, typ and kid')

      const claims = jwt.verify(token, {
        ...previous.get(header.kid) ?? current,
        complete: false,
        cache: false,
        // Both are checked below, by the store's clock.
        ignoreExpiration: true,
        ignoreNotBefore: true,
        clockTimestamp: now()
      })
      checkForm(claims)
      checkValues(claims)
      return { sid: claims.sid, expiresAt: claims.exp * 1000 + clockTolerance, claims }
    }
  }

  function checkValues ({ iss, aud, nbf, exp }: AccessTokenClaims): void {
    if (iss !== issuer) throw refused('iss is another issuer')
    if (aud !== audience && !(Array.isArray(aud) && aud.includes(audience))) throw refused('aud is another audience')
    if (nbf * 1000 - clockTolerance > now()) throw refused('nbf lies in the future')
    if (exp * 1000 + clockTolerance <= now()) throw new TokenExpired()
  }
}
