import { randomBytes } from 'node:crypto'
import { written } from './documents.ts'
import type { Runner } from './runner.ts'
import { replaceAnyway } from './scripts/documents.ts'

/** ms that it lasts from when it was taken or kept: after that, who holds it counts as dead */
const LASTS = 5000

/** Something that one process does at a time: a key names it, and ends by itself where it dies. */
export class Lease {
  readonly #runner: Runner
  readonly #key: string
  readonly #now: () => number
  readonly #holder = written(randomBytes(9).toString('base64url'))
  /** When it was last known to be held, by the monotonic clock. */
  #keptAt = -Infinity

  constructor (runner: Runner, key: string, now: () => number) {
    this.#runner = runner
    this.#key = key
    this.#now = now
  }

  /** @returns false where another holds it, or let it rest */
  async take (): Promise<boolean> {
    return await this.#replace('', this.#holder, LASTS)
  }

  /**
   * Prolongs it in time, to be called before each step: who was paused for longer learns here that it is another's by now.
   *
   * @returns false where it is
   */
  async keep (): Promise<boolean> {
    return performance.now() - this.#keptAt < LASTS / 3 || await this.#replace(this.#holder, this.#holder, LASTS)
  }

  /** Gives it back. */
  async leave (): Promise<void> {
    await this.#replace(this.#holder, '', 0)
  }

  /** Gives it back, and lets nobody take it for some ms. */
  async rest (ms: number): Promise<void> {
    await this.#replace(this.#holder, written('done'), ms)
  }

  async #replace (before: string, after: string, ms: number): Promise<boolean> {
    const askedAt = performance.now()
    const replaced = await this.#runner.run('cleanup', replaceAnyway, '', [this.#key], [before, after, this.#now() + ms]) === 1
    if (replaced) this.#keptAt = askedAt
    return replaced
  }
}
