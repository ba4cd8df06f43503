import createError from '@fastify/error'

/** Another user has this e-mail address. */
export const EmailTaken = createError('APP_USER_EMAIL_TAKEN', 'This e-mail address is registered already: sign in, or reset the password', 409)

/** The address of the administrator belongs to a user who is none. */
export const AdministratorTaken = createError('APP_USER_ADMINISTRATOR_TAKEN', 'ADMIN_EMAIL is the address of a user who is no administrator, and who may not be the one that you mean: use another address', 500)
