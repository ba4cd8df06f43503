import type { EnforceQuery, Ending, Revocation, SessionRecord, Subject, TokenRegistry } from '../token-registry/index.ts'
import type { Devices } from './devices/devices.ts'
import type { Device } from './devices/list.ts'
import { isDeviceName } from './devices/name.ts'
import { isDeviceId } from './devices/token.ts'
import { DevicesOff } from './errors.ts'
import type { NotificationDraft, NotificationType } from './notifications/event.ts'
import type { FindDevice, Notifications } from './notifications/notifications.ts'

/** Sign-ins whose device is being noted; those beyond that are not, which only costs the list a time. */
const MAX_NOTING = 1000

export interface SessionLimitsParts {
  registry: Pick<TokenRegistry, 'enforceLimits'>
  devices: Devices | null
  notifications: Notifications
  log: (error: unknown, message: string) => void
}

/** How many sessions there may be, on which devices, and who is told. */
export class SessionLimits {
  readonly notifications: Notifications
  readonly #registry: SessionLimitsParts['registry']
  readonly #devices: Devices | null
  readonly #log: SessionLimitsParts['log']
  readonly #noting = new Set<Promise<void>>()
  #unnoted = 0

  constructor ({ registry, devices, notifications, log }: SessionLimitsParts) {
    this.notifications = notifications
    this.#registry = registry
    this.#devices = devices
    this.#log = log
  }

  /** @throws `FST_SESSION_DEVICES_OFF` where the option `devices` is */
  get devices (): Devices {
    if (this.#devices === null) throw new DevicesOff()
    return this.#devices
  }

  get figures (): { unnotedDevices: number } {
    return { unnotedDevices: this.#unnoted }
  }

  /**
   * Brings sessions that live within the limits as they are now: after `max` was lowered, a plan changed, or a limit came to be. What a limit would refuse
   * ends by last use. Sessions that are older than a limit by device, client, tenant or function count in it from then on.
   *
   * @param query one subject, everybody of a tenant (by default that of the name `''`), or `{ allTenants: true }`
   * @returns how many sessions were ended
   * @throws `FST_SESSION_LIMITS_FAILED`, `FST_TOKEN_VALIDATION`, `FST_STORE_*`
   */
  async enforce (query: EnforceQuery = {}): Promise<number> {
    return await this.#registry.enforceLimits(query)
  }

  /** The device of a session; null where it has none that is known. */
  async deviceOf ({ tenant, sub, meta: { deviceId } }: Pick<SessionRecord, 'tenant' | 'sub' | 'meta'>): Promise<Device | null> {
    return this.#devices === null || !isDeviceId(deviceId) ? null : await this.#devices.find({ tenant, sub }, deviceId)
  }

  /** Notes the device of a session that was issued, in the background. */
  issued (session: SessionRecord): void {
    const { use, meta: { deviceId } } = session
    if (this.#devices === null || use === 'once' || !isDeviceId(deviceId)) return
    if (this.#noting.size >= MAX_NOTING) {
      this.#unnoted++
      return
    }
    const noting = this.#note(this.#devices, session, deviceId)
      .catch(error => this.#log(error, 'the device of a sign-in was not noted'))
      .finally(() => this.#noting.delete(noting))
    this.#noting.add(noting)
  }

  /** Tells what ended a session that its owner did not end. */
  ended (session: SessionRecord, { reason, by, at, detail }: Ending): void {
    const type = reason === 'limit' ? 'ended-by-limit' : reason.startsWith('reuse_') ? 'ended-by-reuse' : null
    if (type === null || session.use === 'once') return
    this.#notify(type, session, { at, session, findDevice: async () => await this.deviceOf(session), detail: { reason, by, ...detail?.limit !== undefined && { limit: detail.limit } } })
  }

  revoked ({ id, subject, except, reason, by, count }: Revocation & { count: number }, op: string): void {
    if (subject === undefined || reason === 'limit') return
    const type = reason === 'password_changed' ? 'password-changed' : by !== null && by !== subject.sub ? 'ended-by-administrator' : id === undefined ? 'all-ended' : null
    if (type !== null) this.#notify(type, subject, { key: op, detail: { reason, by, count, ...except !== undefined && { kept: except.length } } })
  }

  async close (): Promise<void> {
    await Promise.all(this.#noting)
    await this.notifications.close()
  }

  async #note (devices: Devices, session: SessionRecord, deviceId: string): Promise<void> {
    const { meta: { ipAddress, userAgent, deviceName } } = session
    const { device, isNew, newNetwork, first } = await devices.see(session, deviceId, { at: session.issuedAt, ipAddress, userAgent, name: isDeviceName(deviceName) ? deviceName : null })
    // Who signs in for the first time knows.
    if (!first && (isNew || newNetwork)) this.#notify(isNew ? 'new-device' : 'new-network', session, { session, device })
  }

  #notify (
    type: NotificationType,
    { tenant, sub }: Subject,
    { session, findDevice, ...rest }: Pick<NotificationDraft, 'at' | 'device' | 'detail' | 'key'> & { session?: SessionRecord, findDevice?: FindDevice }
  ): void {
    const about = session === undefined ? null : { id: session.id, client: session.client, issuedAt: session.issuedAt, ipAddress: session.meta.ipAddress ?? null, userAgent: session.meta.userAgent ?? null }
    this.notifications.notify({ type, tenant, sub, session: about, ...rest }, findDevice)
  }
}
