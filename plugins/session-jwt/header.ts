/** The type of an access token (RFC 9068, section 2.1). */
export const TYP = 'at+jwt'

/** Characters that a token may have: what is longer is not looked at. */
export const MAX_LENGTH = 8192

/** What a token says of itself, not verified. */
export interface AccessTokenHeader {
  typ: string
  kid?: unknown
}

// Base64url has one form (RFC 4648, section 3.5): the bits that a last character does not need are zero.
const segment = '(?:[\\w-]{4})*(?:[\\w-][AQgw]|[\\w-]{2}[AEIMQUYcgkosw048])?'
const compact = new RegExp(`^(${segment})\\.${segment}\\.${segment}$`)

/** The header of a JWS in its compact form; null for what is none. */
export function headerOf (token: string): unknown {
  const [, encoded] = token.length > MAX_LENGTH ? [] : compact.exec(token) ?? []
  if (encoded === undefined) return null
  try {
    return JSON.parse(Buffer.from(encoded, 'base64url').toString())
  } catch {
    return null
  }
}

/** Whether a header is that of an access token (RFC 9068, section 4). */
export function isAccessToken (header: unknown): header is AccessTokenHeader {
  return typeof header === 'object' && header !== null && 'typ' in header &&
    typeof header.typ === 'string' && /^(?:application\/)?at\+jwt$/i.test(header.typ)
}
