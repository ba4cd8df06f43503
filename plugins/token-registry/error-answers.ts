import { Type } from '@sinclair/typebox'

/** In whatever shape the server gives errors. */
const ErrorAnswer = Type.Partial(Type.Object({ statusCode: Type.Integer({ maximum: 599 }), code: Type.String(), error: Type.String(), message: Type.String({ description: 'what to do about it' }) }), {
  additionalProperties: true,
  description: 'The request was refused',
  examples: [{ statusCode: 403, code: 'FST_SESSION_SCOPE', error: 'Forbidden', message: 'The session lacks the scope: audit:read' }]
})

/** The errors that a route of ours may answer with, for its response schema. */
export const errorAnswers = { '4xx': ErrorAnswer, '5xx': ErrorAnswer }
