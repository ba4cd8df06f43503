import { PasswordsBusy } from './errors.ts'

/** Lets a number of pieces of work run at once and a number wait for their turn. */
export class Turns {
  #free: number
  readonly #queueLength: number
  readonly #waiting: Array<() => void> = []

  /**
   * @param places how many may run at once, 1 or more
   * @param queueLength how many may wait, 0 or more
   */
  constructor (places: number, queueLength: number) {
    this.#free = places
    this.#queueLength = queueLength
  }

  /** @throws {PasswordsBusy} 503, where too many wait already */
  async run<T> (work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else if (this.#waiting.length < this.#queueLength) await new Promise<void>(resolve => this.#waiting.push(resolve))
    else throw new PasswordsBusy()

    try {
      return await work()
    } finally {
      // The place passes straight to the next in line.
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}
