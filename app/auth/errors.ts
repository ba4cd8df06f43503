import createError from '@fastify/error'

/** The same for an unknown user and for a wrong password. */
export const SignInRefused = createError('APP_SIGN_IN_REFUSED', 'E-mail address or password is wrong', 401)

/** Only who knows the password is told. */
export const UserDisabled = createError('APP_USER_DISABLED', 'This account is disabled: ask an administrator', 403)

/** The current password, asked for again before a change, is wrong. */
export const PasswordWrong = createError('APP_PASSWORD_WRONG', 'The current password is wrong', 403)

/** The token was used, has expired, or never was one. */
export const ResetRefused = createError('APP_RESET_REFUSED', 'This token to reset a password is not valid any more: ask for another one', 400)
