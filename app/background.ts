import type { FastifyBaseLogger } from 'fastify'

/** Work that no request waits for, and that is waited for when the server closes. */
export class Background {
  readonly #log: Pick<FastifyBaseLogger, 'error'>
  readonly #max: number
  readonly #running = new Set<Promise<void>>()

  /** @param max how many pieces of work may run at once; more are dropped, and logged */
  constructor (log: Pick<FastifyBaseLogger, 'error'>, max: number) {
    this.#log = log
    this.#max = max
  }

  run (name: string, work: () => Promise<void>): void {
    if (this.#running.size >= this.#max) {
      this.#log.error(`${name} was dropped: ${this.#max} of its kind are running`)
      return
    }
    const running = work()
      .catch(error => this.#log.error({ err: error }, `${name} failed`))
      .finally(() => this.#running.delete(running))
    this.#running.add(running)
  }

  async close (): Promise<void> {
    await Promise.all(this.#running)
  }
}
