import { leafHash } from './merkle.ts'
import { openNote, parseCheckpoint, type CheckpointBody } from './note.ts'
import { verifyInclusion } from './proofs.ts'

/** Proof that an entry is in a log, as JSON: nothing else is needed but the public keys of the log. */
export interface Receipt {
  version: 1
  /** The leaf, verbatim: canonical JSON. */
  entry: string
  /** Its place, from 0. */
  index: number
  /** Entries of the log that the checkpoint signs. */
  size: number
  /** Hashes from the leaf to the root, base64. */
  proof: readonly string[]
  /** A signed note (C2SP tlog-checkpoint). */
  checkpoint: string
}

export type ReceiptVerdict =
  | { ok: true, entry: Readonly<Record<string, unknown>>, /** What the entry says: RFC 3339. */ at: string, checkpoint: CheckpointBody }
  | { ok: false, reason: string }

/** Levels of a tree. */
const MOST = 53
/** 32 bytes as base64 */
const HASH64 = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/

/**
 * Checks a receipt of whatever origin.
 *
 * @param options `vkeys`: public keys of the log that are trusted; `origin`: which log it has to be
 * @throws {TypeError} where one of `vkeys` is none
 * @example
 * const verdict = verifyReceipt(JSON.parse(text), { vkeys: ['example.com/audit+1a2b3c4d+AV…'] })
 */
export function verifyReceipt (receipt: unknown, { vkeys, origin }: { vkeys: readonly string[], origin?: string }): ReceiptVerdict {
  const wrong = (reason: string): ReceiptVerdict => ({ ok: false, reason })
  if (!isReceipt(receipt)) return wrong('it is no receipt')
  const { entry, index, size, proof, checkpoint } = receipt
  const opened = openNote(checkpoint, vkeys)
  if (opened === null) return wrong('the checkpoint is not signed by a trusted key')
  const signed = parseCheckpoint(opened.text)
  if (signed === null) return wrong('what is signed is no checkpoint')
  if (origin !== undefined && signed.origin !== origin) return wrong(`it is of the log ${signed.origin}`)
  if (signed.size !== size) return wrong('the checkpoint is of another size')
  const path = proof.map(hash => Buffer.from(hash, 'base64'))
  if (!verifyInclusion({ index, size, leafHash: leafHash(entry), proof: path, root: signed.root })) return wrong('the entry is not in the log that the checkpoint signs')
  const leaf = parsed(entry)
  if (leaf?.['seq'] !== index || typeof leaf['at'] !== 'string') return wrong('the entry is none, or of another place')
  return { ok: true, entry: leaf, at: leaf['at'], checkpoint: { origin: signed.origin, size, root: signed.root } }
}

function isReceipt (value: unknown): value is Receipt {
  if (typeof value !== 'object' || value === null) return false
  const { version, entry, index, size, proof, checkpoint } = value as Partial<Record<keyof Receipt, unknown>> // each is checked
  // Text that is not well-formed has the hash of another one.
  return version === 1 && typeof entry === 'string' && entry.isWellFormed() && typeof index === 'number' && typeof size === 'number' && typeof checkpoint === 'string' &&
    Array.isArray(proof) && proof.length <= MOST && proof.every(hash => typeof hash === 'string' && HASH64.test(hash))
}

function parsed (entry: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(entry)
    return typeof value === 'object' && value !== null ? value as Record<string, unknown> : null // an object has keys
  } catch {
    return null
  }
}
