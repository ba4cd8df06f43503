import { plainName } from './canonical.ts'
import type { Checkpoints } from './checkpoints.ts'
import { AuditRange, EntryNotFound } from './errors.ts'
import type { Ledger, StoredEntry } from './ledger.ts'
import { consistencyProof, inclusionProof, type HashReader } from './tree/index.ts'
import type { LogVerdict, Receipt, VerifyLogOptions } from './verify/index.ts'
import { linesOf, verifyLedger } from './walk.ts'

/** `outside`: checkpoints that were kept elsewhere: only against these truncation, and a rewrite of everything, show. */
export type VerifyOptions = Pick<VerifyLogOptions, 'since' | 'outside' | 'onProgress'>

/** What proves the log to who did not write it. */
export class Proofs {
  readonly #ledger: Ledger
  readonly #checkpoints: Checkpoints
  readonly #origin: string
  readonly #vkeys: readonly string[]
  readonly #reader: HashReader

  constructor (ledger: Ledger, checkpoints: Checkpoints, { origin, vkeys }: { origin: string, vkeys: readonly string[] }) {
    this.#ledger = ledger
    this.#checkpoints = checkpoints
    this.#origin = origin
    this.#vkeys = vkeys
    this.#reader = readerOf(ledger)
  }

  /** The newest checkpoint, as text. @throws {AuditRange} while the log is empty */
  async checkpoint (): Promise<string> {
    const { size } = await this.#ledger.head()
    return (await this.#checkpoints.covering(Math.max(1, size))).note
  }

  /** RFC 6962 §2.1.1. @throws {AuditRange} */
  async inclusion (index: number, size: number): Promise<{ index: number, size: number, leafHash: string, proof: string[] }> {
    await this.#within(size)
    const { leafHash: hash, proof } = await inRange(async () => await inclusionProof(index, size, this.#reader))
    return { index, size, leafHash: base64(hash), proof: proof.map(base64) }
  }

  /** RFC 6962 §2.1.2. @throws {AuditRange} */
  async consistency (from: number, to: number): Promise<{ from: number, to: number, proof: string[] }> {
    await this.#within(to)
    const proof = await inRange(async () => await consistencyProof(from, to, this.#reader))
    return { from, to, proof: proof.map(base64) }
  }

  /**
   * Proof for an outsider that a session ended, when and why.
   *
   * @throws {EntryNotFound} where it did not, or that is pruned
   */
  async receipt (sessionId: string, tenant?: string): Promise<Receipt> {
    const [entry] = await this.#ledger.find({ type: 'session.end', outcome: 'success', targetKind: 'session', targetId: sessionId, ...tenant !== undefined && { tenant: plainName(tenant) } }, { limit: 1, order: 'oldest' })
    if (entry === undefined) throw new EntryNotFound()
    return await this.receiptOf(entry)
  }

  async receiptOf ({ seq, leaf }: StoredEntry): Promise<Receipt> {
    const { size, note } = await this.#checkpoints.covering(seq + 1)
    const { proof } = await inclusionProof(seq, size, this.#reader)
    return { version: 1, entry: leaf, index: seq, size, proof: proof.map(base64), checkpoint: note }
  }

  /** Walks the whole log: what is wrong first, and where. */
  async verify (options: VerifyOptions = {}): Promise<LogVerdict> {
    return await verifyLedger(this.#ledger, { ...options, vkeys: [...this.#vkeys], origin: this.#origin })
  }

  /** The log as lines, for `verifyLog` anywhere: what is sealed stays sealed. */
  lines (): AsyncGenerator<string> {
    return linesOf(this.#ledger, this.#origin)
  }

  async #within (size: number): Promise<void> {
    const head = await this.#ledger.head()
    if (size > head.size) throw new AuditRange(`the log has ${head.size} entries, fewer than ${size}`)
  }
}

/** Reads hashes for proofs. */
export function readerOf (ledger: Pick<Ledger, 'tiles' | 'entries'>): HashReader {
  return {
    tiles: async wanted => await ledger.tiles(wanted),
    leafHashes: async (from, to) => (await ledger.entries(from, to)).map(({ hash }) => hash)
  }
}

async function inRange<T> (work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw error instanceof RangeError ? new AuditRange(error.message) : error
  }
}

function base64 (bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}
