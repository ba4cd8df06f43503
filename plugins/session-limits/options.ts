import { Type } from '@sinclair/typebox'
import { DurationSchema, faultOf, milliseconds, type Duration, type SessionLifetime, type SessionRecord } from '../token-registry/index.ts'
import type { Device } from './devices/list.ts'
import { resolveDevices, type DevicesOptions, type ResolvedDevices } from './devices/options.ts'
import { LimitOptions } from './errors.ts'
import { resolveNotificationOptions, type NotificationOptions, type ResolvedNotificationOptions } from './notifications/options.ts'

type Awaitable<T> = T | Promise<T>

/** A session as functions of limits see it: about to be stored, or one that lives. */
export interface LimitedSession extends Readonly<SessionRecord> {
  /** Its device, where `devices` keeps it; reads the store. */
  device (): Promise<Device | null>
}

export interface LimitOption {
  /** Told where it refuses, and in endings; made from `per` where it is left out. Each has its own. */
  name?: string
  /** What is counted, within one subject but for `'tenant'`. A function gives the key that sessions have to share; null counts in nothing. */
  per: 'user' | 'device' | 'client' | 'tenant' | ((session: LimitedSession) => Awaitable<string | null>)
  /** 1 or more; a function may differ by plan or role, and give Infinity. */
  max: number | ((session: LimitedSession) => Awaitable<number>)
  /** `'refuse'` by default. A tenant's limit only refuses. */
  onExceed?: 'refuse' | 'end-oldest' | 'end-least-recently-used'
  /** Counts the sessions of each group apart; it names the group's `lifetimes` as well. */
  group?: (session: LimitedSession) => Awaitable<string>
}

/** How long sessions live, where who issues them does not say. Durations are milliseconds, or text such as `'15m'`. */
export interface LifetimeOption {
  ttl?: Duration
  idleTimeout?: Duration | null
  /** Those of a session with `meta.remember: true`. */
  remember?: { ttl?: Duration, idleTimeout?: Duration | null }
}

export interface SessionLimitsOptions {
  limits?: readonly LimitOption[]
  /** By the names of groups; `default` is for sessions whose groups are not here. In several groups the shorter one counts. */
  lifetimes?: Readonly<Record<string, LifetimeOption>>
  /** Keeps a list of devices: true, or how. Off by default. */
  devices?: boolean | DevicesOptions
  notifications?: NotificationOptions
}

const ways = ['refuse', 'end-oldest', 'end-least-recently-used'] as const
const MAX = 1_000_000_000
const aFunction = Type.Function([], Type.Unknown())

const Limit = Type.Object({
  name: Type.Optional(Type.String({ minLength: 1, maxLength: 64, errorMessage: 'text of 1 to 64 characters' })),
  per: Type.Union([...(['user', 'device', 'client', 'tenant'] as const).map(per => Type.Literal(per)), aFunction], { errorMessage: '"user", "device", "client", "tenant", or a function' }),
  max: Type.Union([Type.Integer({ minimum: 1, maximum: MAX }), aFunction], { errorMessage: `a whole number from 1 to ${MAX}, or a function` }),
  onExceed: Type.Optional(Type.Union(ways.map(way => Type.Literal(way)), { errorMessage: ways.map(way => `"${way}"`).join(', ') })),
  group: Type.Optional(Type.Function([], Type.Unknown(), { errorMessage: 'a function' }))
}, { additionalProperties: false, errorMessage: '{ per, max, onExceed, group, name }' })

const idleTimeout = Type.Optional(Type.Union([DurationSchema, Type.Null()], { errorMessage: `${DurationSchema.errorMessage}, or null` }))
const times = { ttl: Type.Optional(DurationSchema), idleTimeout }
const Lifetime = Type.Object({
  ...times,
  remember: Type.Optional(Type.Object(times, { additionalProperties: false, errorMessage: '{ ttl, idleTimeout }' }))
}, { additionalProperties: false, errorMessage: '{ ttl, idleTimeout, remember }' })

const Options = Type.Object({
  limits: Type.Array(Limit, { maxItems: 8, errorMessage: 'a list of at most 8 limits' }),
  lifetimes: Type.Record(Type.String(), Lifetime, { errorMessage: 'lifetimes by the names of groups' }),
  // Checked by what uses them.
  devices: Type.Optional(Type.Unknown()),
  notifications: Type.Optional(Type.Unknown())
}, { additionalProperties: false })

/** A limit as it is used: with a name that no other has. */
export type ResolvedLimit = Required<Omit<LimitOption, 'group'>> & Pick<LimitOption, 'group'>

export interface ResolvedLifetime extends Partial<SessionLifetime> {
  remember?: Partial<SessionLifetime>
}

export interface ResolvedOptions {
  /** The narrowest first: where several are exceeded, that picks who ends. */
  limits: readonly ResolvedLimit[]
  lifetimes: ReadonlyMap<string, ResolvedLifetime>
  devices: ResolvedDevices | null
  notifications: ResolvedNotificationOptions
}

/** @throws {LimitOptions} names the option, what it was and what it may be */
export function resolveOptions (given: SessionLimitsOptions): ResolvedOptions {
  const { devices = false, notifications = {}, ...rest } = given
  const options = { limits: [], lifetimes: {}, ...rest } // functions cannot be cloned, as defaults of a schema are
  const fault = faultOf(Options, options, '')
  if (fault !== null) throw new LimitOptions(fault)
  const { limits, lifetimes } = options
  return {
    limits: narrowestFirst(named(limits)),
    lifetimes: new Map(Object.entries(lifetimes).map(([name, lifetime]) => [name, resolvedLifetime(lifetime)])),
    devices: devices === false ? null : resolveDevices(devices),
    notifications: resolveNotificationOptions(notifications)
  }
}

function named (limits: readonly LimitOption[]): ResolvedLimit[] {
  const taken = new Set<string>()
  return limits.map(({ name, per, max, onExceed = 'refuse', group }, index) => {
    if (per === 'tenant' && onExceed !== 'refuse') {
      throw new LimitOptions(`limits.${index}.onExceed is "${onExceed}": with per: "tenant" it may be "refuse", since who signs in must not sign others out`)
    }
    const own = name ?? `per ${typeof per === 'function' ? 'function' : per}`
    const unique = name === undefined && taken.has(own) ? `${own} ${index}` : own
    if (taken.has(unique)) throw new LimitOptions(`limits.${index}.name is "${unique}", as that of a limit before it: give each its own`)
    taken.add(unique)
    return { name: unique, per, max, onExceed, ...group !== undefined && { group } }
  })
}

const breadth = { device: 0, function: 2, client: 4, user: 6, tenant: 8 }

function narrowestFirst (limits: readonly ResolvedLimit[]): ResolvedLimit[] {
  const breadthOf = ({ per, group }: ResolvedLimit): number => breadth[typeof per === 'function' ? 'function' : per] - (group === undefined ? 0 : 1)
  return [...limits].sort((a, b) => breadthOf(a) - breadthOf(b))
}

function resolvedLifetime ({ remember, ...own }: LifetimeOption): ResolvedLifetime {
  return { ...inMilliseconds(own), ...remember !== undefined && { remember: inMilliseconds(remember) } }
}

function inMilliseconds ({ ttl, idleTimeout }: LifetimeOption): Partial<SessionLifetime> {
  return {
    ...ttl !== undefined && { ttl: milliseconds(ttl) },
    ...idleTimeout !== undefined && { idleTimeout: idleTimeout === null ? null : milliseconds(idleTimeout) }
  }
}
