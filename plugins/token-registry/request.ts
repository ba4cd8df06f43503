import { isIP } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify'
import { authFrom, type Auth } from './auth.ts'
import { authorizationOf, credentialsOf, isCrossSite, setCookie, type Credentials } from './credentials.ts'
import { isThenable, within } from './deadline.ts'
import {
  HookTimeout, SessionCrossSite, SessionNotRotatable, SessionRouteConfig, SessionScope, sessionScope, StoreTimeout, StoreUnavailable, TokenInvalid, TokenMalformed,
  TokenMissing
} from './errors.ts'
import type { RegistryOptions } from './options.ts'
import { isBadToken, refusalOf } from './refusal.ts'
import type { IssuedToken } from './operations.ts'
import type { TokenRegistry } from './registry.ts'
import { policyOf, type RouteSession, type SessionPolicy } from './route-session.ts'
import { looksLikeOurs } from './token.ts'
import type { SessionData } from './validation.ts'

const kAuth = Symbol('fastify-token-registry auth')
const kOutcome = Symbol('fastify-token-registry outcome')
const kPolicy = Symbol('fastify-token-registry policy')

/** What became of the session of a request: what onSend has to tell. */
interface Outcome {
  /** Whether the answer may hold a token, of any use. */
  noStore?: true
  /** The session that was started or rotated; `ended` where there is none any more. */
  session?: IssuedToken | 'ended'
  /** What a decorator threw. */
  refusal?: Error
}

interface SessionRequest extends FastifyRequest {
  // Not decorated: Fastify would set them on each request, and hooks reach contexts that are older than the plugin, where decorators do not.
  [kAuth]?: Auth | null
  [kOutcome]?: Outcome | null
}

interface RouteConfig {
  session?: RouteSession
  [kPolicy]?: SessionPolicy | null
}

/**
 * Brings sessions to requests: reads `config.session` of each route, authenticates, and answers with the cookie.
 */
export function wireRequests (app: FastifyInstance, registry: TokenRegistry, options: RegistryOptions): void {
  const gate = new Gate(registry, options)

  // Without a setter, assigning to request.auth throws.
  app.decorateRequest('auth', { getter (this: FastifyRequest) { return (this as SessionRequest)[kAuth] ?? null } })
  app.decorateRequest('requireAuth', function () { return gate.require(this as SessionRequest) })
  app.decorateRequest('startSession', async function (data) { return await gate.start(this as SessionRequest, data) })
  app.decorateRequest('rotateSession', async function () { return await gate.rotate(this as SessionRequest) })
  app.decorateRequest('revokeSession', async function (reason) { return await gate.revoke(this as SessionRequest, reason) })

  const policyFor = (config: RouteConfig, route: string) => policyOf(Object.hasOwn(config, 'session') ? config.session : options.session, route)

  app.addHook('onRoute', ({ config = {}, method, url }) => { policyFor(config, `${String(method)} ${url}`) })

  app.addHook('onRequest', (request, reply, done) => {
    const config: RouteConfig = request.routeOptions.config
    // Not before the first request: until then, a hook of the host may change what a route says.
    if (config[kPolicy] === undefined) config[kPolicy] = policyFor(config, `${request.method} ${request.routeOptions.url ?? 'an unknown route'}`)
    const policy = config[kPolicy]
    if (policy === null) done()
    else gate.enter(request as SessionRequest, reply, policy, done)
  })

  app.addHook('onSend', (request, reply, payload, done) => {
    const outcome = (request as SessionRequest)[kOutcome]
    if (outcome) gate.tell(request as SessionRequest, reply, outcome)
    done(null, payload)
  })
}

/**
 * A route-level hook that does what `config.session` does, for servers that prefer to see it there.
 *
 * @throws {SessionRouteConfig}
 * @example
 * fastify.get('/me', { onRequest: requireSession({ scope: 'profile' }) }, handler)
 */
export function requireSession (config: Exclude<RouteSession, false> = true): onRequestHookHandler {
  const policy = policyOf(config, 'requireSession')
  if (policy === null) throw new SessionRouteConfig('requireSession: false asks for nothing')

  return function (request, reply, done) {
    const gate = gates.get(request.server.tokenRegistry)
    if (gate === undefined) throw new SessionRouteConfig('requireSession: token-registry is not registered here')
    gate.enter(request as SessionRequest, reply, policy, done)
  }
}

const gates = new WeakMap<TokenRegistry, Gate>()

/** From a request to who makes it, and back to the answer. */
class Gate {
  readonly #registry: TokenRegistry
  readonly #options: RegistryOptions

  constructor (registry: TokenRegistry, options: RegistryOptions) {
    this.#registry = registry
    this.#options = options
    gates.set(registry, this)
  }

  /** Calls back at once where the cache knows the token: no promise, hash, or parsing. */
  enter (request: SessionRequest, reply: FastifyReply, policy: SessionPolicy, done: (error?: Error) => void): void {
    let auth: Auth | undefined
    let credentials: Credentials | null = null
    try {
      const authorization = authorizationOf(request)
      if (authorization !== null) auth = this.#registry.cached(authorization)
      if (auth === undefined) {
        credentials = this.#credentials(request, authorization, policy)
        if (credentials?.scheme === 'cookie') auth = this.#registry.cached(credentials.key)
      }
    } catch (error) {
      return done(refused(reply, error))
    }
    if (auth !== undefined) done(this.#admit(request, reply, policy, auth))
    else if (credentials === null) done()
    else this.#authenticate(request, reply, policy, credentials).then(done, done)
  }

  require (request: SessionRequest): Auth {
    const { auth } = request
    if (auth === null) throw this.#refuse(request, new TokenMissing())
    return auth
  }

  async start (request: SessionRequest, data: SessionData): Promise<IssuedToken> {
    try {
      const issued = await this.#registry.for(request).issue(await this.#registry.beforeStart({ ...data, meta: { ...seen(request), ...data.meta } }, request))
      if (issued.session.use === 'session') this.#changed(request, issued)
      else request[kOutcome] = { ...request[kOutcome], noStore: true }
      return issued
    } catch (error) {
      throw this.#refuse(request, error)
    }
  }

  async rotate (request: SessionRequest): Promise<IssuedToken> {
    const { session: { client, binding } } = this.require(request)
    const token = this.#tokenOf(request)
    if (token === undefined || !looksLikeOurs(token)) throw new SessionNotRotatable()
    try {
      const issued = await this.#registry.for(request).rotate(token, { client, binding })
      this.#changed(request, issued)
      return issued
    } catch (error) {
      if (isBadToken(error)) this.#ended(request)
      throw this.#refuse(request, error)
    }
  }

  async revoke (request: SessionRequest, reason?: string): Promise<boolean> {
    const { session: { id, sub } } = this.require(request)
    try {
      const revoked = await this.#registry.for(request).revokeById(id, reason, { by: sub })
      this.#ended(request)
      return revoked
    } catch (error) {
      throw this.#refuse(request, error)
    }
  }

  tell (request: SessionRequest, reply: FastifyReply, { session, noStore, refusal }: Outcome): void {
    // Once: where another onSend hook fails, all of them run again.
    request[kOutcome] = null
    // The handler may have caught it.
    if (refusal !== undefined && 'statusCode' in refusal && refusal.statusCode === reply.statusCode) explain(reply, refusal)
    if (session !== undefined || noStore) reply.header('cache-control', 'no-store')
    const { cookie } = this.#options
    if (cookie === null || session === undefined) return
    reply.header('set-cookie', session === 'ended'
      ? setCookie(cookie, '', 0)
      : setCookie(cookie, session.token, session.session.meta.remember === false ? null : Math.ceil((session.session.expiresAt - this.#registry.now()) / 1000)))
  }

  #changed (request: SessionRequest, { token, session }: IssuedToken): void {
    // A copy: the handler was given the record, and may change it.
    const own = structuredClone(session)
    request[kOutcome] = { session: { token, session: own } }
    request[kAuth] = authFrom(own)
  }

  #ended (request: SessionRequest): void {
    request[kOutcome] = { session: 'ended' }
    request[kAuth] = null
  }

  #refuse (request: SessionRequest, error: unknown): Error {
    const refusal = refusalOf(error)
    request[kOutcome] = { ...request[kOutcome], refusal }
    return refusal
  }

  /** The newest token of the session that the request acts for. */
  #tokenOf (request: SessionRequest): string | undefined {
    const session = request[kOutcome]?.session
    return typeof session === 'object' ? session.token : credentialsOf(request, authorizationOf(request), this.#options.cookie)?.token
  }

  #credentials (request: SessionRequest, authorization: string | null, { optional }: SessionPolicy): Credentials | null {
    const credentials = credentialsOf(request, authorization, this.#options.cookie)
    if (credentials === null && !optional) throw new TokenMissing()
    if (credentials?.scheme === 'cookie' && isCrossSite(request)) throw new SessionCrossSite()
    return credentials
  }

  #admit (request: SessionRequest, reply: FastifyReply, { scope, noStore }: SessionPolicy, auth: Auth): Error | undefined {
    for (const needed of scope) {
      if (!auth.scope.includes(needed)) return refused(reply, sessionScope(scope.join(' '), auth), scope)
    }
    if (noStore) reply.header('cache-control', 'no-store')
    request[kAuth] = auth
    return undefined
  }

  async #authenticate (request: SessionRequest, reply: FastifyReply, policy: SessionPolicy, credentials: Credentials): Promise<Error | undefined> {
    try {
      const binding = credentials.scheme === 'dpop' ? await this.#thumbprint(request, credentials.token) : null
      return this.#admit(request, reply, policy, await this.#verify(request, reply, policy, credentials, binding))
    } catch (error) {
      if (credentials.scheme === 'cookie' && isBadToken(error)) {
        this.#ended(request)
        // A browser keeps sending an old cookie: where nobody has to be signed in, it counts as none.
        if (policy.optional) return undefined
      }
      return refused(reply, error)
    }
  }

  async #verify (request: FastifyRequest, reply: FastifyReply, policy: SessionPolicy, credentials: Credentials, binding: string | null): Promise<Auth> {
    try {
      return await this.#registry.verifyPresented(credentials, binding, request)
    } catch (error) {
      const serveCachedFor = policy.serveCachedFor ?? this.#options.serveCachedFor
      const stale = serveCachedFor > 0 && isStoreDown(error) ? this.#registry.stale(credentials.key, serveCachedFor) : undefined
      if (stale === undefined || stale.auth.session.binding !== binding) throw error
      this.#registry.stats.servedStale++
      reply.header('session-cache', 'stale')
      return stale.auth
    }
  }

  async #thumbprint (request: FastifyRequest, token: string): Promise<string> {
    const { dpop, hookTimeout } = this.#options
    if (dpop === undefined) throw new TokenInvalid()
    try {
      const checking = dpop(request, token)
      return isThenable(checking) ? await within(checking, hookTimeout, () => new HookTimeout('dpop', hookTimeout)) : checking
    } catch (error) {
      throw isCritical(error) ? error : new TokenInvalid({ cause: error })
    }
  }
}

/** What is known of a client by its request. */
function seen (request: FastifyRequest): { ipAddress?: string, userAgent?: string } {
  const { ip, headers: { 'user-agent': userAgent } } = request
  // Some proxies forward an address with a port, or a name.
  return { ...isIP(ip) !== 0 && { ipAddress: ip }, ...userAgent && { userAgent: userAgent.slice(0, 512) } }
}

/** The error as the caller may see it, with its headers set: in place of `error.headers`, which a host's own error handler drops. */
function refused (reply: FastifyReply, error: unknown, scope?: readonly string[]): Error {
  const refusal = refusalOf(error)
  explain(reply, refusal, scope)
  return refusal
}

function explain (reply: FastifyReply, error: Error, scope: readonly string[] = []): void {
  if (error instanceof TokenMissing) reply.header('www-authenticate', 'Bearer')
  else if (error instanceof TokenMalformed) reply.header('www-authenticate', 'Bearer error="invalid_request"')
  else if (error instanceof SessionScope) reply.header('www-authenticate', `Bearer error="insufficient_scope", scope="${scope.join(' ')}"`)
  else if (error instanceof TokenInvalid) reply.header('www-authenticate', 'Bearer error="invalid_token"')
  else if (isCritical(error)) reply.header('retry-after', '1')
}

function isStoreDown (error: unknown): boolean {
  return error instanceof StoreUnavailable || error instanceof StoreTimeout
}

function isCritical (error: unknown): boolean {
  return error instanceof Error && 'critical' in error && error.critical === true
}
