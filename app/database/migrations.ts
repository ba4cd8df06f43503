import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { pgTable, text, timestamp } from 'drizzle-orm/pg-core'
import { sourcePath } from '../source-path.ts'
import type { Drizzle } from './driver.ts'

const applied = pgTable('schema_migrations', {
  name: text('name').primaryKey(),
  appliedAt: timestamp('applied_at', { withTimezone: true }).notNull().defaultNow()
})

// Any number, as long as every version of the server takes the same.
const lockKey = 7_265_983_104

/**
 * Applies the migrations that a database lacks, in the order of their names, all or none. Servers that start together take turns.
 *
 * A role that may not create tables can run this where nothing is left to apply.
 *
 * @returns the names of those that this call applied
 */
export async function migrate (db: Drizzle): Promise<string[]> {
  const folder = sourcePath('app/database/migrations')
  const names = (await readdir(folder)).filter(name => name.endsWith('.sql')).sort()
  return await db.transaction(async tx => {
    await tx.execute(sql`select pg_advisory_xact_lock(${lockKey})`)
    if (await tx.$count(sql`pg_class`, sql`oid = to_regclass('schema_migrations')`) === 0) {
      await tx.execute(sql`create table schema_migrations (name text constraint pk_schema_migrations primary key, applied_at timestamptz not null default now())`)
    }
    const done = (await tx.select().from(applied)).map(migration => migration.name)
    const missing = names.filter(name => !done.includes(name))
    for (const name of missing) {
      const statements = (await readFile(join(folder, name), 'utf8')).split('--> statement-breakpoint')
      for (const statement of statements) await tx.execute(sql.raw(statement))
      await tx.insert(applied).values({ name })
    }
    return missing
  })
}
