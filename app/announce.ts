import type { FastifyBaseLogger } from 'fastify'
import type { Config } from './config.ts'
import { keyFile, type Keys } from './keys.ts'

/** Says where things are kept: what runs on embedded defaults, and which variable outgrows it. */
export function announce ({ databaseUrl, redis, dataDir, mail, metrics }: Pick<Config, 'databaseUrl' | 'redis' | 'dataDir' | 'mail' | 'metrics'>, { generated, operators }: Pick<Keys, 'generated' | 'operators'>, log: Pick<FastifyBaseLogger, 'info'>): void {
  if (databaseUrl === null) log.info(`users and the audit log are kept in an embedded database in ${dataDir}/db: set DATABASE_URL to keep them in PostgreSQL`)
  else log.info('users and the audit log are kept in PostgreSQL')
  if (redis === null) log.info('sessions are kept in memory, and end with this process: set REDIS_URL to keep them in Redis')
  else log.info('sessions are kept in Redis; what rate limits count stays in this process')
  if (generated.length > 0) log.info(`${generated.join(' and ')} were generated and are kept in ${dataDir}: set them to choose your own${redis === null ? '' : ', the same for every server on this Redis'}`)
  if (metrics.tokens === null && operators.token !== undefined) log.info(`/metrics is for who has the token in ${keyFile({ dataDir }, 'metrics-token')}: set METRICS_TOKEN to choose your own`)
  if (mail.smtpUrl === null) log.info(`mails are written to ${dataDir}/outbox: set SMTP_URL and MAIL_FROM to send them`)
}
