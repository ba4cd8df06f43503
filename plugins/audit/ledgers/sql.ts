import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { faultOf, within } from '../../token-registry/index.ts'
import { AuditOptions, LedgerUnavailable } from '../errors.ts'
import type { Append, EntryPage, EntryQuery, Head, Ledger, StoredEntry, StoredKey, Tile, Turn } from '../ledger.ts'
import { databaseOf, type Connection, type Database, type PGliteLike, type PoolLike, type Row } from './sql/client.ts'
import { another, schemaOf, tablesOf, type Tables } from './sql/schema.ts'

export interface SqlLedgerOptions {
  /** How the names of its tables begin, `'audit'`. Two logs in one database have two. */
  tables?: string
  /** ms that an instance may hold the log while it does nothing, 2000: then the database throws it out, and others go on. */
  holdTimeout?: number
  /** ms that a call may take, 5000 */
  timeout?: number
}

const Options = Type.Object({
  tables: Type.String({ pattern: '^[a-z_][a-z0-9_]{0,30}$', default: 'audit', errorMessage: '1 to 31 small letters, digits and _' }),
  holdTimeout: Type.Integer({ minimum: 10, maximum: 60_000, default: 2000, errorMessage: 'a whole number of ms from 10 to 60000' }),
  timeout: Type.Integer({ minimum: 10, maximum: 600_000, default: 5000, errorMessage: 'a whole number of ms from 10 to 600000' })
}, { additionalProperties: false })

/** In place of null, in texts of many lines. */
const NULL = '\u0001'
/** Any number, as long as all instances take the same. */
const LOCK = 7_265_983_105

/** A log in PostgreSQL, or in PGlite. Instances that share it append in turn, each holding the row of its head. */
export class SqlLedger implements Ledger {
  readonly name = 'sql'
  readonly #database: Database
  readonly #tables: Tables
  readonly #options: Static<typeof Options>

  /** @throws {AuditOptions} */
  constructor (client: PoolLike | PGliteLike, given: SqlLedgerOptions = {}) {
    const options = Value.Default(Options, { ...given })
    const fault = faultOf(Options, options, '')
    if (fault !== null) throw new AuditOptions(`sqlLedger: ${fault}`)
    this.#options = options as Static<typeof Options> // no fault was found with it
    this.#database = databaseOf(client)
    this.#tables = tablesOf(this.#options.tables)
  }

  async open (): Promise<void> {
    const names = Object.values(this.#tables)
    await this.#transaction('', async connection => {
      await connection.query('select pg_advisory_xact_lock($1)', [LOCK])
      const [encoding] = await connection.query('select current_setting(\'server_encoding\') as encoding')
      if (encoding?.['encoding'] !== 'UTF8') throw new AuditOptions(`sqlLedger: the database is encoded as ${String(encoding?.['encoding'])}: leaves are kept verbatim in UTF8 alone`)
      const [there] = await connection.query('select count(to_regclass(name)) as count from unnest($1::text[]) as name', [names])
      const count = Number(there?.['count'])
      if (count === names.length) return
      if (count > 0) throw new AuditOptions(`sqlLedger: of the tables ${names.join(', ')} only ${count} are there`)
      for (const statement of schemaOf(this.#tables)) await connection.query(statement)
    })
  }

  async append (plan: (turn: Turn) => Promise<Append | null>): Promise<Append | null> {
    const { timeout, holdTimeout } = this.#options
    const settings = `set local idle_in_transaction_session_timeout = ${holdTimeout}; set local lock_timeout = ${timeout}; set local statement_timeout = ${timeout}`
    return await this.#transaction(settings, async connection => {
      const head = headOf((await connection.query(`select size, frontier, erasures from ${this.#tables.head} for update`))[0])
      const append = await plan({
        head,
        entries: async (from, to) => await this.#entries(connection, from, to),
        living: async owners => new Set((await connection.query(`select owner from ${this.#tables.keys} where owner = any($1)`, [owners])).map(row => text(row['owner']))),
        tiles: async wanted => await this.#tilesOf(connection, wanted)
      })
      if (append !== null) await this.#store(connection, append)
      return append
    })
  }

  async head (): Promise<Head> {
    return headOf((await this.#query(`select size, frontier, erasures from ${this.#tables.head}`))[0])
  }

  async entries (from: number, to: number): Promise<readonly StoredEntry[]> {
    return await this.#entries(this.#anyConnection, from, to)
  }

  async find (query: EntryQuery, { limit, order, after }: EntryPage): Promise<readonly StoredEntry[]> {
    const values: unknown[] = []
    const given = (value: unknown): string => `$${values.push(value)}`
    const { person, since, until, ...exact } = query
    const conditions = [
      ...after === undefined ? [] : [`seq ${order === 'newest' ? '<' : '>'} ${given(after)}`],
      ...since === undefined ? [] : [`at >= ${given(since)}`],
      ...until === undefined ? [] : [`at < ${given(until)}`],
      ...Object.entries(exact).flatMap(([name, value]) => value === undefined ? [] : [`${columns[name as keyof typeof exact]} = ${given(value)}`])
    ]
    if (person !== undefined) {
      const owner = given(person)
      conditions.push(`(sub = ${owner} or (subject = ${owner} and ${another}))`)
    }
    const where = conditions.length === 0 ? '' : `where ${conditions.join(' and ')}`
    const rows = await this.#query(`select ${COLUMNS} from ${this.#tables.entries} ${where} order by seq ${order === 'newest' ? 'desc' : 'asc'} limit ${given(limit)}`, values)
    return rows.map(entryOf)
  }

  async unresolved (from: number, to: number, before: number): Promise<readonly StoredEntry[]> {
    const { entries } = this.#tables
    // Mostly the outcome follows at once: for few intents it has to be looked for in the whole log.
    const rows = await this.#query(`with
      near as materialized (select op from ${entries} where seq >= $1 and seq < $2::bigint + 1000 and type <> 'intent' and op is not null),
      left_over as materialized (select ${COLUMNS} from ${entries} where seq >= $1 and seq < $2 and type = 'intent' and at < $3 and (op is null or op not in (select op from near)))
      select * from left_over where not exists (select from ${entries} outcome where outcome.op = left_over.op and outcome.type <> 'intent') order by seq`, [from, to, before])
    return rows.map(entryOf)
  }

  async tiles (wanted: ReadonlyArray<Pick<Tile, 'level' | 'index'>>): Promise<ReadonlyArray<Uint8Array | undefined>> {
    return await this.#tilesOf(this.#anyConnection, wanted)
  }

  async addKeys (keys: readonly StoredKey[]): Promise<readonly StoredKey[]> {
    // In one order everywhere, so that no two instances wait for each other.
    const sorted = [...keys].sort((a, b) => a.finder < b.finder ? -1 : 1)
    const values = [sorted.map(({ owner }) => owner), sorted.map(({ finder }) => finder), sorted.map(({ wrapped }) => wrapped)]
    for (let attempt = 0; attempt < 10; attempt++) {
      await this.#query(`insert into ${this.#tables.keys} (owner, finder, wrapped) select * from unnest($1::text[], $2::text[], $3::text[]) on conflict do nothing`, values)
      const found = await this.keysByFinder(keys.map(({ finder }) => finder))
      // One that stood in the way may have been destroyed in between.
      if (found.length === keys.length) return found
    }
    throw new LedgerUnavailable('keys are destroyed as fast as they are made')
  }

  async keysByFinder (finders: readonly string[]): Promise<readonly StoredKey[]> {
    const rows = await this.#query(`select owner, finder, wrapped from ${this.#tables.keys} where finder = any($1)`, [finders])
    const keys = new Map(rows.map(keyOf).map(key => [key.finder, key]))
    return finders.map(finder => keys.get(finder)).filter(key => key !== undefined)
  }

  async keysByOwner (owners: readonly string[]): Promise<readonly StoredKey[]> {
    return (await this.#query(`select owner, finder, wrapped from ${this.#tables.keys} where owner = any($1)`, [owners])).map(keyOf)
  }

  async keysAfter (owner: string, limit: number, unlike?: string): Promise<readonly StoredKey[]> {
    const wanted = unlike === undefined ? '' : 'and not starts_with(wrapped, $3)'
    return (await this.#query(`select owner, finder, wrapped from ${this.#tables.keys} where owner > $1 ${wanted} order by owner limit $2`, [owner, limit, ...unlike === undefined ? [] : [unlike]])).map(keyOf)
  }

  async rewrapKeys (keys: readonly StoredKey[]): Promise<void> {
    await this.#query(`update ${this.#tables.keys} set wrapped = given.wrapped from unnest($1::text[], $2::text[]) as given (owner, wrapped) where ${this.#tables.keys}.owner = given.owner`,
      [keys.map(({ owner }) => owner), keys.map(({ wrapped }) => wrapped)])
  }

  async keep (kept: ReadonlyArray<{ seq: number, kept: string }>): Promise<void> {
    await this.#query(`update ${this.#tables.entries} set kept = given.kept from unnest($1::bigint[], $2::text[]) as given (seq, kept) where ${this.#tables.entries}.seq = given.seq`,
      [kept.map(({ seq }) => seq), kept.map(({ kept }) => kept)])
  }

  async kept (seqs: readonly number[]): Promise<ReadonlyMap<number, string>> {
    const rows = await this.#query(`select seq, kept from ${this.#tables.entries} where seq = any($1) and kept is not null`, [seqs])
    return new Map(rows.map(({ seq, kept }) => [Number(seq), text(kept)]))
  }

  async addCheckpoint (size: number, note: string): Promise<void> {
    await this.#query(`insert into ${this.#tables.checkpoints} (size, note) values ($1, $2) on conflict do nothing`, [size, note])
  }

  async lastCheckpoint (): Promise<{ size: number, note: string } | null> {
    const [row] = await this.#query(`select size, note from ${this.#tables.checkpoints} order by size desc limit 1`)
    return row === undefined ? null : checkpointOf(row)
  }

  async checkpointsAfter (size: number, limit: number): Promise<ReadonlyArray<{ size: number, note: string }>> {
    return (await this.#query(`select size, note from ${this.#tables.checkpoints} where size > $1 order by size limit $2`, [size, limit])).map(checkpointOf)
  }

  /** What it was given stays open: its owner closes it. */
  async close (): Promise<void> {}

  async #store (connection: Connection, { entries, tiles, head, destroyed = [], pruned = 0 }: Append): Promise<void> {
    const t = this.#tables
    // A text a column, a line an entry: PostgreSQL reads that twice as fast as it does arrays. No value has a line break. A first line is there always, since
    // one empty line would be none.
    const lines = (read: (entry: StoredEntry) => string | number | null): string => ['0', ...entries.map(entry => read(entry) ?? NULL)].join('\n')
    const column = (parameter: number): string => `string_to_array($${parameter}::text, e'\\n', e'\\x01')`
    await connection.query(`with
      added as (insert into ${t.entries} (${NAMES.join(', ')}, hash) select ${NAMES.join(', ')}, substring($13::bytea from (place::int - 2) * 32 + 1 for 32) from unnest(
        ${column(1)}::bigint[], ${column(2)}::bigint[], ${[3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map(column).join(', ')}
      ) with ordinality as given (${NAMES.join(', ')}, place) where place > 1),
      grown as (insert into ${t.tiles} (level, index, hashes) select level, index, decode(hex, 'hex') from unnest($14::smallint[], $15::bigint[], $16::text[]) as given (level, index, hex)
        on conflict (level, index) do update set hashes = excluded.hashes),
      erased as (delete from ${t.keys} where owner = any($17::text[])),
      pruned as (delete from ${t.entries} where seq < $18)
      update ${t.head} set size = $19, frontier = $20, erasures = $21`, [
      lines(({ seq }) => seq), lines(({ at }) => at), lines(({ type }) => type), lines(({ outcome }) => outcome), lines(({ tenant }) => tenant), lines(({ sub }) => sub),
      lines(({ client }) => client), lines(({ targetKind }) => targetKind), lines(({ targetId }) => targetId), lines(({ subject }) => subject), lines(({ op }) => op),
      lines(({ leaf }) => leaf), Buffer.concat(entries.map(({ hash }) => hash)),
      tiles.map(({ level }) => level), tiles.map(({ index }) => index), tiles.map(({ hashes }) => hex(hashes)), destroyed, pruned, head.size, Buffer.from(head.frontier), head.erasures
    ], `${t.entries} append`)
  }

  async #entries (connection: Connection, from: number, to: number): Promise<StoredEntry[]> {
    return (await connection.query(`select ${COLUMNS} from ${this.#tables.entries} where seq >= $1 and seq < $2 order by seq`, [from, to])).map(entryOf)
  }

  async #tilesOf (connection: Connection, wanted: ReadonlyArray<Pick<Tile, 'level' | 'index'>>): Promise<ReadonlyArray<Uint8Array | undefined>> {
    const rows = await connection.query(`select level, index, hashes from ${this.#tables.tiles} natural join unnest($1::smallint[], $2::bigint[]) as wanted (level, index)`,
      [wanted.map(({ level }) => level), wanted.map(({ index }) => index)])
    const found = new Map(rows.map(({ level, index, hashes }) => [`${String(level)} ${String(index)}`, hashes as Uint8Array])) // bytea
    return wanted.map(({ level, index }) => found.get(`${level} ${index}`))
  }

  /** One for each statement. */
  readonly #anyConnection: Connection = { query: async (sql, values) => await this.#query(sql, values) }

  async #query (sql: string, values?: unknown[]): Promise<Row[]> {
    return await this.#bounded(async signal => await this.#database.query(sql, values, signal))
  }

  async #transaction<T> (settings: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    return await this.#bounded(async signal => await this.#database.transaction(settings, work, signal))
  }

  async #bounded<T> (work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const late = new AbortController()
    return await within(work(late.signal), this.#options.timeout, () => {
      const error = new LedgerUnavailable(`the database did not answer within ${this.#options.timeout} ms`)
      late.abort(error)
      return error
    })
  }
}

/**
 * @param client a `pg.Pool`, or a PGlite. A pool should have a `connectionTimeoutMillis`: a connection that is never established takes up its place for ever
 * @see SqlLedger
 */
export function sqlLedger (client: PoolLike | PGliteLike, options?: SqlLedgerOptions): SqlLedger {
  return new SqlLedger(client, options)
}

const columns = { tenant: 'tenant', type: 'type', outcome: 'outcome', client: 'client', sub: 'sub', targetKind: 'target_kind', targetId: 'target_id', op: 'op' } as const
const NAMES = ['seq', 'at', 'type', 'outcome', 'tenant', 'sub', 'client', 'target_kind', 'target_id', 'subject', 'op', 'leaf']
const COLUMNS = [...NAMES, 'hash'].join(', ')

function headOf (row: Row | undefined): Head {
  return { size: Number(row?.['size']), frontier: row?.['frontier'] as Uint8Array, erasures: Number(row?.['erasures']) } // there is one row, and that is bytea
}

function entryOf (row: Row): StoredEntry {
  return {
    seq: Number(row['seq']),
    at: Number(row['at']),
    type: text(row['type']),
    outcome: text(row['outcome']),
    tenant: text(row['tenant']),
    sub: textOrNull(row['sub']),
    client: textOrNull(row['client']),
    targetKind: textOrNull(row['target_kind']),
    targetId: textOrNull(row['target_id']),
    subject: textOrNull(row['subject']),
    op: textOrNull(row['op']),
    leaf: text(row['leaf']),
    hash: row['hash'] as Uint8Array // bytea
  }
}

function keyOf (row: Row): StoredKey {
  return { owner: text(row['owner']), finder: text(row['finder']), wrapped: text(row['wrapped']) }
}

function checkpointOf (row: Row): { size: number, note: string } {
  return { size: Number(row['size']), note: text(row['note']) }
}

function text (value: unknown): string {
  return String(value)
}

function textOrNull (value: unknown): string | null {
  return value === null ? null : text(value)
}

function hex (bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}
