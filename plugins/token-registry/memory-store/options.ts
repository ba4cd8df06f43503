import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { DurationSchema, milliseconds, type Duration } from '../duration.ts'
import { TokenOptions } from '../errors.ts'
import { faultOf } from '../option-fault.ts'

export interface MemoryStoreOptions {
  /** The clock, ms since the epoch; `Date.now` by default. */
  now?: () => number
  /** For how long an ending is kept, at most a year; a day by default. */
  keepEndings?: Duration
  /** Endings kept at most, 1 to 10,000,000, by default 100,000; for a moment twice as many, when many sessions end at once. */
  maxEndings?: number
  /** Between two passes that remove what has expired, 1 ms to a day; 10 s by default. */
  sweepInterval?: Duration
}

const DAY = 86_400_000

const Options = Type.Object({
  now: Type.Function([], Type.Number(), { errorMessage: 'a function that tells ms since the epoch' }),
  keepEndings: Type.Unsafe<Duration>({ ...DurationSchema, default: DAY }),
  maxEndings: Type.Integer({ minimum: 1, maximum: 10_000_000, default: 100_000, errorMessage: 'a whole number from 1 to 10000000' }),
  sweepInterval: Type.Unsafe<Duration>({ ...DurationSchema, default: 10_000 })
}, { additionalProperties: false })

/** @throws {TokenOptions} names the option, what it was and what it may be */
export function resolveOptions (given: MemoryStoreOptions) {
  const options = Value.Default(Options, { now: Date.now, ...given })
  const fault = faultOf(Options, options, 'memoryStore')
  if (fault !== null) throw new TokenOptions(fault)
  const { keepEndings, sweepInterval, ...rest } = options as Required<MemoryStoreOptions> // no fault was found with it
  const ms = (name: string, duration: Duration, min: number, max: number) => {
    const value = milliseconds(duration)
    if (!(value >= min && value <= max)) throw new TokenOptions(`memoryStore.${name} is ${value} ms: it may be ${min} to ${max}`)
    return value
  }
  return { ...rest, keepEndings: ms('keepEndings', keepEndings, 0, 365 * DAY), sweepInterval: ms('sweepInterval', sweepInterval, 1, DAY) }
}
