import type { Config } from '../config.ts'
import type { Mail } from '../mail/transports.ts'

/** What a user is told who forgot the password. In a link the token is the fragment, which browsers send to no server. */
export function resetMail (token: string, { publicUrl, resetUrl }: Pick<Config, 'publicUrl' | 'resetUrl'>): Omit<Mail, 'to'> {
  const how = resetUrl === null
    ? `To choose a new one, POST it as "password" with this "token" to ${publicUrl ?? ''}/api/auth/password/reset:\n\n${token}`
    : `Choose a new one here:\n\n${resetUrl}#${token}`
  return {
    subject: 'Reset your password',
    text: `Somebody, hopefully you, asked to reset the password of this address. ${how}\n\nThis works once and for an hour. If it was not you, there is nothing to do.\n`
  }
}
