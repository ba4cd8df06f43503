/** A clock that is moved by hand. */
export class Clock {
  #time: number

  constructor (time = 1_700_000_000_000) {
    this.#time = time
  }

  readonly now = (): number => this.#time

  advance (ms: number): void {
    this.#time += ms
  }
}
