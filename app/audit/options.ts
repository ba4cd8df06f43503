import { fileAnchor, fileSink, sqlLedger, webhookAnchor, type AuditPluginOptions } from 'fastify-token-registry/audit'
import type { Config } from '../config.ts'
import type { Database } from '../database/database.ts'

/** How the audit log is kept: in the database, signed and encrypted by the keys of the configuration. */
export function auditOptions ({ anchor, copy, ...options }: Config['audit'], { client }: Pick<Database, 'client'>): AuditPluginOptions {
  return {
    ...options,
    ledger: sqlLedger(client),
    anchors: [...anchor.file === null ? [] : [fileAnchor(anchor.file)], ...anchor.url === null ? [] : [webhookAnchor(anchor.url)]],
    copies: copy === null ? [] : [fileSink(copy)]
  }
}
