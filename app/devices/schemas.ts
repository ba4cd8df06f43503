import { Type } from '@sinclair/typebox'
import type { Device } from 'fastify-token-registry/session-limits'
import { exactly, Time } from '../http/schemas.ts'

const name = { minLength: 1, maxLength: 100, description: 'without control characters', examples: ['Ada\'s laptop'] }

export const DeviceName = Type.String({ ...name, format: 'device-name' })

const DeviceId = Type.String({ minLength: 1, maxLength: 256, description: 'public: it names a device and opens nothing', examples: ['3v9WmKQx0pYfUO2bV1aZtg'] })

export const DeviceAnswer = exactly({
  id: DeviceId,
  current: Type.Boolean({ description: 'whether the session of this request is on it', examples: [true] }),
  name: Type.String({ examples: ['Firefox on Windows'] }),
  trusted: Type.Boolean({ examples: [false] }),
  ipAddress: Type.Union([Type.String(), Type.Null()], { description: 'of the last sign-in', examples: ['203.0.113.7'] }),
  firstSeenAt: Time,
  lastSeenAt: Time
})

export const DevicesAnswer = exactly({ devices: Type.Array(DeviceAnswer) }, { description: 'Devices, last seen first' })
export const DeviceParams = exactly({ id: DeviceId })

export const DeviceBody = Type.Object({
  // The list says better what is wrong with it.
  name: Type.Optional(Type.String(name)),
  trusted: Type.Optional(Type.Boolean({ description: 'trusted devices are forgotten last', examples: [true] }))
}, { additionalProperties: false, minProperties: 1 })

export function deviceAnswer ({ id, name, trusted, ipAddress, firstSeenAt, lastSeenAt }: Device, currentId: string | undefined) {
  return { id, current: id === currentId, name, trusted, ipAddress, firstSeenAt, lastSeenAt }
}
