import createError from '@fastify/error'

/** A password that nobody should have. */
export const PasswordRefused = createError<[string]>('APP_PASSWORD_REFUSED', 'This password %s: choose another one', 400)

/** More passwords wait to be checked than can be within a second or so. */
export class PasswordsBusy extends createError('APP_PASSWORDS_BUSY', 'Too many people sign in at this moment: retry in a second', 503) {
  readonly headers = { 'retry-after': '1' }
}
