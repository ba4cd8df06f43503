import { Type } from '@sinclair/typebox'
import { DeviceName } from '../devices/schemas.ts'
import { ErrorAnswer, exactly, Time } from '../http/schemas.ts'
import { SessionAnswer } from '../sessions/schemas.ts'

const Email = Type.String({ format: 'email', maxLength: 254, examples: ['ada@example.org'] })
// A password that exists may be shorter or longer than a new one: only the size is bounded here.
const Password = Type.String({ minLength: 1, maxLength: 1024, examples: ['correct horse battery staple'] })
const NewPassword = Type.String({ minLength: 1, maxLength: 1024, description: '8 to 128 characters, none of the 10,000 most common passwords', examples: ['correct horse battery staple'] })

export const UserAnswer = exactly({
  id: Type.String({ format: 'uuid', examples: ['0198f7a2-5b1c-7d3e-8f00-0c0ffee0c0de'] }),
  email: Email,
  name: Type.Union([Type.String(), Type.Null()], { examples: ['Ada'] }),
  roles: Type.Array(Type.String({ examples: ['administrator'] })),
  createdAt: Time
})

export const RegisterBody = exactly({ email: Email, password: NewPassword, name: Type.Optional(Type.String({ minLength: 1, maxLength: 200, examples: ['Ada'] })) })
export const RegisterAnswer = exactly({ user: UserAnswer }, { description: 'Registered' })

export const LoginBody = exactly({
  email: Email,
  password: Password,
  device: Type.Optional(exactly({ name: Type.Optional(DeviceName) })),
  rememberMe: Type.Optional(Type.Boolean({ default: false, description: 'stay signed in for 90 days in place of 7', examples: [true] })),
  endOthers: Type.Optional(Type.Array(Type.String({ pattern: '^[A-Za-z0-9_-]{24}$', examples: ['1Kz4_7cpHvAsp864SZoUrGX8'] }), { maxItems: 100, description: 'own sessions that end when this one begins: what a 429 offers' }))
})

const deviceToken = { description: 'tells which device this is; opens nothing', examples: ['dev_…'] }

export const LoginHeaders = Type.Object({ 'device-token': Type.Optional(Type.String(deviceToken)) })
/** For who is no browser: those get it in a cookie. */
export const LoginAnswerHeaders = { 'device-token': Type.String(deviceToken) }

/** For who proved the password, where a limit refuses. */
export const LimitAnswer = Type.Object({
  ...ErrorAnswer.properties,
  limit: Type.Optional(exactly({
    name: Type.String({ examples: ['per user'] }),
    max: Type.Integer({ maximum: Number.MAX_SAFE_INTEGER, examples: [10] }),
    count: Type.Integer({ maximum: Number.MAX_SAFE_INTEGER, description: 'how many there are', examples: [10] })
  })),
  sessions: Type.Optional(Type.Array(SessionAnswer, { description: 'own sessions that count: repeat the request with the id of one in endOthers' }))
}, {
  description: 'Too many sessions, or too many requests',
  examples: [{
    statusCode: 429,
    code: 'FST_SESSION_LIMIT',
    error: 'Too Many Requests',
    message: 'The limit "per user" of 10 sessions is reached (there are 10): end one first',
    requestId: '7f0c1a52-3b1f-4a53-9a9e-2f4f5c6d7e8f',
    limit: { name: 'per user', max: 10, count: 10 },
    sessions: [{
      id: '1Kz4_7cpHvAsp864SZoUrGX8',
      current: false,
      device: { id: '3v9WmKQx0pYfUO2bV1aZtg', name: 'Ada\'s laptop', userAgent: 'Mozilla/5.0 …' },
      ipAddress: '203.0.113.7',
      issuedAt: 1795326589271,
      lastUsedAt: 1795326589271,
      expiresAt: 1795931389271
    }]
  }]
})

export const LoginAnswer = exactly({
  accessToken: Type.String({ description: 'a JWT for `Authorization: Bearer`; it ends with the session', examples: ['eyJ…'] }),
  refreshToken: Type.String({ description: 'for POST refresh, once: each refresh gives a new one', examples: ['trr_…'] }),
  tokenType: Type.Literal('Bearer'),
  expiresIn: Type.Integer({ minimum: 0, maximum: 31_536_000, description: 'seconds that the access token lives', examples: [900] }),
  user: UserAnswer,
  session: SessionAnswer
}, { description: 'Signed in' })

export const RefreshBody = exactly({ refreshToken: Type.String({ minLength: 1, maxLength: 512, examples: ['trr_…'] }) })
export const MeAnswer = exactly({ user: UserAnswer, session: SessionAnswer }, { description: 'Who is signed in' })

export const ForgotBody = exactly({ email: Email })
export const ResetBody = exactly({ token: Type.String({ minLength: 1, maxLength: 512, examples: ['tro_…'] }), password: NewPassword })
export const ChangeBody = exactly({
  currentPassword: Password,
  newPassword: NewPassword,
  endOthers: Type.Optional(Type.Boolean({ default: true, description: 'end all other sessions', examples: [true] }))
})
