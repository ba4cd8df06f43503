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
  /** How long requests that are under way then may take before the server closes without them, 10 s by default. */
  closeTimeout?: Duration
}

const LONGEST = 3_600_000
const bytes = Type.Optional(Type.Integer({ minimum: 1, errorMessage: 'a number of bytes' }))

const Options = Type.Object({
  shutdownDelay: Type.Optional(DurationSchema),
  closeTimeout: Type.Optional(DurationSchema),
  maxEventLoopDelay: Type.Optional(Type.Number({ exclusiveMinimum: 0, errorMessage: 'milliseconds, more than 0' })),
  maxHeapUsedBytes: bytes,
  maxRssBytes: bytes,
  maxEventLoopUtilization: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 1, errorMessage: 'more than 0, 1 at most' }))
}, { additionalProperties: false })

/** Options as they are used. */
export interface ResolvedOptions {
  /** ms */
  shutdownDelay: number
  closeTimeout: number
  pressure: Pressure
}

/** @throws {HealthOptions} names the option, what it was and what it may be */
export function resolveOptions (given: HealthPluginOptions): ResolvedOptions {
  const fault = faultOf(Options, given, '')
  if (fault !== null) throw new HealthOptions(fault)
  const { shutdownDelay = 5000, closeTimeout = 10_000, ...pressure } = given
  return { shutdownDelay: atMostAnHour('shutdownDelay', shutdownDelay), closeTimeout: atMostAnHour('closeTimeout', closeTimeout), pressure }
}

function atMostAnHour (name: string, given: Duration): number {
  const ms = milliseconds(given)
  if (ms > LONGEST) throw new HealthOptions(`${name} is ${given}: it may be an hour at most`)
  return ms
}
