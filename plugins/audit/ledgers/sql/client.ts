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
  on (event: 'error', listener: () => void): unknown
  off (event: 'error', listener: () => void): unknown
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

/** A way to a database: PostgreSQL by a pool, or PGlite. What a signal ends is not begun, or not finished, any more. */
export interface Database {
  query (text: string, values: unknown[] | undefined, signal: AbortSignal): Promise<Row[]>
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
  async function connected<T> (work: (connection: Connection) => Promise<T>, signal: AbortSignal): Promise<T> {
    const client = await answered(pool.connect())
    // What the server says while no query waits for it, such as that it ends the connection: the next query fails.
    client.on('error', ignore)
    let released = false
    const release = (broken: boolean): void => {
      if (released) return
      released = true
      signal.removeEventListener('abort', cut)
      if (!broken) client.off('error', ignore)
      client.release(broken)
    }
    const cut = (): void => release(true)
    signal.addEventListener('abort', cut)
    try {
      if (signal.aborted) release(false)
      signal.throwIfAborted()
      const result = await work({ query: async (text, values, name) => rowsOf(await answered(client.query(values === undefined ? text : { text, values, ...name !== undefined && { name } }))) })
      release(false)
      return result
    } finally {
      // In the middle of something: it is closed, and never used again.
      release(true)
    }
  }

  return {
    query: async (text, values = [], signal) => await connected(async connection => await connection.query(text, values), signal),
    transaction: async (settings, work, signal) => await connected(async connection => {
      await connection.query(`begin isolation level read committed; ${settings}`)
      const result = await work(connection)
      await connection.query('commit')
      return result
    }, signal)
  }
}

function pglite (database: PGliteLike): Database {
  return {
    query: async (text, values) => (await answered(database.query(text, values))).rows,
    transaction: async (_settings, work, signal) => {
      const thrown: unknown[] = []
      const results: Array<Awaited<ReturnType<typeof work>>> = []
      try {
        await database.transaction(async tx => {
          const connection = { query: async (text: string, values?: unknown[]) => (await answered(tx.query(text, values))).rows }
          try {
            results.push(await unlessAborted(signal, async () => await work(connection)))
          } catch (error) {
            thrown.push(error)
            throw error
          }
        })
      } catch (error) {
        throw thrown.length > 0 ? thrown[0] : unavailable(error)
      }
      return results[0] as Awaited<ReturnType<typeof work>> // nothing was thrown
    }
  }
}

/** Work that takes too long is left to itself. */
async function unlessAborted<T> (signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  return await new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    work().then(resolve, reject)
  })
}

function ignore (): void {}

async function answered<T> (work: Promise<T>): Promise<T> {
  return await work.catch(error => { throw unavailable(error) })
}

/** What a driver says, without the values that it may quote. */
function unavailable (error: unknown): Error {
  const { code = '', message = '' } = Object(error) as { code?: unknown, message?: unknown }
  const cause = Object.assign(new Error(String(code).startsWith('22') ? 'data exception' : String(message)), { code })
  return new LedgerUnavailable(`the database says ${String(code === '' ? cause.message : code)}`, { cause })
}

/** Several statements, which set something up, give none. */
function rowsOf (result: Result | Result[]): Row[] {
  return Array.isArray(result) ? [] : result.rows
}
