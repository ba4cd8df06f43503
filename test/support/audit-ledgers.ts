import { randomBytes } from 'node:crypto'
import { PGlite } from '@electric-sql/pglite'
import pg from 'pg'
import type { Test } from 'tap'
import { sqlLedger, type SqlLedgerOptions } from '../../plugins/audit/ledgers/sql.ts'
import type { OpenedLedger } from '../../plugins/testing/index.ts'

/** A prefix of tables that no other test has. */
export function ownTables (): string {
  return `t${randomBytes(6).toString('hex')}`
}

/** A pool that is ended with the test. Its errors are those of connections that tests break. */
export function poolOf (t: Test, url: string, options: pg.PoolConfig = {}): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 4, ...options })
  pool.on('error', () => {})
  t.teardown(async () => await pool.end())
  return pool
}

/** Opens empty ledgers in one PGlite, which is closed with the test. */
export function opensPGlite (t: Test): (options?: SqlLedgerOptions) => Promise<OpenedLedger> {
  const database = new PGlite()
  t.teardown(async () => await database.close())
  return async options => await opened(database, options)
}

/** Opens empty ledgers in one PostgreSQL database: each is as if of an instance of its own. */
export function opensPostgres (t: Test, url: string): (options?: SqlLedgerOptions) => Promise<OpenedLedger> {
  const pool = poolOf(t, url, { max: 12 })
  return async options => await opened(pool, options)
}

async function opened (client: pg.Pool | PGlite, options: SqlLedgerOptions = {}): Promise<OpenedLedger> {
  const tables = ownTables()
  const another = async () => {
    const ledger = sqlLedger(client, { tables, timeout: 20_000, ...options })
    await ledger.open()
    return ledger
  }
  const ledger = await another()
  return { ledger, another, close: async () => await ledger.close() }
}
