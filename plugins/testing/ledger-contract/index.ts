import type { ContractTest } from '../contract/index.ts'
import { appendRules } from './append.ts'
import { Bench, type Rule } from './bench.ts'
import { checkpointRules } from './checkpoints.ts'
import { entryRules } from './entries.ts'
import { findRules } from './find.ts'
import { keyRules } from './keys.ts'
import type { Ledger } from './ledger.ts'
import { orderRules } from './order.ts'
import { tileRules } from './tiles.ts'

export interface OpenedLedger {
  /** An empty one, opened. */
  ledger: Ledger
  /** Opens one more over the same place, where a place allows several. It is closed by the test. */
  another?: () => Promise<Ledger>
  close: () => Promise<void>
}

const rules: readonly Rule[] = [...appendRules, ...orderRules, ...entryRules, ...findRules, ...keyRules, ...tileRules, ...checkpointRules]

/**
 * What every ledger of the audit plugin keeps to, as tests for any runner. Each opens a ledger of its own, so they may run at once.
 *
 * @param open makes an empty ledger
 * @example
 * for (const { name, run } of ledgerContract(open)) test(name, run)
 */
export function ledgerContract (open: () => OpenedLedger | Promise<OpenedLedger>): ContractTest[] {
  return rules.map(({ name, check }) => ({
    name,
    run: async () => {
      const { ledger, another, close } = await open()
      const bench = new Bench(ledger, another)
      try {
        await check(bench)
      } finally {
        await bench.close()
        await close()
      }
    }
  }))
}
