import { randomUUID } from 'node:crypto'
import { Type, type TSchema } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'

export const notificationTypes = ['new-device', 'new-network', 'ended-by-limit', 'ended-by-reuse', 'ended-by-administrator', 'password-changed', 'all-ended'] as const

export type NotificationType = typeof notificationTypes[number]

/** What tells of an account that may be another's by now. */
const takeovers: ReadonlySet<NotificationType> = new Set(['ended-by-reuse', 'ended-by-administrator', 'password-changed', 'all-ended'])

/** What a user is told of. Frozen; it holds no token. */
export interface Notification {
  /** Random, and the same for every channel and every try: receivers know by it what they have had already. */
  readonly id: string
  readonly type: NotificationType
  /** `''` where there is one tenant */
  readonly tenant: string
  readonly sub: string
  /** When it happened, ms since the epoch. */
  readonly at: number
  /** The session that it is about. */
  readonly session: {
    readonly id: string
    readonly client: string | null
    readonly issuedAt: number
    readonly ipAddress: string | null
    readonly userAgent: string | null
  } | null
  readonly device: { readonly id: string, readonly name: string } | null
  /** What explains it: the reason of an ending, the limit that ended it, by whom, how many sessions ended, and how many were to be kept. */
  readonly detail: { readonly reason?: string, readonly limit?: string, readonly by?: string | null, readonly count?: number, readonly kept?: number }
}

/** What may be left out is the tenant `''`, now, or none. */
export interface NotificationDraft extends Pick<Notification, 'type' | 'sub'>, Partial<Omit<Notification, 'id' | 'type' | 'sub'>> {
  /**
   * What makes two notifications of a type and subject the same: the id of the device where it is new, else of the session or the device. Without any
   * of them each is its own.
   */
  readonly key?: string
}

/**
 * Sends a notification. It has failed where it throws or does not answer in time, and is then called again, unless it threw `Undeliverable`.
 *
 * @param context the signal aborts when the time is over; attempt counts from 1
 */
export type Channel = (notification: Notification, context: { readonly signal: AbortSignal, readonly attempt: number }) => void | Promise<void>

/** What a channel throws where another try would change nothing: the address does not exist, the receiver refuses. */
export class Undeliverable extends Error {
  override readonly name = 'Undeliverable'
}

const time = Type.Number({ minimum: 0, maximum: 8.64e15 }) // of those that a Date takes
const noneOr = <Schema extends TSchema>(schema: Schema) => Type.Optional(Type.Union([schema, Type.Null()]))
const drafts = TypeCompiler.Compile(Type.Object({
  type: Type.Union(notificationTypes.map(type => Type.Literal(type))),
  tenant: Type.Optional(Type.String()),
  sub: Type.String({ minLength: 1 }),
  at: Type.Optional(time),
  session: noneOr(Type.Object({ id: Type.String(), issuedAt: time })),
  device: noneOr(Type.Object({ id: Type.String(), name: Type.String() })),
  detail: noneOr(Type.Object({})),
  key: noneOr(Type.String())
}))

/** @throws {TypeError} for what is no draft; it tells where, and shows nothing of it */
export function checkDraft (given: unknown): asserts given is NotificationDraft {
  if (drafts.Check(given)) return
  const [fault] = drafts.Errors(given)
  throw new TypeError(`what notify was given is no notification: ${fault?.path} ${fault?.message}`)
}

/**
 * Takes over only what is known to hold no token, so that later changes of the draft change nothing.
 *
 * @param now ms since the epoch
 */
export function notificationOf ({ type, tenant = '', sub, at, session, device, detail }: NotificationDraft, now: number): Notification {
  return Object.freeze({
    id: randomUUID(),
    type,
    tenant,
    sub,
    at: at ?? now,
    session: session == null ? null : Object.freeze({ id: session.id, client: textIn(session.client), issuedAt: session.issuedAt, ipAddress: textIn(session.ipAddress), userAgent: textIn(session.userAgent) }),
    device: deviceOf(device),
    detail: Object.freeze({ ...detail })
  })
}

/** A notification, with a device that was found later. */
export function withDevice (notification: Notification, device: Notification['device']): Notification {
  return Object.freeze({ ...notification, device: deviceOf(device) })
}

/** Whether it counts apart: who signs in often would else hide what follows. */
export function tellsOfTakeover (type: NotificationType): boolean {
  return takeovers.has(type)
}

/** What is sent once only; null for what is not compared with any other. */
export function keyOf ({ type, tenant = '', sub, session, device, key }: NotificationDraft): string | null {
  const [first, second] = type === 'new-device' ? [device, session] : [session, device]
  const same = key ?? first?.id ?? second?.id
  return same === undefined ? null : JSON.stringify([tenant, sub, type, same])
}

function deviceOf (device: Notification['device'] | undefined): Notification['device'] {
  return device == null ? null : Object.freeze({ id: device.id, name: device.name })
}

/** Where a registry validates nothing, what is kept with a session may be anything. */
function textIn (value: unknown): string | null {
  return typeof value === 'string' ? value : null
}
