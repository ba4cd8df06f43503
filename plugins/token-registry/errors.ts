import createError from '@fastify/error'
import type { Auth } from './auth.ts'
import type { SessionRecord } from './record.ts'

/** An error of the project's plugins. */
export interface RegistryError extends Error {
  code: string
  statusCode: number
  /** True: the infrastructure failed; false: the caller's input did. Only critical errors count for a circuit breaker. */
  critical: boolean
}

/** What a sign-in that a limit refused can offer to who signs in. */
export interface SessionLimitError extends RegistryError {
  limit: string
  max: number
  /** How many there are. */
  count: number
  /** Those of the subject that count, the newest first: one of them could be ended (`endOthers`). For the owner's eyes. */
  sessions: SessionRecord[]
}

/** A session that was proved, and does not suffice. */
export interface SessionScopeError extends RegistryError {
  auth: Auth
}

export type RegistryErrorConstructor<Args extends unknown[]> = new (...args: [...Args, ErrorOptions?]) => RegistryError

/** The request carries no token. */
export const TokenMissing = define('FST_TOKEN_MISSING', 'Sign in: this needs a session token', 401)
/** The token is malformed, forged, unknown or of another kind; on the wire every bad token is this one, with the specific error as its cause. */
export const TokenInvalid = define('FST_TOKEN_INVALID', 'The token is not valid: sign in again', 401)
/** The session reached its absolute deadline or its idle timeout. */
export const TokenExpired = define('FST_TOKEN_EXPIRED', 'The session has expired: sign in again', 401)
/** The session was ended before its time. */
export const TokenRevoked = define('FST_TOKEN_REVOKED', 'The session was ended: sign in again', 401)
/** A token that was replaced or consumed was presented again. */
export const TokenReused = define('FST_TOKEN_REUSED', 'The token was used before: sign in again', 401)
/** The session is bound to something else than what was presented: `binding` (RFC 9449), or `client`. */
export const TokenMismatch = define<[string]>('FST_TOKEN_MISMATCH', 'The session belongs to another %s', 401)
/** What the caller gave is not what the call takes. */
export const TokenValidation = define<[string]>('FST_TOKEN_VALIDATION', '%s', 400)
/** The Authorization header stands twice. */
export const TokenMalformed = define('FST_TOKEN_MALFORMED', 'Send one Authorization header, of the form "Bearer <token>"', 400)
/** A token of this id is, or was, saved already. */
export const TokenExists = define<[string]>('FST_TOKEN_EXISTS', 'The token of session %s was saved before: each token is saved once', 409)
/** A hook that runs before the operation did not answer in time. */
export const HookTimeout = define<[string, number]>('FST_TOKEN_HOOK_TIMEOUT', 'The %s hook did not answer within %d ms', 503, true)
/** An option of the plugin is not what it may be. */
export const TokenOptions = define<[string]>('FST_TOKEN_OPTIONS', 'token-registry: %s', 500)

/** No session of that id, or none that the caller may know of. */
export const SessionNotFound = define('FST_SESSION_NOT_FOUND', 'There is no such session', 404)
/** Only operators may know: the request has none of their tokens. */
export const OperatorToken = define('FST_OPERATOR_TOKEN', 'This is for operators: send their token, "Authorization: Bearer <token>"', 401)
/** Only operators may know: they do not ask from there. */
export const OperatorAddress = define('FST_OPERATOR_ADDRESS', 'This is for operators, and not for your address', 403)
/** The session lacks a scope that the route asks for. */
export const SessionScope = define<[string]>('FST_SESSION_SCOPE', 'The session lacks the scope: %s', 403)
/** @returns the error with who it was, for hooks: `auth` is not enumerable, so that neither loggers nor answers show it by themselves */
export function sessionScope (scope: string, auth: Auth): SessionScopeError {
  const error = Object.assign(new SessionScope(scope), { auth })
  return Object.defineProperty(error, 'auth', { enumerable: false })
}

/** A limit on sessions refused a new one. Thrown as a `SessionLimitError`. */
export const SessionLimitReached = define<[string, number, number]>('FST_SESSION_LIMIT', 'The limit "%s" of %d sessions is reached (there are %d): end one first', 429)
/** @returns the error with what a handler can offer; `sessions` is not enumerable, so that neither loggers nor answers show it by themselves */
export function sessionLimitReached ({ limit, max, count, sessions }: Pick<SessionLimitError, 'limit' | 'max' | 'count' | 'sessions'>): SessionLimitError {
  const error = Object.assign(new SessionLimitReached(limit, max, count), { limit, max, count, sessions })
  return Object.defineProperty(error, 'sessions', { enumerable: false })
}

/** A browser sent the session cookie from another site with an unsafe method. */
export const SessionCrossSite = define('FST_SESSION_CROSS_SITE', 'The request came from another site: the session cookie does not count', 403)
/** The session changed since it was read. */
export const SessionConflict = define('FST_SESSION_CONFLICT', 'The session changed meanwhile: read it again and repeat the change', 409)
/** The request was not proved by a token that rotates. */
export const SessionNotRotatable = define('FST_SESSION_NOT_ROTATABLE', 'This session cannot be rotated by this token: only a token that the registry issued can', 409)
/** A route's `config.session` is not what it may be. */
export const SessionRouteConfig = define<[string]>('FST_SESSION_ROUTE_CONFIG', '%s', 500)

/** The store does not answer, or says that it cannot. */
export const StoreUnavailable = define<[string]>('FST_STORE_UNAVAILABLE', 'The session store is not available (%s): try again', 503, true)
/** The store did not answer in time; whether a change took effect is unknown. */
export const StoreTimeout = define<[string, number]>('FST_STORE_TIMEOUT', 'The session store did not answer %s within %d ms: try again', 503, true)
/** A stored record is not one. */
export const StoreCorrupt = define<[string]>('FST_STORE_CORRUPT', 'The stored record of session %s is damaged', 500, true)
/** The store does not have this operation. */
export const StoreUnsupported = define<[string, string]>('FST_STORE_UNSUPPORTED', 'The store "%s" does not implement %s', 501)

/** Makes an error class: a code, a message that says what to do, a status, and whether the infrastructure is at fault. */
export function define<Args extends unknown[] = []> (code: string, message: string, status: number, critical = false): RegistryErrorConstructor<Args> {
  const constructor = createError<[...Args, ErrorOptions?]>(code, message, status)
  Object.defineProperty(constructor.prototype, 'critical', { value: critical })
  // The types of @fastify/error cannot know of the property that was just added.
  return constructor as unknown as RegistryErrorConstructor<Args>
}
