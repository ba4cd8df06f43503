import type { CachedToken } from './cache.ts'
import type { SessionUse } from './store.ts'

/** ms between two writes of the last use of a session that has no idle timeout, and at most for any other */
const LONGEST = 60_000

/**
 * Writes last uses in the background, each at most every min(60 s, idleTimeout / 10). What is written is the newest use at that time, so
 * that the store learns of every session's last use before its idle timeout can end it.
 */
export class LastUse {
  readonly #write: (uses: readonly SessionUse[]) => Promise<void>
  readonly #pending = new Map<string, CachedToken>()
  #timer: NodeJS.Timeout | null = null
  #firesAt = Infinity

  constructor (write: (uses: readonly SessionUse[]) => Promise<void>) {
    this.#write = write
  }

  /** @param use the latest one of its session, through whichever of its tokens */
  note (use: CachedToken): void {
    const { id } = use.auth.session
    const before = this.#pending.get(id)
    const writeBy = Math.min(performance.now() + Math.min(LONGEST, use.idleTimeout / 10), before?.writeBy ?? Infinity)
    if (before !== undefined) before.writeBy = Infinity
    use.writeBy = writeBy
    this.#pending.set(id, use)
    if (writeBy < this.#firesAt) this.#arm(writeBy)
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
    for (const [id, use] of this.#pending) {
      if (use.writeBy > now) {
        next = Math.min(next, use.writeBy)
        continue
      }
      use.writeBy = Infinity
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
