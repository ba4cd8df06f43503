import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import nodemailer from 'nodemailer'

export interface Mail {
  readonly to: string
  readonly subject: string
  readonly text: string
}

/** Hands mails on. */
export interface Transport {
  /** Tries once, until the signal says to give up. */
  deliver (mail: Mail, signal: AbortSignal): Promise<void>
  /** What is being delivered fails. */
  close (): void
}

/**
 * SMTP. Credentials and TLS are in the URL: `smtps:` is TLS from the start, `smtp:` takes STARTTLS where the server offers it, and
 * insists on it with `?requireTLS=true`.
 *
 * @param timeout ms that the server may take to be found, to connect, to greet, and to reply
 */
export function smtp (url: string, from: string, timeout: number): Transport {
  const pool = nodemailer.createTransport({
    url,
    pool: true,
    maxConnections: 2,
    maxRequeues: 0,
    dnsTimeout: timeout,
    connectionTimeout: timeout,
    greetingTimeout: timeout,
    socketTimeout: timeout,
    disableFileAccess: true,
    disableUrlAccess: true
  })
  return {
    async deliver ({ to, subject, text }, signal) {
      // As an object: a text could name several recipients.
      await pool.sendMail({ from, to: { name: '', address: to }, subject, text, signal })
    },
    close () {
      pool.close({ force: true })
    }
  }
}

/** Files that only the user of the server can read, one a mail, of which the newest are kept. */
export function outbox (directory: string, from: string, kept: number): Transport {
  return {
    async deliver ({ to, subject, text }) {
      const name = `${new Date().toISOString().replaceAll(':', '-')}-${randomBytes(12).toString('hex')}`
      const draft = join(directory, `.${name}`)
      await mkdir(directory, { recursive: true, mode: 0o700 })
      await writeFile(draft, `From: ${from}\nTo: ${to}\nSubject: ${subject}\n\n${text}\n`, { mode: 0o600, flag: 'wx' })
      await rename(draft, join(directory, `${name}.txt`))

      const names = (await readdir(directory)).filter(file => file.endsWith('.txt')).sort()
      for (const old of names.slice(0, Math.max(0, names.length - kept))) await rm(join(directory, old), { force: true })
    },
    close () {}
  }
}
