import { StoreLost } from './errors.ts'

/** ms that a change is remembered, and how many at most */
const REMEMBERED = 10 * 60_000
const MAX = 10_000
/** ms that a change may have reached the primary and not the replica that was promoted, before the last heartbeat that both have */
const MARGIN = 1000
/** Changes that are made again at once. */
const TOGETHER = 100
const TRIES = 5

interface Change {
  /** By the monotonic clock. */
  at: number
  again: () => Promise<unknown>
}

/** What this process ended, consumed or marked a short while ago: made again where Redis has lost it. Each knows by its operation id whether it was. */
export class Recent {
  readonly #now: () => number
  #changes: Change[] = []
  #prunedAt: number

  /** @param now ms, by the monotonic clock */
  constructor (now = () => performance.now()) {
    this.#now = now
    this.#prunedAt = now()
  }

  add (again: Change['again']): void {
    const at = this.#now()
    this.#changes.push({ at, again })
    if (this.#changes.length > 2 * MAX) this.#changes = this.#changes.slice(-MAX)
    if (at - this.#prunedAt < REMEMBERED) return
    this.#prunedAt = at
    this.#changes = this.#changes.filter(change => at - change.at < REMEMBERED)
  }

  /**
   * Makes again what was made since a time, by the monotonic clock.
   *
   * @throws {StoreLost} where some could not be
   */
  async again (since: number): Promise<void> {
    let left = this.#changes.filter(({ at }) => at >= since - MARGIN)
    for (let tried = 0; tried < TRIES && left.length > 0; tried++) {
      const failed: Change[] = []
      for (let start = 0; start < left.length; start += TOGETHER) {
        const together = left.slice(start, start + TOGETHER)
        const results = await Promise.allSettled(together.map(async ({ again }) => await again()))
        failed.push(...together.filter((_, index) => results[index]?.status === 'rejected'))
      }
      left = failed
    }
    if (left.length > 0) throw new StoreLost()
  }
}
