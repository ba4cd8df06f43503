import { plainName } from './canonical.ts'
import type { Checkpoints } from './checkpoints.ts'
import { leafIndexOf, parseLeaf } from './entry.ts'
import { AuditRange, EntryNotFound } from './errors.ts'
import type { Ledger, StoredEntry } from './ledger.ts'
import { consistencyProof, inclusionProof, TILE, type HashReader } from './tree/index.ts'
import { lineOf, verifyLog, type LogRecord, type LogVerdict, type Receipt } from './verify/index.ts'

export interface VerifyOptions {
  /** Contents before this `seq` are not looked at; their hashes are. */
  since?: number
  /** Checkpoints that were kept elsewhere: only against these truncation, and a rewrite of everything, show. */
  outside?: readonly string[]
  /** Is told up to where it has looked. */
  onProgress?: (seq: number) => void
}

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
    this.#reader = {
      tiles: async wanted => await ledger.tiles(wanted),
      leafHashes: async (from, to) => (await ledger.entries(from, to)).map(({ hash }) => hash)
    }
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
  async verify ({ since = 0, outside = [], onProgress }: VerifyOptions = {}): Promise<LogVerdict> {
    const misfiled: { seq: number | null } = { seq: null }
    const verdict = await verifyLog(this.#records(since, misfiled), { vkeys: [...this.#vkeys], origin: this.#origin, since, outside: [...outside], ...onProgress !== undefined && { onProgress } })
    const { seq } = misfiled
    if (seq === null || (!verdict.ok && verdict.index !== null && verdict.index <= seq)) return verdict
    return { ok: false, index: seq, what: 'edited', message: `entry ${seq} is filed as something else than its leaf says` }
  }

  /** The log as lines, for `verifyLog` anywhere: what is sealed stays sealed. */
  async * lines (): AsyncGenerator<string> {
    yield JSON.stringify({ log: this.#origin, version: 1 })
    for await (const record of this.#records(0, { seq: null })) yield lineOf(record)
  }

  async * #records (since: number, misfiled: { seq: number | null }): AsyncGenerator<LogRecord> {
    const checkpoints = this.#allCheckpoints()
    let next = await checkpoints.next()
    let at = 0
    for (let { size } = await this.#ledger.head(); at < size; { size } = await this.#ledger.head()) {
      while (at < size) {
        const to = Math.min(size, at - at % TILE + TILE)
        yield * this.#stretch(at, to, since, misfiled)
        at = to
        for (; !next.done && next.value.size <= at; next = await checkpoints.next()) yield { kind: 'checkpoint', note: next.value.note }
      }
      // Where more was signed meanwhile, the log has grown.
      if (next.done) return
    }
    for (; !next.done; next = await checkpoints.next()) yield { kind: 'checkpoint', note: next.value.note }
  }

  /** Entries of one tile, and the hashes that were stored of them. */
  async * #stretch (from: number, to: number, since: number, misfiled: { seq: number | null }): AsyncGenerator<LogRecord> {
    const entries = await this.#ledger.entries(from, to)
    for (const entry of entries) {
      if (entry.seq < since) continue
      if (!isFiled(entry)) misfiled.seq ??= entry.seq
      yield { kind: 'entry', seq: entry.seq, leaf: entry.leaf }
    }
    const start = from - from % TILE
    const [tile] = to % TILE === 0 ? await this.#ledger.tiles([{ level: 0, index: start / TILE }]) : []
    if (tile !== undefined) yield { kind: 'hashes', from: start, hashes: tile }
    // Of the last tile, which is not complete, the entries have them.
    else if (entries.every(({ seq }, index) => seq === from + index)) yield { kind: 'hashes', from, hashes: Buffer.concat(entries.map(({ hash }) => hash)) }
  }

  async * #allCheckpoints (): AsyncGenerator<{ size: number, note: string }> {
    let after = 0
    for (let page = await this.#ledger.checkpointsAfter(after, 500); page.length > 0; page = await this.#ledger.checkpointsAfter(after, 500)) {
      for (const checkpoint of page) {
        after = checkpoint.size
        yield checkpoint
      }
    }
  }

  async #within (size: number): Promise<void> {
    const head = await this.#ledger.head()
    if (size > head.size) throw new AuditRange(`the log has ${head.size} entries, fewer than ${size}`)
  }
}

function isFiled (entry: StoredEntry): boolean {
  try {
    const index = Object.entries(leafIndexOf(parseLeaf(entry.leaf)))
    return index.every(([key, value]) => entry[key as keyof StoredEntry] === value) // keys of the index
  } catch {
    return true // verifyLog says what is wrong with it
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
