import { environment, loadConfig } from '../config.ts'
import { openDatabase } from './database.ts'

// `npm run migrate`: brings the database to the schema of this version, before its servers start.
try {
  const database = await openDatabase(loadConfig(environment()), console)
  if (database.migrations.length === 0) console.info('nothing to migrate')
  await database.close()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
