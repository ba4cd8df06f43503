import { InputRefused } from './errors.ts'

/** SQLSTATEs that a value of the request causes: text with NUL or not in the encoding, a malformed id, a query that it made too deep. */
const causedByInput = new Set(['22021', '22P05', '22P02', '54001'])
/** How many causes are followed: as many as anyone nests, and an end where they run in a circle. */
const maxCauses = 8

/**
 * For error handlers: a database error that the request's own values caused becomes a 400. It is looked for in the error and its causes, since
 * query builders wrap what the driver throws.
 *
 * @returns an InputRefused, or the error as it came. The InputRefused carries no cause: database errors quote values
 * @example
 * app.setErrorHandler((error, request, reply) => reply.send(asInputError(error)))
 */
export function asInputError<E> (error: E): E | InputRefused {
  let at: unknown = error
  for (let i = 0; i < maxCauses && at instanceof Error; i++) {
    if ('code' in at && typeof at.code === 'string' && causedByInput.has(at.code)) return new InputRefused(at.code)
    at = at.cause
  }
  return error
}
