import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { DurationSchema, faultOf, milliseconds, type Duration } from '../../token-registry/index.ts'
import { LimitOptions } from '../errors.ts'
import type { Channel } from './event.ts'

/** How notifications are sent. Durations are milliseconds, or text such as `'10m'`. */
export interface NotificationOptions {
  /** Where they are sent; `add` adds more, for some types only. */
  channels?: readonly Channel[]
  /** How many each channel holds that are not sent yet, those between two tries included: 1000. The newest beyond that are dropped. */
  queue?: number
  /** For how long the same is not sent again, 10 min; 0 for never. */
  dedupeFor?: Duration
  /** How many one user gets in each window by the clock, 20 an hour, and as many again of what tells of a takeover; false for any number. */
  perUser?: false | { max?: number, window?: Duration }
  /** Tries in all, 3. */
  attempts?: number
  /** For each try, 5 s. */
  timeout?: Duration
  /** Before the second try, 1 s; each further pause is four times as long, up to 5 min. Half of it at random. */
  pause?: Duration
  /** How long closing waits for what is not sent, 5 s. */
  flush?: Duration
  /** Tries of each channel at once, 4. */
  concurrency?: number
}

/** Options as they are used: complete, checked, durations in ms. */
export interface ResolvedNotificationOptions {
  channels: readonly Channel[]
  queue: number
  dedupeFor: number
  perUser: { max: number, window: number } | null
  attempts: number
  timeout: number
  pause: number
  flush: number
  concurrency: number
}

const DAY = 86_400_000

const whole = (max: number) => ({ minimum: 1, maximum: max, errorMessage: `a whole number from 1 to ${max}` })
const duration = (ms: number) => Type.Unsafe<Duration>({ ...DurationSchema, default: ms })

const PerUser = Type.Object({
  max: Type.Optional(Type.Integer(whole(1000))),
  window: Type.Optional(DurationSchema)
}, { additionalProperties: false })

const Options = Type.Object({
  channels: Type.Array(Type.Unsafe<Channel>(Type.Function([], Type.Unknown(), { errorMessage: 'a function' })), { default: [], errorMessage: 'a list of functions' }),
  queue: Type.Integer({ ...whole(100_000), default: 1000 }),
  dedupeFor: duration(600_000),
  perUser: Type.Union([Type.Literal(false), PerUser], { default: {}, errorMessage: 'false, or { max, window }' }),
  attempts: Type.Integer({ ...whole(10), default: 3 }),
  timeout: duration(5000),
  pause: duration(1000),
  flush: duration(5000),
  concurrency: Type.Integer({ ...whole(100), default: 4 })
}, { additionalProperties: false })

/** @throws {LimitOptions} names the option, what it was and what it may be */
export function resolveNotificationOptions (given: NotificationOptions = {}): ResolvedNotificationOptions {
  const options = Value.Default(Options, { ...given })
  refuse(faultOf(Options, options, 'notifications'))
  const { dedupeFor, perUser, timeout, pause, flush, ...rest } = options as Static<typeof Options> // no fault was found with it
  return {
    ...rest,
    dedupeFor: msBetween('notifications.dedupeFor', dedupeFor, 0, DAY),
    perUser: perUser === false ? null : limitOf(perUser),
    timeout: msBetween('notifications.timeout', timeout, 10, 60_000),
    pause: msBetween('notifications.pause', pause, 1, 300_000),
    flush: msBetween('notifications.flush', flush, 0, 60_000)
  }
}

function limitOf ({ max = 20, window = 3_600_000 }: Static<typeof PerUser>): { max: number, window: number } {
  return { max, window: msBetween('notifications.perUser.window', window, 1000, DAY) }
}

/** @throws {LimitOptions} */
export function msBetween (name: string, duration: Duration, min: number, max: number): number {
  const ms = milliseconds(duration)
  if (!(ms >= min && ms <= max)) refuse(`${name} is ${ms} ms: it may be ${min} to ${max}`)
  return ms
}

/** @throws {LimitOptions} where there is a fault */
export function refuse (fault: string): never
export function refuse (fault: string | null): void
export function refuse (fault: string | null): void {
  if (fault !== null) throw new LimitOptions(fault)
}
