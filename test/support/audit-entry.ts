import type { Ledger, StoredEntry } from '../../plugins/audit/index.ts'
import { leafHash } from '../../plugins/audit/verify/index.ts'

/** An entry as a log would make it, but of any type. */
export function entryOf (seq: number, type = 'test'): StoredEntry {
  const leaf = `{"actor":{"client":null,"sub":null},"at":"1970-01-01T00:00:00.000Z","data":null,"id":"id","op":null,"outcome":"success","reason":null,"requestId":null,"sealed":[],"seq":${seq},"target":null,"tenant":"","type":${JSON.stringify(type)},"v":1}`
  return { seq, leaf, hash: leafHash(leaf), at: 0, type, outcome: 'success', tenant: '', sub: null, client: null, targetKind: null, targetId: null, subject: null, op: null }
}

/** Appends entries as another process would: without a tree. */
export async function appendTo (ledger: Ledger, count: number, pruned?: number): Promise<void> {
  await ledger.append(async ({ head }) => ({
    entries: Array.from({ length: count }, (_, place) => entryOf(head.size + place)),
    tiles: [],
    head: { ...head, size: head.size + count },
    ...pruned !== undefined && { pruned }
  }))
}
