import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { DurationSchema, faultOf, milliseconds, type Duration } from '../token-registry/index.ts'
import { JwtOptions } from './errors.ts'
import { algorithms, type Algorithm, type JwtKeys } from './keys.ts'

const MINUTE = 60_000

/** How the plugin is registered. Durations are milliseconds, or text such as `'15m'`. */
export interface SessionJwtOptions {
  /** Under which `@fastify/jwt` is registered; none by default. */
  namespace?: string
  /** The `iss` claim: the URL of the service. */
  issuer: string
  /** The `aud` claim: the URL of the API that tokens are for. */
  audience: string
  /** Lifetime of a token that its session does not end before, 15 min. 1 s to 1 d. */
  ttl?: Duration
  /** By which the clocks of issuer and verifier may differ, 0. At most 5 min, and shorter than `ttl`. */
  clockTolerance?: Duration
  /** Of which tokens are taken, where `verify.algorithms` of `@fastify/jwt` does not say one. */
  algorithm?: Algorithm
  /** Keys that were replaced: tokens that they signed are valid until they expire. Each as `jwtKeys` makes it. */
  previousKeys?: readonly JwtKeys[]
}

const Options = Type.Object({
  namespace: Type.Optional(Type.String({ minLength: 1, errorMessage: 'the namespace of @fastify/jwt' })),
  issuer: Type.String({ minLength: 1, maxLength: 512, errorMessage: 'text of 1 to 512 characters' }),
  audience: Type.String({ minLength: 1, maxLength: 512, errorMessage: 'text of 1 to 512 characters' }),
  ttl: Type.Unsafe<Duration>({ ...DurationSchema, default: 15 * MINUTE }),
  clockTolerance: Type.Unsafe<Duration>({ ...DurationSchema, default: 0 }),
  algorithm: Type.Optional(Type.Union(algorithms.map(name => Type.Literal(name)), { errorMessage: algorithms.join(', ') })),
  previousKeys: Type.Array(Type.Object({
    secret: Type.Union([Type.String(), Type.Object({ public: Type.String() })]),
    sign: Type.Object({ kid: Type.String() }),
    verify: Type.Object({ algorithms: Type.Array(Type.String(), { minItems: 1, maxItems: 1 }) })
  }), { default: [], maxItems: 10 })
}, { additionalProperties: false })

type Defaulted = 'ttl' | 'clockTolerance' | 'previousKeys'

/** Options as they are used: complete, checked, durations in ms. */
export type ResolvedOptions = Omit<SessionJwtOptions, Defaulted> & { ttl: number, clockTolerance: number, previousKeys: readonly JwtKeys[] }

/** @throws {JwtOptions} names the option, what it was and what it may be */
export function resolveOptions (given: SessionJwtOptions): ResolvedOptions {
  const options = Value.Default(Options, { ...given })
  // A key is never repeated.
  const bad = Value.Errors(Options.properties.previousKeys, given.previousKeys ?? []).First()
  if (bad !== undefined) throw new JwtOptions(`previousKeys${bad.path.replaceAll('/', '.')} is not what it may be: give at most 10 keys as jwtKeys makes them`)
  const fault = faultOf(Options, options, '')
  if (fault !== null) throw new JwtOptions(fault)
  const { ttl, clockTolerance, ...rest } = options as SessionJwtOptions & Required<Pick<SessionJwtOptions, Defaulted>> // what Errors found no fault with
  const resolved = { ...rest, ttl: milliseconds(ttl), clockTolerance: milliseconds(clockTolerance) }
  range('ttl', resolved.ttl, 1000, 24 * 60 * MINUTE)
  range('clockTolerance', resolved.clockTolerance, 0, 5 * MINUTE)
  if (resolved.clockTolerance >= resolved.ttl) {
    throw new JwtOptions(`clockTolerance (${resolved.clockTolerance} ms) is not shorter than ttl (${resolved.ttl} ms): one of them must change`)
  }
  return resolved
}

function range (name: string, ms: number, min: number, max: number): void {
  if (!(ms >= min && ms <= max)) throw new JwtOptions(`${name} is ${ms} ms: it may be ${min} to ${max}`)
}
