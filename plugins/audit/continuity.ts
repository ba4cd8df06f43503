import { LedgerUnavailable, LogForked } from './errors.ts'
import type { Head, Ledger } from './ledger.ts'
import { consistencyProof, inclusionProof, type HashReader } from './tree/index.ts'
import { Frontier, openNote, parseCheckpoint, verifyConsistency, verifyInclusion } from './verify/index.ts'

interface Signed {
  size: number
  root: Buffer
}

/** What is signed continues what was signed before, and is the tree that lies in the ledger: whoever can write to that could make the server sign anything else. */
export class Continuity {
  readonly #ledger: Ledger
  readonly #reader: HashReader
  readonly #vkeys: readonly string[]
  /** Signed by this process, or found when it began. */
  #last: Signed | null = null

  constructor (ledger: Ledger, reader: HashReader, vkeys: readonly string[]) {
    this.#ledger = ledger
    this.#reader = reader
    this.#vkeys = vkeys
  }

  /** @throws {LogForked} */
  async check (head: Pick<Head, 'size' | 'frontier'>): Promise<void> {
    const last = this.#last ??= await this.#found()
    try {
      const next = { size: head.size, root: Frontier.from(head.size, head.frontier).root() }
      const continues = last !== null && last.size <= next.size ? await this.#isContinued(last, next) : await this.#isThere(next)
      if (!continues) throw new TypeError(`its head says ${next.size} entries, which are not those that it has`)
      if (last === null || last.size < next.size) this.#last = next
    } catch (error) {
      throw error instanceof LedgerUnavailable ? error : new LogForked((error as Error).message) // nothing else is thrown here
    }
  }

  async #isContinued (from: Signed, to: Signed): Promise<boolean> {
    const proof = await consistencyProof(from.size, to.size, this.#reader)
    return verifyConsistency({ from: from.size, to: to.size, proof, fromRoot: from.root, toRoot: to.root })
  }

  /** By its last entry. */
  async #isThere ({ size, root }: Signed): Promise<boolean> {
    const { leafHash, proof } = await inclusionProof(size - 1, size, this.#reader)
    return verifyInclusion({ index: size - 1, size, leafHash, proof, root })
  }

  async #found (): Promise<Signed | null> {
    const { note = '' } = await this.#ledger.lastCheckpoint() ?? {}
    const opened = openNote(note, this.#vkeys)
    return opened === null ? null : parseCheckpoint(opened.text)
  }
}
