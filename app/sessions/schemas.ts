import { Type } from '@sinclair/typebox'
import type { DeepReadonly, Ending, SessionRecord } from 'fastify-token-registry'
import { exactly, Time } from '../http/schemas.ts'

const SessionId = Type.String({ minLength: 1, maxLength: 256, description: 'public: it names a session and opens nothing', examples: ['1Kz4_7cpHvAsp864SZoUrGX8'] })
const nullableText = (example: string) => Type.Union([Type.String(), Type.Null()], { examples: [example] })

export const SessionAnswer = exactly({
  id: SessionId,
  current: Type.Boolean({ description: 'whether it is the session of this request', examples: [true] }),
  device: exactly({ name: nullableText('Ada\'s laptop'), userAgent: nullableText('Mozilla/5.0 …') }),
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
  by: nullableText('0198f7a2-5b1c-7d3e-8f00-0c0ffee0c0de')
}, { description: 'Why the session is no more' })

export const SessionParams = exactly({ id: SessionId })

export const PageQuery = exactly({
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 500, default: 100, examples: [20] })),
  cursor: Type.Optional(Type.String({ maxLength: 256, description: 'of the page before', examples: ['2s'] }))
})

/** What its owner may see of a session. */
export function sessionAnswer ({ id, meta, issuedAt, lastUsedAt, expiresAt }: DeepReadonly<SessionRecord>, currentId: string | null) {
  const { deviceName = null, userAgent = null, ipAddress = null } = meta
  return { id, current: id === currentId, device: { name: deviceName, userAgent }, ipAddress, issuedAt, lastUsedAt, expiresAt }
}

export function endingAnswer ({ id, reason, at, by }: Ending) {
  return { id, reason, at, by }
}
