import { completeStore, type PartialStore } from '../../token-registry/index.ts'
import { Bench, type OptionalMethod, type Rule } from './bench.ts'
import { documentRules, subjectRules } from './documents.ts'
import { endAllRules, endRules } from './end.ts'
import { expiryRules } from './expiry.ts'
import { findRules } from './find.ts'
import { insertRules } from './insert.ts'
import { limitRules } from './limits.ts'
import { markRules } from './marks.ts'
import { originRules } from './once.ts'
import { recordRules } from './records.ts'
import { rotationRules } from './rotation.ts'
import { tellingRules } from './telling.ts'
import { updateRules } from './update.ts'

export type { OptionalMethod } from './bench.ts'

export interface ContractTest {
  name: string
  /** Rejects where the store breaks the contract. */
  run: () => Promise<void>
}

export interface OpenedStore {
  /** An empty store: what is left out is completed, as the registry does. */
  store: PartialStore
  /** Lets time pass for the store: moves its clock, or waits where it has one of its own. At most 1.5 s in a test. */
  advance: (ms: number) => Promise<void>
  close: () => Promise<void>
}

export interface ContractOptions {
  /** What a store of one's own does not implement: tests that need it are left out. */
  lacks?: readonly OptionalMethod[]
}

const rules: readonly Rule[] = [
  ...recordRules, ...insertRules, ...limitRules, ...rotationRules, ...originRules, ...expiryRules, ...endRules, ...endAllRules, ...findRules,
  ...updateRules, ...markRules, ...documentRules, ...subjectRules, ...tellingRules
]

/**
 * What every store keeps to, as tests for any runner. Each opens a store of its own, so they may run at once.
 *
 * @param open makes an empty store
 * @example
 * for (const { name, run } of storeContract(open)) test(name, run)
 */
export function storeContract (open: () => OpenedStore | Promise<OpenedStore>, { lacks = [] }: ContractOptions = {}): ContractTest[] {
  return rules
    .filter(({ needs = [] }) => !needs.some(method => lacks.includes(method)))
    .map(({ name, check }) => ({
      name,
      run: async () => {
        const { store, advance, close } = await open()
        try {
          await check(new Bench(completeStore(store), advance, lacks))
        } finally {
          await close()
        }
      }
    }))
}
