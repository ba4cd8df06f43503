import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { drizzle } from 'drizzle-orm/pglite'
import type { Driver, Log } from './driver.ts'
import { lock } from './lock.ts'

/**
 * PostgreSQL in this process, its files in `db` under the data directory. Statements run one after another, on the event loop.
 *
 * What was acknowledged survives the death of the process. PGlite does not sync its files, so it may not survive a power failure.
 *
 * @throws {DatabaseStart} where another process has it open
 */
export async function openEmbedded (dataDir: string, log: Log): Promise<Driver> {
  const directory = join(dataDir, 'db')
  const unlock = await lock(`${directory}.lock`)
  try {
    if (!existsSync(directory)) {
      log.info({ directory }, 'making the embedded database: this takes some seconds, once')
      await make(directory)
    }
    const client = await PGlite.create(directory)
    const close = async (): Promise<void> => {
      await client.close()
      await unlock()
    }
    return { kind: 'pglite', client, db: drizzle(client), close }
  } catch (error) {
    await unlock()
    throw error
  }
}

/** Under another name until it is whole: a process that dies halfway must not leave what looks like a database. */
async function make (directory: string): Promise<void> {
  const draft = `${directory}.new`
  await rm(draft, { recursive: true, force: true })
  await mkdir(draft, { mode: 0o700 })
  const client = await PGlite.create(draft)
  await client.close()
  await rename(draft, directory)
}
