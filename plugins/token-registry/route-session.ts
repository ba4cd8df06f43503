import { Type, type Static } from '@sinclair/typebox'
import { DurationSchema, milliseconds } from './duration.ts'
import { SessionRouteConfig } from './errors.ts'
import { faultOf } from './option-fault.ts'

const flag = () => Type.Optional(Type.Boolean({ errorMessage: 'true or false' }))
// RFC 6749, section 3.3: scope-token
const scopeToken = () => Type.String({ pattern: '^[\\x21\\x23-\\x5B\\x5D-\\x7E]+$', errorMessage: 'a scope' })

const RouteSessionSchema = Type.Union([
  Type.Boolean(),
  Type.Object({
    optional: flag(),
    scope: Type.Optional(Type.Union([scopeToken(), Type.Array(scopeToken(), { minItems: 1 })], { errorMessage: 'a scope, or a list of scopes all of which are needed' })),
    serveCachedFor: Type.Optional(DurationSchema),
    noStore: flag()
  }, { additionalProperties: false })
], { errorMessage: 'true, false or { optional, scope, serveCachedFor, noStore }' })

/** What a route asks for. */
export interface SessionRequirements {
  /** Serves who is signed in and who is not. */
  optional?: boolean
  /** All of them are needed. */
  scope?: string | readonly string[]
  /** For that long a cached session counts while the store is down, in place of the plugin's option. */
  serveCachedFor?: Static<typeof DurationSchema>
  /** Answers with `Cache-Control: no-store`. */
  noStore?: boolean
}

/** What a route says in `config.session`: true asks for a session, false for none. */
export type RouteSession = boolean | SessionRequirements

/** `config.session`, ready for each request. */
export interface SessionPolicy {
  optional: boolean
  /** All of them are needed. */
  scope: readonly string[]
  /** ms; null for what the plugin's option says */
  serveCachedFor: number | null
  noStore: boolean
}

/**
 * @param route names the route in the error
 * @returns null for a route that asks for none
 * @throws {SessionRouteConfig} where it is misspelt: a typing error must not open a route
 */
export function policyOf (config: unknown, route: string): SessionPolicy | null {
  const fault = sessionFault(config)
  if (fault !== null) throw new SessionRouteConfig(`${route}: config.${fault}`)
  if (config === false) return null
  const { optional = false, scope = [], serveCachedFor, noStore = false } = config === true ? {} : config as SessionRequirements // no fault was found with it
  return {
    optional,
    scope: typeof scope === 'string' ? [scope] : scope,
    serveCachedFor: serveCachedFor === undefined ? null : milliseconds(serveCachedFor),
    noStore
  }
}

/** What is wrong with what a route says, or the `session` option; null where nothing is. */
export function sessionFault (session: unknown): string | null {
  const fault = faultOf(RouteSessionSchema, session, 'session')
  if (fault !== null || typeof session !== 'object' || session === null) return fault

  // As from `scope: SCOPES.admn`, which would ask for no scope at all.
  const unset = Object.entries(session).find(([, value]) => value === undefined)
  if (unset !== undefined) return `session.${unset[0]} is undefined: leave it out, or give it a value`
  const contradicts = 'scope' in session && 'optional' in session && session.optional === true
  return contradicts ? 'session has scope and optional, which contradict each other' : null
}
