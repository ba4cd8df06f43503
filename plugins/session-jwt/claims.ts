import { Type, type Static } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { refused } from './errors.ts'

/** Seconds since the epoch. Whole ones, so that neither text, 1.5 nor 1e400 is a time. */
const time = Type.Integer({ minimum: 0, maximum: 8_640_000_000_000 })

const Claims = Type.Object({
  iss: Type.String(),
  aud: Type.Union([Type.String(), Type.Array(Type.String())]),
  sub: Type.String({ minLength: 1, maxLength: 256 }),
  sid: Type.String({ pattern: '^[A-Za-z0-9_-]{24}$' }),
  jti: Type.String({ minLength: 1, maxLength: 512 }),
  iat: time,
  nbf: time,
  exp: time,
  client_id: Type.Optional(Type.String()),
  scope: Type.Optional(Type.String())
})

/** The claims of an access token (RFC 9068, section 2.2), and the session that it proves. */
export type AccessTokenClaims = Static<typeof Claims> & Record<string, unknown>

const compiled = TypeCompiler.Compile(Claims)

/** Refuses claims that lack one of those, or hold one in another form. */
export function checkForm (claims: unknown): asserts claims is AccessTokenClaims {
  if (compiled.Check(claims)) return
  const [first] = [...compiled.Errors(claims)].map(({ path }) => path.slice(1))
  throw refused(`the claim ${first} is missing or malformed`)
}
