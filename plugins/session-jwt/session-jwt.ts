import { randomUUID } from 'node:crypto'
import { TokenExpired, TokenValidation, type DeepReadonly, type SessionRecord } from '../token-registry/index.ts'
import { MAX_LENGTH, TYP } from './header.ts'
import type { Jwt } from './jwt.ts'
import type { Algorithm } from './keys.ts'

/** What of a session goes into its tokens: a record of the registry, or `request.auth.session`. */
export type SignableSession = DeepReadonly<Pick<SessionRecord, 'id' | 'sub' | 'client' | 'use' | 'scope' | 'binding' | 'expiresAt'>>

/** Claims that a service adds. `scope` (RFC 8693, section 4.2) narrows that of the session. */
export type ServiceClaims = Readonly<Record<string, unknown>> & { readonly scope?: string }

export interface SignedJwt {
  token: string
  /** The token's id. */
  jti: string
  /** Seconds, as `expires_in` of RFC 6749. */
  expiresIn: number
  /** ms since the epoch */
  expiresAt: number
}

export interface SigningOptions {
  issuer: string
  audience: string
  algorithm: Algorithm
  /** ms */
  ttl: number
}

const ours = ['iss', 'aud', 'sub', 'sid', 'jti', 'iat', 'nbf', 'exp', 'client_id', 'cnf']

/** Signs access tokens that end with their session. */
export class SessionJwt {
  readonly #jwt: Jwt
  readonly #now: () => number
  readonly #options: SigningOptions

  /** @param now the clock that sessions live by, ms since the epoch */
  constructor (jwt: Jwt, now: () => number, options: SigningOptions) {
    this.#jwt = jwt
    this.#now = now
    this.#options = options
  }

  /**
   * Signs an access token (RFC 9068) for a session. It never lives longer than the session.
   *
   * @param claims what the service adds; those that the token type needs cannot be set
   * @throws `FST_TOKEN_VALIDATION` for such a claim, a scope that the session lacks, a token of more than 8192 characters, and a one-time token;
   * `FST_TOKEN_EXPIRED` where the session has less than a second left
   * @example
   * const { session } = await fastify.tokenRegistry.issue({ sub: 'alice', use: 'refresh' })
   * const { token, expiresIn } = fastify.sessionJwt.sign(session)
   */
  sign (session: SignableSession, claims: ServiceClaims = {}): SignedJwt {
    checkClaims(session, claims)
    const { algorithm } = this.#options
    const payload = this.#payload(session, claims)
    // Options make @fastify/jwt parse the key again. A host whose own name the type spares that.
    const typed = this.#jwt.options.sign.header?.typ === TYP
    const token = typed ? this.#jwt.sign(payload) : this.#jwt.sign(payload, { algorithm, typ: TYP })
    if (token.length > MAX_LENGTH) throw new TokenValidation(`claims: the token has ${token.length} characters, at most ${MAX_LENGTH} are taken`)
    const { jti, iat, exp } = payload
    return { token, jti, expiresIn: exp - iat, expiresAt: exp * 1000 }
  }

  #payload ({ id, sub, client, scope, binding, expiresAt }: SignableSession, claims: ServiceClaims) {
    const { issuer, audience, ttl } = this.#options
    const now = this.#now()
    const iat = Math.floor(now / 1000)
    const exp = Math.floor(Math.min(now + ttl, expiresAt) / 1000)
    if (exp * 1000 <= now) throw new TokenExpired()
    // JSON leaves out what is undefined.
    return {
      ...claims,
      scope: claims.scope ?? (scope.length === 0 ? undefined : scope.join(' ')),
      iss: issuer,
      aud: audience,
      sub,
      client_id: client ?? undefined,
      sid: id,
      jti: randomUUID(),
      iat,
      nbf: iat,
      exp,
      // RFC 9449, section 6.1
      cnf: binding === null ? undefined : { jkt: binding }
    }
  }
}

function checkClaims ({ use, scope }: SignableSession, claims: ServiceClaims): void {
  if (use === 'once') throw new TokenValidation('use: is "once", and a one-time token makes no requests')
  const taken = ours.find(name => Object.hasOwn(claims, name))
  if (taken !== undefined) throw new TokenValidation(`claims.${taken}: is set by the session`)
  if (claims.scope === undefined) return
  const wider = typeof claims.scope !== 'string' || claims.scope.split(' ').some(name => name !== '' && !scope.includes(name))
  if (wider) throw new TokenValidation('claims.scope: is not text of scopes that the session has')
}
