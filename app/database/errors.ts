import createError from '@fastify/error'
import { DrizzleQueryError } from 'drizzle-orm'

/** The database is not there, is too busy, or did not answer in time. */
export class DatabaseUnavailable extends createError('APP_DATABASE_UNAVAILABLE', 'The database does not answer: retry later', 503) {
  readonly headers = { 'retry-after': '5' }
}

/** The database refuses a statement: `cause.code` is the SQLSTATE, by which strict-input tells those that input causes. */
export const DatabaseFailed = createError<[string, { cause: Error }]>('APP_DATABASE_FAILED', 'The database refuses a statement (%s)', 500)

/** The database cannot be opened or brought to this version's schema. */
export const DatabaseStart = createError<[string]>('APP_DATABASE_START', '%s', 500)

// connection exception, transaction rollback (a deadlock), insufficient resources, operator intervention (a time-out), system error
const outageClasses = ['08', '40', '53', '57', '58']
// No class of SQLSTATE begins with E, as EPIPE and its kin do.
const sqlState = /^[0-9FHPX][0-9A-Z]{4}$/

/** The error to throw for one that came out of a statement. */
export function databaseError (error: unknown): unknown {
  if (!(error instanceof DrizzleQueryError)) return error
  const cause = driverError(error)
  const { code } = cause
  if (!sqlState.test(code) || outageClasses.includes(code.slice(0, 2))) return new DatabaseUnavailable({ cause })
  return new DatabaseFailed(code, { cause })
}

/**
 * What the driver said, fit for a log.
 *
 * Drizzle's errors carry the parameters of the statement and PostgreSQL's whole rows, password hashes among them: only code,
 * constraint and message are kept.
 */
export function driverError (error: unknown): Error & { code: string } {
  const original = error instanceof DrizzleQueryError ? error.cause : error
  const code = text(original, 'code')
  // The messages of class 22, data exceptions, quote the value. An address that refuses has no message, only a code.
  const message = sqlState.test(code) && code.startsWith('22') ? 'data exception' : text(original, 'message')
  return Object.assign(new Error(message === '' ? code : message), { code, constraint: text(original, 'constraint') })
}

function text (error: unknown, name: string): string {
  const value: unknown = typeof error === 'object' && error !== null ? Reflect.get(error, name) : undefined
  return typeof value === 'string' ? value : ''
}
