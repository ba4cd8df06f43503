import { define, TokenInvalid } from '../token-registry/index.ts'

/** An option of the plugin, a key, or how `@fastify/jwt` was registered, is not what it may be. */
export const JwtOptions = define<[string]>('FST_SESSION_JWT_OPTIONS', 'session-jwt: %s', 500)
/** What is wrong with a JWT: a cause of `FST_TOKEN_INVALID`, for logs. */
export const JwtRefused = define<[string]>('FST_SESSION_JWT_REFUSED', 'The JWT is refused: %s', 401)

/** @param why never holds what the token says */
export function refused (why: string): Error {
  return new TokenInvalid({ cause: new JwtRefused(why) })
}
