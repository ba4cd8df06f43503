import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import type { DeepReadonly, Ending, SessionRecord, Subject } from 'fastify-token-registry'
import { exactly, Time } from '../http/schemas.ts'

const SessionId = Type.String({ minLength: 1, maxLength: 256, description: 'public: it names a session and opens nothing', examples: ['1Kz4_7cpHvAsp864SZoUrGX8'] })
const nullableText = (example: string) => Type.Union([Type.String(), Type.Null()], { examples: [example] })

export const SessionAnswer = exactly({
  id: SessionId,
  current: Type.Boolean({ description: 'whether it is the session of this request', examples: [true] }),
  device: exactly({ id: nullableText('3v9WmKQx0pYfUO2bV1aZtg'), name: nullableText('Ada\'s laptop'), userAgent: nullableText('Mozilla/5.0 …') }),
  ipAddress: nullableText('203.0.113.7'),
  issuedAt: Time,
  lastUsedAt: Time,
  expiresAt: Time
})

export const SessionsAnswer = exactly({
  sessions: Type.Array(SessionAnswer),
  cursor: Type.Union([Type.String(), Type.Null()], { description: 'for the next page; null at the end', examples: [null] })
}, { description: 'Sessions, newest first' })

export const EndedAnswer = exactly({ ended: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'how many sessions were ended', examples: [2] }) }, { description: 'Ended' })

export const EndingAnswer = exactly({
  id: SessionId,
  reason: Type.String({ examples: ['revoked', 'expired', 'reuse_recent', 'password_changed'] }),
  at: Time,
  by: nullableText('0198f7a2-5b1c-7d3e-8f00-0c0ffee0c0de'),
  limit: nullableText('per user'),
  replacedBy: Type.Union([
    exactly({ session: SessionId, device: Type.Union([exactly({ id: Type.String(), name: nullableText('Firefox on Windows') }), Type.Null()], { examples: [null] }) }),
    Type.Null()
  ], { description: 'the session that took its place, and the device that it is on', examples: [null] }),
  differs: nullableText('binding')
}, { description: 'Why the session is no more' })

export const SessionParams = exactly({ id: SessionId })

export const PageQuery = exactly({
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 500, default: 100, examples: [20] })),
  cursor: Type.Optional(Type.String({ maxLength: 256, description: 'of the page before', examples: ['2s'] }))
})

/** What its owner may see of a session. */
export function sessionAnswer ({ id, meta, issuedAt, lastUsedAt, expiresAt }: DeepReadonly<SessionRecord>, currentId: string | null, names: DeviceNames) {
  const { deviceId = null, deviceName = null, userAgent = null, ipAddress = null } = meta
  return { id, current: id === currentId, device: { id: deviceId, name: names.get(deviceId) ?? deviceName, userAgent }, ipAddress, issuedAt, lastUsedAt, expiresAt }
}

export function endingAnswer ({ id, reason, at, by, detail: { limit, session, device, differs } = {} }: Ending, names: DeviceNames) {
  const replacedBy = session === undefined ? null : { session, device: device === undefined ? null : { id: device, name: names.get(device) ?? null } }
  return { id, reason, at, by, limit: limit ?? null, replacedBy, differs: differs ?? null }
}

/** What its owner calls a device, or its user agent tells, by id. */
export type DeviceNames = ReadonlyMap<string | null, string>

const noNames: DeviceNames = new Map()

/** The names of a subject's devices; none of nobody's, nor where they cannot be read, which is no reason to show no sessions. */
export async function deviceNames ({ server: { sessionLimits: { devices } }, log }: FastifyRequest, subject: Subject | undefined): Promise<DeviceNames> {
  if (subject === undefined) return noNames
  try {
    return new Map((await devices.list(subject)).map(({ id, name }) => [id, name]))
  } catch (error) {
    log.warn({ err: error }, 'the names of devices could not be read')
    return noNames
  }
}
