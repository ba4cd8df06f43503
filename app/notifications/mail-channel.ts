import type { Channel, Notification } from 'fastify-token-registry/session-limits'
import type { Mailer } from '../mail/mailer.ts'
import type { Users } from '../users/users.ts'

const theft = 'If it was not you, change your password: that ends every other session.'

const texts: Record<Notification['type'], { subject: string, text: (notification: Notification) => string }> = {
  'new-device': { subject: 'A sign-in from a new device', text: notification => `Your account was signed in to from a device that was not used before.\n\n${details(notification)}\n\n${theft}` },
  'new-network': { subject: 'A sign-in from a new place', text: notification => `Your account was signed in to from a network that was not used before.\n\n${details(notification)}\n\n${theft}` },
  'ended-by-limit': { subject: 'A session was ended', text: notification => `You signed in on more devices than your account allows, and the session below was ended for that.\n\n${details(notification)}` },
  'ended-by-reuse': { subject: 'A session may have been stolen', text: notification => `A token of the session below was used twice, as happens when somebody has copied it. The session was ended.\n\n${details(notification)}\n\nChange your password if you did not expect this.` },
  'ended-by-administrator': { subject: 'You were signed out', text: ({ detail: { count = 1 } }) => `An administrator ended ${count === 1 ? 'a session' : `${count} sessions`} of yours.` },
  'password-changed': { subject: 'Your password was changed', text: () => 'The password of your account was changed, and other sessions were ended.\n\nIf it was not you, reset it now.' },
  'all-ended': { subject: 'You were signed out everywhere', text: ({ detail: { count = 0 } }) => `${count} of your sessions were ended, as you asked.\n\n${theft}` }
}

/** Mails a user what happened to its sessions. */
export function mailChannel (users: Pick<Users, 'findById'>, mailer: Pick<Mailer, 'send'>): Channel {
  return async function mail (notification) {
    const user = await users.findById(notification.sub)
    if (user === null || user.disabledAt !== null) return
    const { subject, text } = texts[notification.type]
    mailer.send({ to: user.email, subject, text: `${text(notification)}\n` })
  }
}

function details ({ at, device, session }: Notification): string {
  return [
    `Time: ${new Date(at).toUTCString()}`,
    device !== null && `Device: ${device.name}`,
    session?.ipAddress != null && `Address: ${session.ipAddress}`
  ].filter(Boolean).join('\n')
}
