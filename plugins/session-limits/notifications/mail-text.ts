import type { Notification, NotificationType } from './event.ts'

export interface MailText {
  subject: string
  text: string
}

const LONGEST = 80

interface Wording {
  subject: string
  happened: string
  /** What to do where it was not the user. */
  advice: string
}

const change = 'If this was not you, change your password and sign out all other sessions.'
const wordings: Record<NotificationType, Wording> = {
  'new-device': { subject: 'New sign-in to your account', happened: 'Your account was signed in to on a device that it was not used on before.', advice: change },
  'new-network': { subject: 'Sign-in to your account from a new network', happened: 'Your account was signed in to from a network that it was not used from before.', advice: change },
  'ended-by-limit': { subject: 'You were signed out on one device', happened: 'One of your sessions was ended, because there were more than your account may have.', advice: change },
  'ended-by-reuse': { subject: 'A session of yours was ended for safety', happened: 'One of your sessions was ended, because a key to it that was no longer valid was used again: somebody may have copied it.', advice: 'Sign in again. If it happens again, change your password.' },
  'ended-by-administrator': { subject: 'An administrator ended a session of yours', happened: 'One of your sessions was ended by an administrator.', advice: 'If you do not know why, ask them.' },
  'password-changed': { subject: 'Your password was changed', happened: 'The password of your account was changed.', advice: 'If this was not you, set a new password and sign out all other sessions.' },
  'all-ended': { subject: 'Your sessions were ended', happened: 'As asked for, sessions of yours were ended: sign in again where you need to.', advice: change }
}

/** The mail in plain English. What a user or browser chose (the name of a device) is one short line in quotation marks. */
export function mailText ({ type, at, session, device }: Notification): MailText {
  const { subject, happened, advice } = wordings[type]
  const facts = [`Time: ${new Date(at).toISOString().slice(0, 16).replace('T', ' ')} UTC`]
  if (device !== null) facts.push(`Device: "${short(device.name)}"`)
  if (session !== null && session.ipAddress !== null) facts.push(`IP address: ${short(session.ipAddress)}`)
  return { subject, text: `${happened}\n\n${facts.join('\n')}\n\n${advice}\n` }
}

function short (text: string): string {
  return [...oneLine(text)].slice(0, LONGEST).join('')
}

/** Without what breaks lines or turns them around: control and format characters. */
export function oneLine (text: string): string {
  return text.replace(/[\s\p{C}]+/gu, ' ').trim()
}
