import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import type { Auth } from './auth.ts'
import { completeStore } from './complete-store.ts'
import { TokenOptions } from './errors.ts'
import { MemoryStore } from './memory-store/index.ts'
import { resolveOptions, type TokenRegistryOptions } from './options.ts'
import type { IssuedToken } from './operations.ts'
import { TokenRegistry } from './registry.ts'
import { wireRequests } from './request.ts'
import type { RouteSession } from './route-session.ts'
import type { TokenStore } from './store.ts'
import { TokenMint } from './token.ts'
import type { SessionData } from './validation.ts'

declare module 'fastify' {
  interface FastifyInstance {
    tokenRegistry: TokenRegistry
    /** Set by a plugin that brings a store; token-registry then uses it. */
    tokenStore?: TokenStore
  }
  interface FastifyRequest {
    /** Who makes the request; null where a route asks for no session, or may do without. Frozen. */
    readonly auth: Auth | null
    /** Who makes the request. Throws `FST_TOKEN_MISSING` (401) where that is nobody. */
    requireAuth (): Auth
    /** Issues a session to the caller; ip address and user agent are taken from the request. */
    startSession (data: SessionData): Promise<IssuedToken>
    /** Replaces the token of the caller by its successor. Throws `FST_SESSION_NOT_ROTATABLE` for a JWT or an adopted token. */
    rotateSession (): Promise<IssuedToken>
    /** Ends the session of the caller; false where it had ended already. */
    revokeSession (reason?: string): Promise<boolean>
  }
  interface FastifyContextConfig {
    /** What the route asks for: true, a session; false (the default, unless the plugin was registered with another), nothing. */
    session?: RouteSession
  }
}

const tokenRegistry: FastifyPluginAsync<TokenRegistryOptions> = async (app, given) => {
  if (app.hasDecorator('tokenRegistry')) throw new TokenOptions('it is registered here already, or in a context around this one: use that')
  const options = resolveOptions(given)
  const mint = new TokenMint(options.secret)
  const brought = given.store ?? app.tokenStore
  const store = completeStore(brought ?? new MemoryStore())
  // What answers out of this process needs no deadline.
  const storeTimeout = brought === undefined ? null : options.operationTimeout
  const log = app.log.child({ plugin: 'token-registry' })
  const registry = new TokenRegistry(store, mint, { ...options, storeTimeout }, (error, message, request) => (request == null ? log : request.log.child({ plugin: 'token-registry' })).error(error, message))

  app.decorate('tokenRegistry', registry)
  wireRequests(app, registry, options)

  app.addHook('onClose', async () => {
    await registry.close()
    if (brought === undefined) await store.close()
  })
}

export default fp(tokenRegistry, { name: 'token-registry', fastify: '5.x' })
export { requireSession } from './request.ts'
export { completeStore } from './complete-store.ts'
export { within } from './deadline.ts'
export { memoryStore, MemoryStore } from './memory-store/index.ts'
export type { MemoryStoreOptions } from './memory-store/options.ts'
export { errorAnswers } from './error-answers.ts'
export { Operators, quietLevel, type OperatorOptions } from './operators.ts'
export { faultOf } from './option-fault.ts'
export { ownOf } from './own-options.ts'
export { refusalOf } from './refusal.ts'
export { endingBy, holdingsOf, judgeLimits, TENANT_GROUP, type Counted, type Holdings, type LimitVerdict } from './limits.ts'
export { judgeRotation, generationValidUntil } from './rotation.ts'
export { deadlineOf } from './record.ts'
export { weakness } from './secret-strength.ts'
export { tagOf } from './token.ts'
export { milliseconds, DurationSchema, type Duration } from './duration.ts'
export * from './errors.ts'
export type * from './record.ts'
export type * from './store.ts'
export type { Auth, DeepReadonly } from './auth.ts'
export type { Change, HookContext, HookName, HookOptions, Hooks, OperationName, Outcome, Revocation, Rotation } from './hooks.ts'
export type { CheckedHealth, Health, HealthCheckOptions, HealthChecks, HealthStatus } from './health-checks.ts'
export type { Observed, Observer } from './observers.ts'
export type { ForeignToken, TokenType } from './opener.ts'
export type { DpopCheck, TokenRegistryOptions } from './options.ts'
export type { SessionLifetime } from './lifetimes.ts'
export type { SessionPolicy, SessionTerms, Terms } from './policy.ts'
export type { WatchListener } from './watch.ts'
export type { PartialStore, RequiredStore } from './complete-store.ts'
export type { AdoptedToken, EnforceQuery, IssuedToken, Operations, RevokeAllOptions, RevokeOptions } from './operations.ts'
export type { ListQuery, TokenRegistry } from './registry.ts'
export type { Figures, Stats } from './stats.ts'
export type { Tally } from './tally.ts'
export type { RouteSession, SessionRequirements } from './route-session.ts'
export type { Candidate, SessionChange, SessionData, Validator, ValidatorOption } from './validation.ts'
export type { Proof } from './verifier.ts'
