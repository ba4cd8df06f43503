import type { AuditEvent, AuditTarget } from 'fastify-token-registry/audit'
import type { Config } from '../config.ts'
import type { Database } from '../database/database.ts'
import { packageInfo } from '../package-info.ts'

/** A user, as what is acted on: named by a pseudonym. */
export function userTarget (id: string): AuditTarget {
  return { kind: 'subject', id, sub: id }
}

/** What the server starts with: nothing that could hold a secret, as the URLs of services do. */
export async function serverStart ({ production, redis, sessionLimits, rateLimits, corsOrigin, trustProxy, mail, webhook }: Config, { kind }: Pick<Database, 'kind'>): Promise<AuditEvent> {
  const { version } = await packageInfo()
  return {
    type: 'server.start',
    data: { version, node: process.version, production, database: kind, sessions: redis === null ? 'memory' : 'redis', sessionLimits, rateLimits, corsOrigin, trustProxy, sendsMail: mail.smtpUrl !== null, sendsWebhooks: webhook !== null }
  }
}
