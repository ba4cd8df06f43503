import { Type, type TObject, type TProperties, type TSchema } from '@sinclair/typebox'

/** Milliseconds since the epoch. */
export const Time = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'milliseconds since 1970-01-01T00:00:00Z', examples: [1795326589271] })

export const ErrorAnswer = Type.Object({
  statusCode: Type.Integer({ maximum: 599 }),
  code: Type.String({ description: 'tells errors apart; messages may change' }),
  error: Type.String(),
  message: Type.String({ description: 'what to do about it' }),
  requestId: Type.String({ description: 'finds the request in the log' })
}, {
  description: 'The request was refused',
  examples: [{ statusCode: 401, code: 'FST_TOKEN_INVALID', error: 'Unauthorized', message: 'The token is not valid: sign in again', requestId: '7f0c1a52-3b1f-4a53-9a9e-2f4f5c6d7e8f' }]
})

/** An object with exactly these fields. */
export function exactly<Properties extends TProperties> (properties: Properties, options: { description?: string, examples?: unknown[] } = {}): TObject<Properties> {
  return Type.Object(properties, { additionalProperties: false, ...options })
}

/** The answers of a route: what it gives, and the errors that every route may give. */
export function answers<Given extends Record<number, TSchema>> (given: Given): Given & { '4xx': typeof ErrorAnswer, '5xx': typeof ErrorAnswer } {
  return { ...given, '4xx': ErrorAnswer, '5xx': ErrorAnswer }
}

export const NoContent = Type.Null({ description: 'Done' })
