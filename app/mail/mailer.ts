import { setMaxListeners } from 'node:events'
import { join } from 'node:path'
import { setImmediate as afterTheRequest, setTimeout as sleep } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import { within } from 'fastify-token-registry'
import { Undeliverable } from 'fastify-token-registry/session-limits'
import type { Config } from '../config.ts'
import { isEmail } from '../users/email.ts'
import { MailRefused } from './errors.ts'
import { outbox, smtp, type Mail, type Transport } from './transports.ts'

export interface Mailer {
  /**
   * Takes a mail on, and returns at once whatever becomes of it. Mails wait in memory: what is not sent when the process dies is lost.
   *
   * @throws {MailRefused} 400: an address that is not one, or a subject of more than one line
   */
  send (mail: Mail): void
  /**
   * Tries once to deliver a mail, which takes no place among those that wait. What it rejects with does not quote the mail.
   *
   * @param signal aborts when the time is over
   * @throws {MailRefused} as `send`
   * @throws {Undeliverable} where another try would change nothing
   */
  deliver (mail: Mail, signal: AbortSignal): Promise<void>
  /** Gives what still waits one more try, at most 5 s for all together. */
  close (): Promise<void>
}

export interface MailLimits {
  /** How many mails may wait to be sent. */
  readonly waiting: number
  readonly attempts: number
  /** ms before the second attempt; each further pause is four times as long. */
  readonly pause: number
  /** ms for each step of a delivery; a whole delivery gets three times as long. */
  readonly timeout: number
  /** ms that closing waits for what is not sent. */
  readonly flush: number
  /** How many mails the outbox keeps. */
  readonly kept: number
}

const defaults: MailLimits = { waiting: 1000, attempts: 6, pause: 1000, timeout: 10_000, flush: 5000, kept: 1000 }

/** Sends mails in the background: by SMTP where the configuration names a server, else to files in `outbox` under the data directory. */
export function createMailer (
  { mail: { smtpUrl, from }, dataDir }: Pick<Config, 'mail' | 'dataDir'>,
  log: Pick<FastifyBaseLogger, 'error'>,
  given: Partial<MailLimits> = {}
): Mailer {
  const limits = { ...defaults, ...given }
  const transport = smtpUrl === null ? outbox(join(dataDir, 'outbox'), from, limits.kept) : smtp(smtpUrl, from, limits.timeout)
  return new BackgroundMailer(transport, log, limits)
}

class BackgroundMailer implements Mailer {
  readonly #transport: Transport
  readonly #log: Pick<FastifyBaseLogger, 'error'>
  readonly #limits: MailLimits
  readonly #deliveries = new Set<Promise<void>>()
  readonly #closing = new AbortController()

  constructor (transport: Transport, log: Pick<FastifyBaseLogger, 'error'>, limits: MailLimits) {
    this.#transport = transport
    this.#log = log
    this.#limits = limits
    // Every mail that pauses listens.
    setMaxListeners(0, this.#closing.signal)
  }

  send (mail: Mail): void {
    check(mail)
    if (this.#deliveries.size >= this.#limits.waiting || this.#closing.signal.aborted) {
      this.#log.error('a mail was dropped: too many wait to be sent, or the server closes')
      return
    }
    const delivery = this.#persist(mail).finally(() => this.#deliveries.delete(delivery))
    this.#deliveries.add(delivery)
  }

  async deliver (mail: Mail, signal: AbortSignal): Promise<void> {
    check(mail)
    await this.#transport.deliver(mail, signal).catch(error => { throw failureOf(error) })
  }

  async close (): Promise<void> {
    this.#closing.abort()
    await within(Promise.all(this.#deliveries), this.#limits.flush, () => new Error('it took too long')).then(null, () => {})
    this.#transport.close()
    await Promise.all(this.#deliveries)
  }

  /** Tries until it is delivered, refused for good, or was tried often enough. */
  async #persist (mail: Mail): Promise<void> {
    await afterTheRequest()
    for (let attempt = 1; ; attempt++) {
      const lastOne = attempt === this.#limits.attempts || this.#closing.signal.aborted
      try {
        await this.deliver(mail, AbortSignal.timeout(this.#limits.timeout * 3))
        return
      } catch (error) {
        if (lastOne || error instanceof Undeliverable) {
          this.#log.error({ err: error, attempt }, 'a mail could not be sent')
          return
        }
      }
      await this.#pause(attempt)
    }
  }

  /** Between half and all of a time that grows, so that many mails do not come back together. Closing ends it. */
  async #pause (attempt: number): Promise<void> {
    const ms = this.#limits.pause * 4 ** (attempt - 1) * (1 + Math.random()) / 2
    await sleep(ms, undefined, { signal: this.#closing.signal }).catch(() => {})
  }
}

function check ({ to, subject }: Mail): void {
  if (!isEmail(to)) throw new MailRefused('address is not one')
  if (/\p{Cc}/u.test(subject)) throw new MailRefused('subject has more than one line')
}

/** Without the original, whose message may quote the mail. A refusal with 5xx will not change: RFC 5321, section 4.2.1. */
function failureOf ({ name, code = name, responseCode }: Error & { code?: string, responseCode?: number }): Error {
  const message = `the mail was not taken: ${[code, responseCode].filter(Boolean).join(' ')}`
  return responseCode !== undefined && responseCode >= 500 ? new Undeliverable(message) : new Error(message)
}
