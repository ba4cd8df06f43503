import createError from '@fastify/error'

/** A mail whose address or subject would add headers or recipients to it. */
export const MailRefused = createError<[string]>('APP_MAIL_REFUSED', 'The mail cannot be sent: its %s', 400)
