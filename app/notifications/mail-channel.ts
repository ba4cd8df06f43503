import type { Channel, Notification } from 'fastify-token-registry/session-limits'
import type { Mailer } from '../mail/mailer.ts'
import type { Mail } from '../mail/transports.ts'
import type { Users } from '../users/users.ts'

const otherwise = 'change your password: that ends every other session.'

const texts: Record<Notification['type'], (notification: Notification) => Omit<Mail, 'to'>> = {
  'new-device': notification => ({
    subject: 'A sign-in from a new device',
    text: `Your account was signed in to from a device that was not used before.\n\n${details(notification)}\n\nIf it was not you, ${otherwise}`
  }),
  'new-network': notification => ({
    subject: 'A sign-in from a new place',
    text: `Your account was signed in to from a network that was not used before.\n\n${details(notification)}\n\nIf it was not you, ${otherwise}`
  }),
  'ended-by-limit': notification => ({
    subject: 'A session was ended',
    text: `The session below was ended, since somebody signed in and your account may not have more at once.\n\n${details(notification)}\n\nIf that was not you, ${otherwise}`
  }),
  'ended-by-reuse': notification => ({
    subject: 'A session may have been stolen',
    text: `A token of the session below was used again after it had been replaced, as happens when somebody has copied it. The session was ended.\n\n${details(notification)}\n\nIf you do not know why, ${otherwise}`
  }),
  'ended-by-administrator': ({ detail: { reason, count = 1 } }) => ({
    subject: 'You were signed out',
    text: `An administrator ${reason === 'disabled' ? 'disabled your account, and ended' : 'ended'} ${sessions(count)} of yours.`
  }),
  'password-changed': notification => ({
    subject: 'Your password was changed',
    text: `The password of your account was changed.\n\n${details(notification)}\n\nIf it was not you, reset it at once: that ends every session.`
  }),
  'all-ended': ({ detail: { count = 1 } }) => ({
    subject: 'Your sessions were ended',
    text: `As somebody asked who was signed in to your account, ${sessions(count)} of yours ended.\n\nIf it was not you, ${otherwise}`
  })
}

/** Mails users what happens to their sessions. */
export function mailChannel (users: Pick<Users, 'findById'>, mailer: Pick<Mailer, 'send'>): Channel {
  return async function mail (notification) {
    const user = await users.findById(notification.sub)
    if (user === null) return
    const { subject, text } = texts[notification.type](notification)
    mailer.send({ to: user.email, subject, text: `${text}\n` })
  }
}

function sessions (count: number): string {
  return count === 1 ? 'a session' : `${count} sessions`
}

/** In quotation marks, what who signed in may have written. */
function details ({ at, device, session }: Notification): string {
  const lines = [`Time: ${new Date(at).toUTCString()}`]
  if (device !== null) lines.push(`Device: "${device.name}"`)
  if (session !== null && session.ipAddress !== null) lines.push(`Address: ${session.ipAddress}`)
  return lines.join('\n')
}
