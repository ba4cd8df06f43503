import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { completeStore, DurationSchema, faultOf, milliseconds, type Duration, type PartialStore, type TokenStore } from '../token-registry/index.ts'
import { ResilienceOptions } from './errors.ts'

/** Which store is in use from now on, and why. */
export interface Switch {
  to: 'primary' | 'secondary'
  reason: string
}

/** Durations are milliseconds, or text such as `'500ms'`. */
export interface FailoverOptions {
  /** Where sessions live. */
  primary: PartialStore
  /** Where those live that are issued while the primary is away. */
  secondary: PartialStore
  /** Between two checks of the primary, 1 s. 1 ms to an hour. */
  checkInterval?: Duration
  /** For how long a check may take, 1 s. 1 ms to an hour. */
  checkTimeout?: Duration
  /** Checks that fail in a row until the primary counts as away, 3. 1 to 1000. */
  failAfter?: number
  /** Checks that succeed in a row until it counts as back, 10. 1 to 1000. */
  recoverAfter?: number
  /** Told each switch. */
  onSwitch?: (event: Switch) => void
}

/** Options as they are used: complete, checked, durations in ms. */
export interface ResolvedFailover {
  primary: TokenStore
  secondary: TokenStore
  checkInterval: number
  checkTimeout: number
  failAfter: number
  recoverAfter: number
  onSwitch: (event: Switch) => void
}

const HOUR = 3_600_000
const store = Type.Unsafe<PartialStore>(Type.Object({}, { errorMessage: 'a store' }))
const checks = (count: number) => Type.Integer({ minimum: 1, maximum: 1000, default: count, errorMessage: 'a whole number from 1 to 1000' })

const Options = Type.Object({
  primary: store,
  secondary: store,
  checkInterval: Type.Unsafe<Duration>({ ...DurationSchema, default: 1000 }),
  checkTimeout: Type.Unsafe<Duration>({ ...DurationSchema, default: 1000 }),
  failAfter: checks(3),
  recoverAfter: checks(10),
  onSwitch: Type.Function([], Type.Unknown(), { errorMessage: 'a function' })
}, { additionalProperties: false })

/** @throws {ResilienceOptions} names the option, what it was and what it may be */
export function resolveOptions (given: FailoverOptions): ResolvedFailover {
  // The stores are left out: defaults are set in a copy, and those are not to be copied.
  const { primary, secondary, ...settings } = given
  const options = { primary, secondary, ...Value.Default(Options, { onSwitch: () => {}, ...settings }) as object }
  const fault = faultOf(Options, options, 'failover')
  if (fault !== null) throw new ResilienceOptions(fault)
  if (primary === secondary) throw new ResilienceOptions('failover.primary and failover.secondary are the same store: the secondary must not fail with the primary')

  const { checkInterval, checkTimeout, ...rest } = options as Required<FailoverOptions> // no fault was found with it
  return {
    ...rest,
    primary: completed('primary', primary),
    secondary: completed('secondary', secondary),
    checkInterval: ms('checkInterval', checkInterval),
    checkTimeout: ms('checkTimeout', checkTimeout)
  }
}

function completed (name: string, store: PartialStore): TokenStore {
  try {
    return completeStore(store)
  } catch (error) {
    throw new ResilienceOptions(`failover.${name} is not a store: it must have insert, get, rotate, end, find and health`, { cause: error })
  }
}

function ms (name: string, duration: Duration): number {
  const value = milliseconds(duration)
  if (!(value >= 1 && value <= HOUR)) throw new ResilienceOptions(`failover.${name} is ${value} ms: it may be 1 to ${HOUR}`)
  return value
}
