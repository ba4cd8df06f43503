import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { FastifyRequest } from 'fastify'
import { DurationSchema, milliseconds, type Duration } from './duration.ts'
import { TokenOptions } from './errors.ts'
import { Lifetimes } from './lifetimes.ts'
import { faultOf } from './option-fault.ts'
import { sessionFault, type RouteSession } from './route-session.ts'
import type { PartialStore } from './complete-store.ts'
import type { ValidatorOption } from './validation.ts'

const DAY = 86_400_000

const duration = (ms: number) => Type.Unsafe<Duration>({ ...DurationSchema, default: ms })

const Cookie = Type.Object({
  name: Type.Optional(Type.String({ pattern: '^[!#$%&\'*+\\-.^_`|~0-9A-Za-z]{1,128}$', errorMessage: '1 to 128 letters, digits or any of !#$%&\'*+-.^_`|~' })),
  secure: Type.Optional(Type.Boolean({ errorMessage: 'true or false' })),
  sameSite: Type.Optional(Type.Union([Type.Literal('lax'), Type.Literal('strict'), Type.Literal('none')], { errorMessage: '"lax", "strict" or "none"' }))
}, { additionalProperties: false })

const Cache = Type.Object({
  max: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000_000, errorMessage: 'a whole number from 1 to 10000000' })),
  maxStaleness: Type.Optional(DurationSchema)
}, { additionalProperties: false })

const Options = Type.Object({
  secret: Type.Union([
    Type.String(),
    Type.Array(Type.String({ errorMessage: 'a string of at least 32 bytes' }), { minItems: 1, maxItems: 100 })
  ], { errorMessage: 'a string of at least 32 bytes, or a list of 1 to 100; make one with: openssl rand -base64 32' }),
  ttl: duration(30 * DAY),
  idleTimeout: Type.Unsafe<Duration | null>(Type.Union([DurationSchema, Type.Null()], { default: null, errorMessage: `${DurationSchema.errorMessage}, or null` })),
  reuseWindow: duration(10_000),
  operationTimeout: duration(5000),
  hookTimeout: duration(1000),
  serveCachedFor: duration(0),
  cache: Type.Union([Type.Literal(false), Cache], { default: {}, errorMessage: 'false, or { max, maxStaleness }' }),
  cookie: Type.Union([Type.Boolean(), Cookie], { default: false, errorMessage: 'true, false, or { name, secure, sameSite }' }),
  dpop: Type.Optional(Type.Unsafe<DpopCheck>(Type.Function([], Type.Unknown(), { errorMessage: 'a function' }))),
  // Checked by what uses them: sessionFault, validatorOf and completeStore.
  session: Type.Unsafe<RouteSession>(Type.Unknown({ default: false })),
  validator: Type.Unsafe<ValidatorOption>(Type.Unknown({ default: 'default' })),
  store: Type.Optional(Type.Unknown())
}, { additionalProperties: false })

/** How the plugin is registered. Durations are milliseconds, or text such as `'15m'`. */
export interface TokenRegistryOptions {
  /** Signs tokens: at least 32 bytes. Of a list the first signs and all verify, so that a secret can be replaced without signing anyone out. */
  secret: string | readonly string[]
  /** Where sessions live; the decorator `tokenStore` where another plugin set it, else the memory of the process. */
  store?: PartialStore
  /** Lifetime of a session that says nothing else, 30 d. */
  ttl?: Duration
  /** A session that is not used for that long ends; null (the default) never. */
  idleTimeout?: Duration | null
  /** For that long a rotated token still gets its successor, 10 s. */
  reuseWindow?: Duration
  /** `'default'`, `'strict'`, `'none'`, or a function that runs after the default checks and throws. */
  validator?: ValidatorOption
  /** Deadline of each call of the store, 5 s. */
  operationTimeout?: Duration
  /** Deadline of each hook, 1 s. */
  hookTimeout?: Duration
  /** Tokens kept in memory (100,000), and for how long after the last proof that revocations arrive (1 s); false for none. */
  cache?: false | { max?: number, maxStaleness?: Duration }
  /**
   * Sends and takes session tokens in a cookie: off by default. `true` is `{ name: '__Host-session', secure: true, sameSite: 'lax' }`;
   * `secure: false` is for development without TLS, where the name is `session`.
   */
  cookie?: boolean | { name?: string, secure?: boolean, sameSite?: 'lax' | 'strict' | 'none' }
  /** For that long a cached session counts while the store is down: 0, never. A route can say otherwise. */
  serveCachedFor?: Duration
  /** What a route that does not say in `config.session` asks for: false, nothing. */
  session?: RouteSession
  /**
   * Checks the DPoP proof of a request (RFC 9449) and returns the thumbprint of its key. Without it, sessions with a binding make no requests.
   */
  dpop?: DpopCheck
}

export type DpopCheck = (request: FastifyRequest, token: string) => string | Promise<string>

/** Options as they are used: complete, checked, durations in ms. */
export interface RegistryOptions {
  secret: readonly string[]
  ttl: number
  idleTimeout: number | null
  reuseWindow: number
  operationTimeout: number
  hookTimeout: number
  serveCachedFor: number
  cache: { max: number, maxStaleness: number }
  cookie: CookieOptions | null
  validator: ValidatorOption
  session: RouteSession
  dpop: DpopCheck | undefined
  /** Those above, and what other plugins add. */
  lifetimes: Lifetimes
}

export interface CookieOptions {
  name: string
  secure: boolean
  sameSite: 'lax' | 'strict' | 'none'
}

/** @throws {TokenOptions} names the option, what it was and what it may be */
export function resolveOptions (given: TokenRegistryOptions): RegistryOptions {
  const options = Value.Default(Options, { ...given })
  refuse(faultOf(Options, options, ''))
  const { store, secret, cookie, cache, ...rest } = options as Static<typeof Options> // no fault was found with it
  refuse(sessionFault(rest.session))

  const resolved = {
    ...rest,
    secret: typeof secret === 'string' ? [secret] : secret,
    ttl: milliseconds(rest.ttl),
    idleTimeout: rest.idleTimeout === null ? null : milliseconds(rest.idleTimeout),
    reuseWindow: milliseconds(rest.reuseWindow),
    operationTimeout: milliseconds(rest.operationTimeout),
    hookTimeout: milliseconds(rest.hookTimeout),
    serveCachedFor: milliseconds(rest.serveCachedFor),
    cache: cacheOptions(cache),
    cookie: cookieOptions(cookie),
    dpop: rest.dpop
  }
  return { ...resolved, lifetimes: lifetimesOf(resolved) }
}

function refuse (fault: string | null): void {
  if (fault !== null) throw new TokenOptions(fault)
}

function cacheOptions (cache: false | Static<typeof Cache>): RegistryOptions['cache'] {
  if (cache === false) return { max: 0, maxStaleness: 0 }
  const { max = 100_000, maxStaleness = 1000 } = cache
  return { max, maxStaleness: milliseconds(maxStaleness) }
}

function cookieOptions (cookie: boolean | Static<typeof Cookie>): CookieOptions | null {
  if (cookie === false) return null
  const { secure = true, sameSite = 'lax', name = secure ? '__Host-session' : 'session' } = cookie === true ? {} : cookie
  if (!secure && /^__(Host|Secure)-/i.test(name)) throw new TokenOptions(`cookie.name is ${name}, which browsers take only with cookie.secure: true`)
  if (!secure && sameSite === 'none') throw new TokenOptions('cookie.sameSite is "none", which browsers take only with cookie.secure: true')
  return { name, secure, sameSite }
}

/** @throws {TokenOptions} for what contradicts */
function lifetimesOf ({ ttl, idleTimeout, reuseWindow, serveCachedFor, cache: { maxStaleness }, operationTimeout, hookTimeout }: Omit<RegistryOptions, 'lifetimes'>): Lifetimes {
  const range = (name: string, ms: number, min: number, max: number) => {
    if (!(ms >= min && ms <= max)) throw new TokenOptions(`${name} is ${ms} ms: it may be ${min} to ${max}`)
  }
  range('reuseWindow', reuseWindow, 0, DAY)
  // setTimeout overflows past 24.8 days; a deadline of more than an hour is none.
  range('operationTimeout', operationTimeout, 1, 3_600_000)
  range('hookTimeout', hookTimeout, 1, 3_600_000)

  const lifetimes = new Lifetimes({ reuseWindow, serveCachedFor, maxStaleness })
  refuse(lifetimes.addSession({ ttl, idleTimeout }))
  return lifetimes
}
