import { mailText, type Channel, type MailText, type Notification } from 'fastify-token-registry/session-limits'
import type { Mailer } from '../mail/mailer.ts'
import type { Users } from '../users/users.ts'

/** Mails users what happens to their sessions. */
export function mailChannel (users: Pick<Users, 'findById'>, mailer: Pick<Mailer, 'deliver'>): Channel {
  return async function mail (notification, { signal }) {
    const user = await users.findById(notification.sub)
    if (user !== null) await mailer.deliver({ to: user.email, ...textOf(notification) }, signal)
  }
}

/** The plugin's text; of administrators it does not say how many sessions they ended, nor that they disabled the account. */
function textOf (notification: Notification): MailText {
  const { type, detail: { reason, count = 1 } } = notification
  if (type !== 'ended-by-administrator') return mailText(notification)
  const ended = count === 1 ? 'a session' : `${count} sessions`
  return { subject: 'You were signed out', text: `An administrator ${reason === 'disabled' ? 'disabled your account, and ended' : 'ended'} ${ended} of yours.\n` }
}
