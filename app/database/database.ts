import { sql } from 'drizzle-orm'
import { within } from 'fastify-token-registry'
import { sqlLedger } from 'fastify-token-registry/audit'
import type { Config } from '../config.ts'
import type { Driver, Drizzle, Log } from './driver.ts'
import { openEmbedded } from './embedded.ts'
import { DatabaseStart, databaseError, driverError } from './errors.ts'
import { migrate } from './migrations.ts'
import { openPostgresql, type Limits } from './postgresql.ts'

export interface Database {
  readonly kind: Driver['kind']
  /** For what brings its own statements, as the ledger of the audit. */
  readonly client: Driver['client']
  /** The migrations that were applied when it was opened. */
  readonly migrations: readonly string[]
  /**
   * Runs statements.
   *
   * @throws {DatabaseUnavailable} 503
   * @throws {DatabaseFailed} 500, or what strict-input's `asInputError` makes a 400 of
   */
  query<T> (run: (db: Drizzle) => Promise<T>): Promise<T>
  /** Whether it answers within 2 s. */
  isUp (): Promise<boolean>
  /** Waits for what runs, at most 5 s. */
  close (): Promise<void>
}

const serving = { connections: 10, connectTimeout: 5000, statementTimeout: 5000 }
const migrating = { connections: 1, connectTimeout: 5000, statementTimeout: 600_000 }

type Place = Pick<Config, 'databaseUrl' | 'dataDir'>

/**
 * Opens the database of the configuration as it is, for who only reads.
 *
 * @throws {DatabaseStart} where it is embedded and cannot be opened
 */
export async function openUnmigrated (place: Place, log: Log): Promise<Database> {
  return await opened(place, async () => databaseOn(await openDriver(place, serving, log), [], log))
}

/**
 * Opens the database of the configuration and applies the migrations that it lacks.
 *
 * @throws {DatabaseStart} where it cannot be reached, opened or migrated
 */
export async function openDatabase (place: Place, log: Log): Promise<Database> {
  return await opened(place, async () => {
    const migrator = await openDriver(place, migrating, log)
    const migrations = await migrated(migrator, log)
    if (migrator.kind === 'pglite') return databaseOn(migrator, migrations, log)
    await migrator.close()
    return databaseOn(await openDriver(place, serving, log), migrations, log)
  })
}

async function openDriver ({ databaseUrl, dataDir }: Place, limits: Limits, log: Log): Promise<Driver> {
  return databaseUrl === null ? await openEmbedded(dataDir, log) : openPostgresql(databaseUrl, limits, log)
}

async function opened ({ databaseUrl, dataDir }: Place, open: () => Promise<Database>): Promise<Database> {
  try {
    return await open()
  } catch (error) {
    if (error instanceof DatabaseStart) throw error
    const which = databaseUrl === null ? `The database in ${dataDir}` : 'PostgreSQL at DATABASE_URL'
    throw new DatabaseStart(`${which} cannot be opened: ${driverError(error).message}`)
  }
}

async function migrated (driver: Driver, log: Log): Promise<readonly string[]> {
  try {
    const names = await migrate(driver.db)
    await sqlLedger(driver.client).open()
    if (names.length > 0) log.info({ migrations: names }, 'the database was migrated')
    return names
  } catch (error) {
    await driver.close()
    throw error
  }
}

function databaseOn ({ kind, client, db, close }: Driver, migrations: readonly string[], log: Log): Database {
  let closed: PromiseLike<void> | undefined
  return {
    kind,
    client,
    migrations,

    async query (run) {
      try {
        return await run(db)
      } catch (error) {
        throw databaseError(error)
      }
    },

    async isUp () {
      return await within(db.execute(sql`select 1`), 2000, late).then(() => true, () => false)
    },

    async close () {
      closed ??= within(close(), 5000, late).then(null, error => log.warn({ reason: driverError(error).message }, 'the database was not closed in time'))
      await closed
    }
  }
}

function late (): Error {
  return new Error('it took too long')
}
