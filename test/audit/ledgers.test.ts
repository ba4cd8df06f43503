import t, { type Test } from 'tap'
import { memoryLedger } from '../../plugins/audit/ledgers/memory.ts'
import { ledgerContract, type OpenedLedger } from '../../plugins/testing/index.ts'
import { freshDatabase } from '../support/postgres.ts'
import { opensPGlite, opensPostgres } from '../support/audit-ledgers.ts'

async function contract (t: Test, open: () => OpenedLedger | Promise<OpenedLedger>): Promise<void> {
  for (const { name, run } of ledgerContract(open)) await t.test(name, run)
}

t.test('the ledger contract, in memory', async t => {
  await contract(t, async () => {
    const ledger = memoryLedger()
    await ledger.open()
    return { ledger, close: async () => await ledger.close() }
  })
})

t.test('the ledger contract, in PGlite', async t => await contract(t, opensPGlite(t)))

t.test('the ledger contract, in PostgreSQL', async t => await contract(t, opensPostgres(t, await freshDatabase(t))))
