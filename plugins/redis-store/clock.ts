/** The clock of a Redis server, as well as this process knows it: from the answers that tell it. */
export class Clock {
  #offset = Date.now() - performance.now()
  #roundTrip = Infinity

  /** ms since the epoch */
  now (): number {
    return Math.floor(performance.now() + this.#offset)
  }

  /**
   * Learns from an answer: the quicker it came, the more exactly it tells.
   *
   * @param sentAt when it was asked, and `receivedAt` when it was answered, by the monotonic clock
   * @param time what the server said, ms since the epoch
   */
  learn (sentAt: number, receivedAt: number, time: number): void {
    const roundTrip = receivedAt - sentAt
    const offset = time - (sentAt + receivedAt) / 2
    // A clock that was set, or another server's, cannot be what is known with any delay of the network.
    const moved = Math.abs(offset - this.#offset) > roundTrip / 2 + 1
    if (!moved && roundTrip > this.#roundTrip) {
      // What was learnt grows old: clocks drift.
      this.#roundTrip *= 1.1
      return
    }
    this.#offset = offset
    this.#roundTrip = roundTrip
  }
}
