import { parse, serialize } from 'cookie'
import type { FastifyRequest } from 'fastify'
import { keyOf } from './cache.ts'
import { TokenInvalid, TokenMalformed } from './errors.ts'
import type { CookieOptions } from './options.ts'

/** What a request shows to prove who makes it. */
export interface Credentials {
  scheme: 'bearer' | 'dpop' | 'cookie'
  token: string
  /** Of the token in the cache. */
  key: string
}

const safeMethods = new Set(['GET', 'HEAD', 'OPTIONS', 'QUERY', 'TRACE'])
const sameSites = new Set(['same-origin', 'same-site', 'none'])

/**
 * Finds the token of a request: in `Authorization: Bearer` (RFC 6750) or `DPoP` (RFC 9449), else in the cookie, never in the URL.
 *
 * @param authorization as `authorizationOf` found it
 * @returns null where there is none
 * @throws {TokenInvalid} for a scheme of ours without a token
 */
export function credentialsOf (request: FastifyRequest, authorization: string | null, cookie: CookieOptions | null): Credentials | null {
  if (authorization !== null) {
    const credentials = parsed(authorization)
    if (credentials !== null) return credentials
  }
  if (cookie === null) return null
  const token = cookieOf(request, cookie.name)
  return token === undefined || token === '' ? null : { scheme: 'cookie', token, key: keyOf(token) }
}

/** Whether a browser sent the request from another site, and it may do more than read. */
export function isCrossSite (request: FastifyRequest): boolean {
  const { upgrade, origin, 'sec-fetch-site': site } = request.headers
  // A WebSocket handshake is a GET, and what follows is not held to one origin.
  if (safeMethods.has(request.method) && upgrade === undefined) return false
  if (site !== undefined) return typeof site !== 'string' || !sameSites.has(site)
  // Neither header: not a browser.
  return origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== request.host)
}

/** @param maxAge seconds; 0 takes the cookie away, null lets it end with the browser */
export function setCookie ({ name, secure, sameSite }: CookieOptions, token: string, maxAge: number | null): string {
  return serialize(name, token, { httpOnly: true, secure, sameSite, path: '/', ...maxAge !== null && { maxAge } })
}

/**
 * The Authorization header. Node keeps the first of two and drops the other: only the raw list tells.
 *
 * @throws {TokenMalformed} for two of them
 */
export function authorizationOf ({ raw: { rawHeaders: raw } }: FastifyRequest): string | null {
  let found: string | null = null
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string // names stand at even places, each followed by its value
    if (name.length !== 13 || (name !== 'Authorization' && name.toLowerCase() !== 'authorization')) continue
    if (found !== null) throw new TokenMalformed()
    found = raw[i + 1] as string
  }
  return found
}

function parsed (authorization: string): Credentials | null {
  const [, scheme, token] = /^(bearer|dpop)(?: +(.*))?$/i.exec(authorization) ?? []
  if (scheme === undefined) return null
  if (!token) throw new TokenInvalid()
  const key = keyOf(token)
  // The header itself where it is the same: what is put together stays in two parts, and each comparison with it takes longer.
  return { scheme: scheme.toLowerCase() === 'dpop' ? 'dpop' : 'bearer', token, key: key === authorization ? authorization : key }
}

function cookieOf (request: FastifyRequest, name: string): string | undefined {
  const header = request.raw.headers.cookie
  // To look for the name first spares parsing the cookies of other services.
  return header === undefined || !header.includes(name) ? undefined : parse(header)[name]
}
