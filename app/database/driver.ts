import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import type { FastifyBaseLogger } from 'fastify'

/** What PGlite and PostgreSQL have in common. */
export type Drizzle = PgDatabase<PgQueryResultHKT>

export type Log = Pick<FastifyBaseLogger, 'info' | 'warn'>

/** A way to PostgreSQL. */
export interface Driver {
  readonly kind: 'pglite' | 'postgresql'
  readonly db: Drizzle
  close (): Promise<void>
}
