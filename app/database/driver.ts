import type { PGlite } from '@electric-sql/pglite'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import type { FastifyBaseLogger } from 'fastify'
import type pg from 'pg'

/** What PGlite and PostgreSQL have in common. */
export type Drizzle = PgDatabase<PgQueryResultHKT>

export type Log = Pick<FastifyBaseLogger, 'info' | 'warn'>

/** A way to PostgreSQL. */
export interface Driver {
  readonly kind: 'pglite' | 'postgresql'
  /** What `db` sends its statements by. */
  readonly client: pg.Pool | PGlite
  readonly db: Drizzle
  close (): Promise<void>
}
