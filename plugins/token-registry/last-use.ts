import type { Use } from './cache.ts'
import type { SessionUse } from './store.ts'

/** ms between two writes of the last use of a session that has no idle timeout, and at most for any other */
const LONGEST = 60_000

/**
 * Writes last uses in the background, each at most every min(60 s, idleTimeout / 10). What is written is the newest use at that time, so
 * that the store learns of every session's last use before its idle timeout can end it.
 */
export class LastUse {
  readonly #write: (uses: readonly SessionUse[]) => Promise<void>
  readonly #pending = new Map<string, { use: Use, due: number }>()
  #timer: NodeJS.Timeout | null = null
  #firesAt = Infinity

  constructor (write: (uses: readonly SessionUse[]) => Promise<void>) {
    this.#write = write
  }

  note (use: Use): void {
    use.noted = true
    const due = performance.now() + Math.min(LONGEST, use.idleTimeout / 10)
    this.#pending.set(use.id, { use, due: Math.min(due, this.#pending.get(use.id)?.due ?? Infinity) })
    if (due < this.#firesAt) this.#arm(due)
  }

  /** Writes everything that waits. */
  async flush (): Promise<void> {
    await this.#writeDue(Infinity)
  }

  async #writeDue (now: number): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#firesAt = Infinity
    const uses: SessionUse[] = []
    let next = Infinity
    for (const [id, { use, due }] of this.#pending) {
      if (due > now) {
        next = Math.min(next, due)
        continue
      }
      use.noted = false
      this.#pending.delete(id)
      uses.push({ id, at: use.usedAt })
    }
    if (next < Infinity) this.#arm(next)
    if (uses.length > 0) await this.#write(uses)
  }

  #arm (at: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#firesAt = at
    this.#timer = setTimeout(() => this.#writeDue(performance.now()), Math.max(0, at - performance.now())).unref()
  }
}
