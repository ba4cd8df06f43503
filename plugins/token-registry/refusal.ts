import { TokenExpired, TokenInvalid, TokenReused, TokenRevoked } from './errors.ts'

/**
 * What a caller may know of an error: an expired, revoked, reused or unknown token is an invalid one, with the error itself as `cause`, for the log.
 *
 * @example
 * fastify.tokenRegistry.rotate(request.body.refreshToken).catch(error => { throw refusalOf(error) })
 */
export function refusalOf (error: unknown): Error {
  if (isBadToken(error) && !(error instanceof TokenInvalid)) return new TokenInvalid({ cause: error })
  return error instanceof Error ? error : new TypeError('what was thrown is no error', { cause: error })
}

export function isBadToken (error: unknown): boolean {
  return [TokenInvalid, TokenExpired, TokenRevoked, TokenReused].some(kind => error instanceof kind)
}
