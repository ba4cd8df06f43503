import type { FastifyBaseLogger } from 'fastify'
import type { Config } from './config.ts'
import type { Keys } from './keys.ts'

/** Says what runs on embedded defaults, and which variable outgrows it. */
export function announce ({ databaseUrl, dataDir, mail }: Pick<Config, 'databaseUrl' | 'dataDir' | 'mail'>, { generated }: Pick<Keys, 'generated'>, log: Pick<FastifyBaseLogger, 'info'>): void {
  if (databaseUrl === null) log.info(`users are kept in an embedded database in ${dataDir}/db: set DATABASE_URL to keep them in PostgreSQL`)
  log.info('sessions are kept in memory: they end with this process')
  if (generated.length > 0) log.info(`${generated.join(' and ')} were generated and are kept in ${dataDir}: set them to choose your own`)
  if (mail.smtpUrl === null) log.info(`mails are written to ${dataDir}/outbox: set SMTP_URL and MAIL_FROM to send them`)
}
