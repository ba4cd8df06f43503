import { existsSync } from 'node:fs'
import { join } from 'node:path'
import createError from '@fastify/error'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import { sqlLedger, vkeysOf, type Ledger } from 'fastify-token-registry/audit'
import type { Config } from '../config.ts'
import { openUnmigrated } from '../database/database.ts'
import { keyFile, loadTokenSecrets } from '../keys.ts'

/** There is no database yet, and none is to be made. */
const NoDatabase = createError<[string]>('APP_AUDIT_NO_DATABASE', 'There is no database in %s: set DATA_DIR or DATABASE_URL as the server has them', 500)

/** What signs the log is not known, and is not to be made. */
const NoKeys = createError('APP_AUDIT_NO_KEYS', 'The keys that sign the log are not known: set TOKEN_SECRET or DATA_DIR as the server has them, or give --vkey', 500)

const silent = { info () {}, warn () {} }

/** Reads the log of the configuration without its server. */
export async function withLedger<T> (config: Config, read: (ledger: Ledger) => Promise<T>): Promise<T> {
  if (config.databaseUrl === null && !existsSync(join(config.dataDir, 'db'))) throw new NoDatabase(config.dataDir)
  const database = await openUnmigrated(config, silent)
  try {
    return await read(sqlLedger(database.client))
  } finally {
    await database.close()
  }
}

/** The public keys that sign the log of the configuration, and those that did. */
export async function trustedKeys (config: Config): Promise<string[]> {
  if (config.tokenSecrets === null && !existsSync(keyFile(config, 'token-secret'))) throw new NoKeys()
  const { origin, signingKeys, formerKeys } = config.audit
  const app = Fastify()
  try {
    await app.register(tokenRegistry, { secret: await loadTokenSecrets(config) })
    return vkeysOf(app.tokenRegistry, { origin, signingKeys, formerKeys })
  } finally {
    await app.close()
  }
}
