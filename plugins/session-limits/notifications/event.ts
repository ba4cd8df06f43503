import { randomUUID } from 'node:crypto'

export const notificationTypes = ['new-device', 'new-network', 'ended-by-limit', 'ended-by-reuse', 'ended-by-administrator', 'password-changed', 'all-ended'] as const

export type NotificationType = typeof notificationTypes[number]

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
  /** What explains it: the reason of an ending, the limit that ended it, by whom, how many sessions. */
  readonly detail: { readonly reason?: string, readonly limit?: string, readonly by?: string | null, readonly count?: number }
}

export interface NotificationDraft extends Omit<Notification, 'id'> {
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

/** Takes over only what is known to hold no token, so that later changes of the draft change nothing. */
export function notificationOf ({ type, tenant, sub, at, session, device, detail }: NotificationDraft): Notification {
  return Object.freeze({
    id: randomUUID(),
    type,
    tenant,
    sub,
    at,
    session: session === null ? null : Object.freeze({ id: session.id, client: session.client, issuedAt: session.issuedAt, ipAddress: session.ipAddress, userAgent: session.userAgent }),
    device: device === null ? null : Object.freeze({ id: device.id, name: device.name }),
    detail: Object.freeze({ ...detail })
  })
}

/** What is sent once only; null for what is not compared with any other. */
export function keyOf ({ type, tenant, sub, session, device, key }: NotificationDraft): string | null {
  const [first, second] = type === 'new-device' ? [device, session] : [session, device]
  const same = key ?? first?.id ?? second?.id
  return same === undefined ? null : JSON.stringify([tenant, sub, type, same])
}
