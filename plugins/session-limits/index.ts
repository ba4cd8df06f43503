import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { memoryStore } from '../token-registry/index.ts'
import { Devices, type RecognisedDevice } from './devices/devices.ts'
import { LimitOptions } from './errors.ts'
import { Notifications } from './notifications/notifications.ts'
import { resolveOptions, type ResolvedLifetime, type SessionLimitsOptions } from './options.ts'
import { createPolicy } from './policy.ts'
import { SessionLimits } from './session-limits.ts'

declare module 'fastify' {
  interface FastifyInstance {
    sessionLimits: SessionLimits
  }
}

declare module '../token-registry/index.ts' {
  interface SessionMeta {
    /** What its owner calls the device. */
    deviceName?: string
  }
}

const kDevice = Symbol('fastify-token-registry device')

interface DeviceRequest extends FastifyRequest {
  [kDevice]?: { readonly recognised: RecognisedDevice, given: boolean }
}

const sessionLimits: FastifyPluginAsync<SessionLimitsOptions> = async (app, given) => {
  const options = resolveOptions(given)
  const { tokenRegistry } = app
  const logger = app.log.child({ plugin: 'session-limits' })
  const log = (error: unknown, message: string) => logger.error(error, message)
  const now = (): number => tokenRegistry.now()
  for (const [name, lifetime] of options.lifetimes) {
    const fault = faultOf(name, lifetime)
    if (fault !== null) throw new LimitOptions(fault)
  }

  const devices = options.devices === null
    ? null
    : new Devices({ documents: tokenRegistry.documents ?? ownDocuments(), keys: tokenRegistry.deriveKeys('device'), registry: tokenRegistry, options: options.devices, now, log })
  const notifications = new Notifications(options.notifications, { mark: async (...of) => await tokenRegistry.mark(...of), now, log })
  const limits = new SessionLimits({ registry: tokenRegistry, devices, notifications, log })

  tokenRegistry.setPolicy(createPolicy({ options, deviceOf: async session => await limits.deviceOf(session), log }), {
    comparesUses: options.limits.some(({ onExceed }) => onExceed === 'end-least-recently-used')
  })
  tokenRegistry.addHook('postSave', session => limits.issued(session))
  tokenRegistry.addHook('onEnd', (session, ending) => limits.ended(session, ending))
  tokenRegistry.addHook('postRevoke', (revocation, { op }) => limits.revoked(revocation, op))
  tokenRegistry.stats.register('notifications', () => notifications.stats)
  tokenRegistry.stats.register('devices', () => limits.figures)
  app.decorate('sessionLimits', limits)
  app.addHook('onClose', async () => { await limits.close() })
  if (devices !== null) wireDevices(devices)

  function faultOf (name: string, { remember, ...own }: ResolvedLifetime): string | null {
    return tokenRegistry.addSessionLifetime(`lifetimes.${name}.`, own) ??
      (remember === undefined ? null : tokenRegistry.addSessionLifetime(`lifetimes.${name}.remember.`, { ...own, ...remember }))
  }

  /** Of a store that has no place for them: this process remembers, and others do not. */
  function ownDocuments () {
    const store = memoryStore({ now })
    app.addHook('onClose', async () => { await store.close() })
    return store.documents
  }

  /** Sessions that a request starts are on the device that it shows; where it shows none, on one new device. The answer gives it. */
  function wireDevices (devices: Devices): void {
    tokenRegistry.addHook('preStart', (data, request: DeviceRequest) => {
      if (data.meta?.deviceId !== undefined) return data
      const { recognised } = request[kDevice] ??= { recognised: devices.recognise(request), given: false }
      return { ...data, meta: { ...data.meta, deviceId: recognised.id } }
    })
    app.addHook('onSend', (request: DeviceRequest, reply, payload, done) => {
      const device = request[kDevice]
      if (device?.given === false) {
        device.given = true // where another onSend hook fails, all of them run again
        devices.give(request, reply, device.recognised)
      }
      done(null, payload)
    })
  }
}

export default fp(sessionLimits, { name: 'session-limits', fastify: '5.x', dependencies: ['token-registry'] })
export { DeviceConflict, DeviceInvalid, DeviceNotFound, DevicesOff, LimitOptions, LimitsFailed } from './errors.ts'
export { isDeviceName } from './devices/name.ts'
export { mailText, type MailText } from './notifications/mail-text.ts'
export { smtpChannel, type SmtpOptions } from './notifications/smtp.ts'
export { webhookChannel, type WebhookOptions } from './notifications/webhook.ts'
export { notificationTypes, Undeliverable, type Channel, type Notification, type NotificationDraft, type NotificationType } from './notifications/event.ts'
export type { Devices, EndOptions, RecognisedDevice, SignIn } from './devices/devices.ts'
export type { Device, DeviceChange, Seen } from './devices/list.ts'
export type { DevicesOptions } from './devices/options.ts'
export type { ChannelOptions, FindDevice, NotificationFigures, Notifications } from './notifications/notifications.ts'
export type { NotificationOptions } from './notifications/options.ts'
export type { LifetimeOption, LimitedSession, LimitOption, SessionLimitsOptions } from './options.ts'
export type { SessionLimits } from './session-limits.ts'
