import { Type } from '@sinclair/typebox'
import { DurationSchema, faultOf, milliseconds, type Duration } from '../token-registry/index.ts'
import { HealthOptions } from './errors.ts'

/** What the process may take before it counts as ill. Without any it never does: under load, to be restarted helps nobody. */
export interface Pressure {
  /** ms, the mean of a second */
  maxEventLoopDelay?: number
  maxHeapUsedBytes?: number
  maxRssBytes?: number
  /** 0 to 1 */
  maxEventLoopUtilization?: number
}

export interface HealthPluginOptions extends Pressure {
  /** How long requests are still served after `drain`, 5 s by default. */
  shutdownDelay?: Duration
}

const LONGEST = 3_600_000
const bytes = Type.Optional(Type.Integer({ minimum: 1, errorMessage: 'a number of bytes' }))

const Options = Type.Object({
  shutdownDelay: Type.Optional(DurationSchema),
  maxEventLoopDelay: Type.Optional(Type.Number({ exclusiveMinimum: 0, errorMessage: 'milliseconds, more than 0' })),
  maxHeapUsedBytes: bytes,
  maxRssBytes: bytes,
  maxEventLoopUtilization: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 1, errorMessage: 'more than 0, 1 at most' }))
}, { additionalProperties: false })

/** Options as they are used. */
export interface ResolvedOptions {
  /** ms */
  shutdownDelay: number
  pressure: Pressure
}

/** @throws {HealthOptions} names the option, what it was and what it may be */
export function resolveOptions (given: HealthPluginOptions): ResolvedOptions {
  const fault = faultOf(Options, given, '')
  if (fault !== null) throw new HealthOptions(fault)
  const { shutdownDelay = 5000, ...pressure } = given
  const delay = milliseconds(shutdownDelay)
  if (delay > LONGEST) throw new HealthOptions(`shutdownDelay is ${shutdownDelay}: it may be an hour at most`)
  return { shutdownDelay: delay, pressure }
}
