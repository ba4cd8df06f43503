import { createRequire } from 'node:module'
import { Type } from '@sinclair/typebox'
import { faultOf } from '../../token-registry/index.ts'
import { Undeliverable, type Channel, type Notification } from './event.ts'
import { mailText, oneLine, type MailText } from './mail-text.ts'
import { refuse } from './options.ts'

export interface SmtpOptions {
  /**
   * `smtp[s]://[user:password@]host[:port]`: `smtps:` is TLS from the start, `smtp:` takes STARTTLS where the server offers it, and insists on it with
   * `?requireTLS=true`.
   */
  url: string
  /** An address, or `Name <address>`. */
  from: string
  /** Where a notification goes; null for no mail. */
  to: (notification: Notification) => string | null | Promise<string | null>
  /** What it says; plain English where it is left out. */
  text?: (notification: Notification) => MailText
}

const name = 'smtpChannel'
// Atoms between dots, without spaces, controls, or the characters that would turn one address into a list or a name and an address.
const atom = '[^\\s\\p{C}<>()[\\],;:"\\\\@.]+'
const address = new RegExp(`^(?=.{1,64}@.{1,189}$)${atom}(?:\\.${atom})*@${atom}(?:\\.${atom})*$`, 'u')
const nameAndAddress = /^([^\p{C}<>"]+) <(.+)>$/u

const Options = Type.Object({
  // Not shown in messages, since it holds a password.
  url: Type.Unknown(),
  from: Type.String({ errorMessage: 'an address, or "Name <address>"' }),
  to: Type.Unsafe<SmtpOptions['to']>(Type.Function([], Type.Unknown(), { errorMessage: 'a function that gives an address, or null' })),
  text: Type.Optional(Type.Unsafe<NonNullable<SmtpOptions['text']>>(Type.Function([], Type.Unknown(), { errorMessage: 'a function that gives { subject, text }' })))
}, { additionalProperties: false })

/**
 * Mails notifications by SMTP, as plain text, each on a connection of its own. Needs `nodemailer`.
 *
 * What the server refuses for good (5xx, RFC 5321 section 4.2.1) is not tried again.
 *
 * @throws {LimitOptions} names the option; never shows the URL
 */
export function smtpChannel (given: SmtpOptions): Channel {
  refuse(faultOf(Options, given, name))
  const { url, from, to, text = mailText } = given
  if (!isSmtpUrl(url)) refuse(`${name}.url is not what it may be: smtp[s]://[user:password@]host[:port]`)
  const [, fromName = '', fromAddress = from] = nameAndAddress.exec(from) ?? []
  if (!address.test(fromAddress)) refuse(`${name}.from is not what it may be: an address, or "Name <address>"`)
  // Not imported, so that only who sends mail needs it; and not later, so that it is missed at start.
  const nodemailer: typeof import('nodemailer') = createRequire(import.meta.url)('nodemailer')
  const transport = nodemailer.createTransport({ url, disableFileAccess: true, disableUrlAccess: true, socketCloseTimeout: 0 })

  return async function smtp (notification, { signal }) {
    const recipient = await to(notification)
    if (recipient === null) return
    if (!address.test(recipient)) throw new Undeliverable('what "to" gave is not one mail address')
    const { subject, text: body } = text(notification)
    // Addresses as objects: a text could name several.
    const sending = transport.sendMail({
      from: { name: fromName, address: fromAddress },
      to: { name: '', address: recipient },
      subject: oneLine(subject),
      text: body,
      headers: { 'Auto-Submitted': 'auto-generated' }, // RFC 3834 section 5
      signal
    })
    await sending.catch(error => { throw refused(error) })
  }
}

/** Without the original, which quotes the mail. */
function refused ({ code, responseCode }: { code?: string, responseCode?: number }): Error {
  const answer = `the mail server did not take it: ${[code, responseCode].filter(Boolean).join(' ')}`
  return responseCode !== undefined && responseCode >= 500 ? new Undeliverable(answer) : new Error(answer)
}

function isSmtpUrl (given: unknown): given is string {
  if (typeof given !== 'string' || !URL.canParse(given)) return false
  const { protocol, hostname } = new URL(given)
  return (protocol === 'smtp:' || protocol === 'smtps:') && hostname !== ''
}
