import type { Anchors } from './anchors.ts'
import { AuditRange } from './errors.ts'
import type { Head, Ledger } from './ledger.ts'
import type { Signer } from './signing.ts'

export interface CheckpointParts {
  ledger: Ledger
  signer: Signer
  anchors: Anchors
  /** Rejects for what is not to be signed. */
  check: (head: Head) => Promise<void>
  /** ms between checkpoints, where the log grows */
  interval: number
  /** Is told why one was not made. */
  failed: (error: unknown) => void
}

/** Signs what the log is: soon after it has grown, again where that fails, and when it is asked. */
export class Checkpoints {
  readonly #parts: CheckpointParts
  /** What is to be signed; null where there is nothing new. */
  #unsigned: Head | null = null
  #timer: NodeJS.Timeout | undefined
  #signing: Promise<void> = Promise.resolve()
  #closed = false

  constructor (parts: CheckpointParts) {
    this.#parts = parts
  }

  /** Is told what the log is after this process has appended to it. */
  grown (head: Head): void {
    if (this.#unsigned === null) this.#timer = setTimeout(() => this.#signLatest(), this.#parts.interval)
    this.#unsigned = head
  }

  /**
   * The last one that covers so many entries; made now where there is none.
   *
   * @throws {AuditRange} where the log has fewer; {LogForked} where what it has is not to be signed
   */
  async covering (size: number): Promise<{ size: number, note: string }> {
    const last = await this.#parts.ledger.lastCheckpoint()
    if (last !== null && last.size >= size) return last
    const head = await this.#parts.ledger.head()
    if (head.size < size) throw new AuditRange(`the log has ${head.size} entries, fewer than ${size}`)
    return await this.#sign(head)
  }

  /** Signs what was told last, where that is not signed yet. */
  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#signLatest()
    await this.#signing
  }

  #signLatest (): void {
    const head = this.#unsigned
    this.#unsigned = null
    if (head !== null) this.#signing = this.#signing.then(async () => await this.#trySign(head))
  }

  async #trySign (head: Head): Promise<void> {
    try {
      await this.#sign(head)
    } catch (error) {
      this.#parts.failed(error)
      if (!this.#closed && this.#unsigned === null) this.grown(head)
    }
  }

  async #sign (head: Head): Promise<{ size: number, note: string }> {
    const { ledger, signer, anchors, check } = this.#parts
    await check(head)
    const checkpoint = { size: head.size, note: signer.sign(head) }
    await ledger.addCheckpoint(checkpoint.size, checkpoint.note)
    anchors.send(checkpoint)
    return checkpoint
  }
}
