import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { DurationSchema, faultOf, milliseconds, type Duration } from '../../token-registry/index.ts'
import { LimitOptions } from '../errors.ts'

const DAY = 86_400_000

const Cookie = Type.Object({
  name: Type.Optional(Type.String({ pattern: '^[!#$%&\'*+\\-.^_`|~0-9A-Za-z]{1,128}$', errorMessage: '1 to 128 letters, digits or any of !#$%&\'*+-.^_`|~' })),
  secure: Type.Optional(Type.Boolean({ errorMessage: 'true or false' })),
  sameSite: Type.Optional(Type.Union([Type.Literal('lax'), Type.Literal('strict'), Type.Literal('none')], { errorMessage: '"lax", "strict" or "none"' }))
}, { additionalProperties: false })

const Options = Type.Object({
  max: Type.Integer({ minimum: 1, maximum: 100, default: 20, errorMessage: 'a whole number from 1 to 100' }),
  forgetAfter: Type.Unsafe<Duration>({ ...DurationSchema, default: 365 * DAY }),
  cookie: Type.Union([Type.Boolean(), Cookie], { default: true, errorMessage: 'true, false, or { name, secure, sameSite }' }),
  header: Type.Union([Type.Literal(false), Type.String({ pattern: '^[A-Za-z][A-Za-z0-9-]{0,63}$' })], {
    default: 'device-token',
    errorMessage: 'the name of a header, of at most 64 letters, digits or -, or false'
  })
}, { additionalProperties: false, errorMessage: 'true, or { max, forgetAfter, cookie, header }' })

/** How devices are recognised, and how many are kept. */
export interface DevicesOptions {
  /** Devices that are kept of a subject, 1 to 100; 20 by default. A new one makes the oldest untrusted one be forgotten, then the oldest. */
  max?: number
  /** A device that nobody signed in with for that long is forgotten, 1 to 3650 d; 365 d by default. */
  forgetAfter?: Duration
  /**
   * The cookie in which browsers keep their device token: `true` (the default) is `{ name: '__Host-device', secure: true, sameSite: 'lax' }`;
   * `secure: false` is for development without TLS, where the name is `device`.
   */
  cookie?: boolean | { name?: string, secure?: boolean, sameSite?: 'lax' | 'strict' | 'none' }
  /** The header in which other clients send it, and get it; `'device-token'` by default. */
  header?: string | false
}

export interface DeviceCookie {
  name: string
  secure: boolean
  sameSite: 'lax' | 'strict' | 'none'
}

/** Options as they are used: complete, checked, durations in ms. */
export interface ResolvedDevices {
  max: number
  forgetAfter: number
  cookie: DeviceCookie | null
  /** in lower case */
  header: string | null
}

// What Node reads otherwise than the headers of a service: of two it keeps the first, or makes a list.
const taken = new Set([
  'age', 'authorization', 'content-length', 'content-type', 'cookie', 'etag', 'expires', 'from', 'host', 'if-modified-since', 'if-unmodified-since',
  'last-modified', 'location', 'max-forwards', 'proxy-authorization', 'referer', 'retry-after', 'server', 'set-cookie', 'user-agent'
])

/**
 * @param given true for what is by default
 * @throws {LimitOptions} names the option, what it was and what it may be
 */
export function resolveDevices (given: true | DevicesOptions): ResolvedDevices {
  const options = Value.Default(Options, given === true ? {} : isPlain(given) ? { ...given } : given) // callers without types give anything
  const fault = faultOf(Options, options, 'devices')
  if (fault !== null) throw new LimitOptions(fault)
  const { max, forgetAfter, cookie, header } = options as Required<DevicesOptions> // no fault was found with it

  const resolved = { max, forgetAfter: milliseconds(forgetAfter), cookie: cookieOptions(cookie), header: headerOption(header) }
  if (!(resolved.forgetAfter >= DAY && resolved.forgetAfter <= 3650 * DAY)) {
    throw new LimitOptions(`devices.forgetAfter is ${resolved.forgetAfter} ms: it may be ${DAY} to ${3650 * DAY}`)
  }
  if (resolved.cookie === null && resolved.header === null) {
    throw new LimitOptions('devices.cookie and devices.header are both false: no device would be recognised')
  }
  return resolved
}

function isPlain (given: unknown): given is object {
  return typeof given === 'object' && given !== null && !Array.isArray(given)
}

function headerOption (header: string | false): string | null {
  if (header === false) return null
  const name = header.toLowerCase()
  if (taken.has(name)) throw new LimitOptions(`devices.header is ${name}, which has a meaning of its own: choose another`)
  return name
}

function cookieOptions (cookie: NonNullable<DevicesOptions['cookie']>): DeviceCookie | null {
  if (cookie === false) return null
  const { secure = true, sameSite = 'lax', name = secure ? '__Host-device' : 'device' } = cookie === true ? {} : cookie
  if (!secure && /^__(Host|Secure)-/i.test(name)) throw new LimitOptions(`devices.cookie.name is ${name}, which browsers take only with devices.cookie.secure: true`)
  if (!secure && sameSite === 'none') throw new LimitOptions('devices.cookie.sameSite is "none", which browsers take only with devices.cookie.secure: true')
  return { name, secure, sameSite }
}
