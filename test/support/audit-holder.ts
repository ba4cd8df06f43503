// An instance that holds the log until it is told to go on, and then appends once more. Started by tests.
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import pg from 'pg'
import { sqlLedger } from '../../plugins/audit/ledgers/sql.ts'
import { stepOf } from '../../plugins/testing/ledger-contract/bench.ts'

const { url, ...options } = JSON.parse(process.argv[2] ?? '') as { url: string, tables: string, holdTimeout: number, timeout: number }
const pool = new pg.Pool({ connectionString: url })
pool.on('error', () => {})
const ledger = sqlLedger(pool, options)
const lines = createInterface(process.stdin)

const outcome = await ledger.append(async ({ head }) => {
  console.log('holds')
  await once(lines, 'line')
  return stepOf(head, [{ tenant: 'paused' }])
}).then(() => 'stored', ({ code }: { code?: string }) => code)
console.log(outcome)
await ledger.append(async ({ head }) => stepOf(head, [{ tenant: 'resumed' }]))
console.log('appended')
lines.close()
await pool.end()
