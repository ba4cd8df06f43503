import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import type { Driver, Log } from './driver.ts'

export interface Limits {
  /** How many connections at most. */
  readonly connections: number
  /** ms to wait for a connection, a new one or one that is in use. */
  readonly connectTimeout: number
  /** ms that one statement may take. */
  readonly statementTimeout: number
}

/**
 * A pool of connections to PostgreSQL. What the URL sets, as `statement_timeout`, wins over the limits.
 *
 * A lost connection fails the statements that run on it; the next one gets a new connection.
 */
export function openPostgresql (url: string, { connections, connectTimeout, statementTimeout }: Limits, log: Log): Driver {
  const pool = new pg.Pool({
    connectionString: url,
    application_name: 'fastify-token-registry',
    max: connections,
    connectionTimeoutMillis: connectTimeout,
    statement_timeout: statementTimeout,
    // For a server that does not answer: it should have ended the statement itself.
    query_timeout: statementTimeout + 1000,
    idle_in_transaction_session_timeout: statementTimeout,
    keepAlive: true
  })
  // An error that nobody listens for ends the process: idle connections tell the pool, those in a transaction only themselves.
  const lost = (error: Error): void => log.warn({ code: 'code' in error ? error.code : undefined }, 'a connection to the database was lost')
  pool.on('error', lost)
  pool.on('connect', client => client.on('error', () => {}))
  return { kind: 'postgresql', client: pool, db: drizzle(pool), close: () => pool.end() }
}
