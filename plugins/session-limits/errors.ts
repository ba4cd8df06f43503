import { define } from '../token-registry/index.ts'

/** An option of the plugin is not what it may be, or contradicts another. */
export const LimitOptions = define<[string]>('FST_SESSION_LIMITS_OPTIONS', 'session-limits: %s', 500)
/** No device of that id, or none that the caller may know of. */
export const DeviceNotFound = define('FST_SESSION_DEVICE_NOT_FOUND', 'There is no such device', 404)
/** The header with the device token holds something else. */
export const DeviceInvalid = define<[string]>('FST_SESSION_DEVICE', 'The header %s holds no device token of this service: leave it out to get one', 400)
/** Others changed the devices of the subject at the same time, again and again. */
export const DeviceConflict = define('FST_SESSION_DEVICE_CONFLICT', 'The devices changed meanwhile: try again', 409)
/** A function of a limit threw, or gave what it may not: nobody signs in under a limit that is not known. */
export const LimitsFailed = define<[string]>('FST_SESSION_LIMITS_FAILED', 'The limit "%s" of sessions could not be worked out: try again', 503, true)
/** The plugin was registered without `devices`. */
export const DevicesOff = define('FST_SESSION_DEVICES_OFF', 'session-limits keeps no devices: register it with devices: true', 500)
