import { LedgerUnavailable } from '../../errors.ts'

/** A row as drivers give it: PostgreSQL's bigint is text to pg, and a number or bigint to PGlite. */
export type Row = Readonly<Record<string, unknown>>

interface Result {
  rows: Row[]
}

/** What is needed of a `pg.Pool`. */
export interface PoolLike {
  connect (): Promise<PoolClientLike>
}

interface PoolClientLike {
  query (query: string | { text: string, values: unknown[], name?: string }): Promise<Result | Result[]>
  release (error?: Error | boolean): void
}

/** What is needed of a PGlite database. */
export interface PGliteLike {
  query (text: string, values?: unknown[]): Promise<Result>
  transaction<T> (work: (tx: PGliteTransaction) => Promise<T>): Promise<T | undefined>
}

interface PGliteTransaction {
  query (text: string, values?: unknown[]): Promise<Result>
  exec (text: string): Promise<unknown>
}

/** A connection, in a transaction or not. */
export interface Connection {
  /** @param name of a statement that is sent often: it is planned once for a connection */
  query (text: string, values?: unknown[], name?: string): Promise<Row[]>
}

/** A way to a database: PostgreSQL by a pool, or PGlite. */
export interface Database {
  query (text: string, values?: unknown[]): Promise<Row[]>
  /**
   * Runs work in a transaction; what it throws undoes it.
   *
   * @param settings statements that set it up, the first thing in it
   */
  transaction<T> (settings: string, work: (connection: Connection) => Promise<T>, signal: AbortSignal): Promise<T>
}

export function databaseOf (client: PoolLike | PGliteLike): Database {
  return 'transaction' in client ? pglite(client) : pool(client)
}

function pool (pool: PoolLike): Database {
  /** @param signal cuts it off: a connection that may still be at it is closed, and never used again */
  async function connected<T> (work: (connection: Connection) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const client = await answered(pool.connect())
    let released = false
    const release = (broken: boolean) => (): void => {
      if (!released) client.release(broken)
      released = true
    }
    signal?.addEventListener('abort', release(true), { once: true })
    try {
      const result = await work({ query: async (text, values, name) => rowsOf(await answered(client.query(values === undefined ? text : { text, values, ...name !== undefined && { name } }))) })
      release(false)()
      return result
    } finally {
      // In the middle of something.
      release(true)()
    }
  }

  return {
    query: async (text, values = []) => await connected(async connection => await connection.query(text, values)),
    transaction: async (settings, work, signal) => await connected(async connection => {
      await connection.query(`begin; ${settings}`)
      const result = await work(connection)
      await connection.query('commit')
      return result
    }, signal)
  }
}

function pglite (database: PGliteLike): Database {
  return {
    query: async (text, values) => (await answered(database.query(text, values))).rows,
    transaction: async (_settings, work) => {
      const thrown: unknown[] = []
      const results: Array<Awaited<ReturnType<typeof work>>> = []
      try {
        await database.transaction(async tx => {
          const connection = { query: async (text: string, values?: unknown[]) => (await answered(tx.query(text, values))).rows }
          results.push(await work(connection).catch(error => {
            thrown.push(error)
            throw error
          }))
        })
      } catch (error) {
        throw thrown.length > 0 ? thrown[0] : unavailable(error)
      }
      return results[0] as Awaited<ReturnType<typeof work>> // nothing was thrown
    }
  }
}

async function answered<T> (work: Promise<T>): Promise<T> {
  return await work.catch(error => { throw unavailable(error) })
}

/** What a driver says, without the values that it may quote. */
function unavailable (error: unknown): Error {
  const { code = '', message = '' } = Object(error) as { code?: unknown, message?: unknown }
  const cause = Object.assign(new Error(String(code).startsWith('22') ? 'data exception' : String(message)), { code })
  return new LedgerUnavailable(`the database says ${String(code === '' ? cause.message : code)}`, { cause })
}

function rowsOf (result: Result | Result[]): Row[] {
  return Array.isArray(result) ? result.at(-1)?.rows ?? [] : result.rows
}
