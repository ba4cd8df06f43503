import { within } from '../../token-registry/index.ts'
import { Undeliverable } from './event.ts'

/** ms that a pause may last */
const LONGEST_PAUSE = 300_000
/** ms before another try follows one that failed: what fails at once would else take all the time there is */
const REST = 50

export interface WorkQueueOptions {
  /** How many it holds: those that wait, run, or pause between two tries. */
  queue: number
  concurrency: number
  attempts: number
  /** ms for each try */
  timeout: number
  /** ms before the second try */
  pause: number
}

/** What it tells: a piece that will not be tried again, and one that there was no room or no time for. */
export interface WorkQueueEvents {
  failed (error: unknown): void
  dropped (): void
}

export type Work<T> = (item: T, context: { signal: AbortSignal, attempt: number }) => unknown

interface Piece<T> {
  item: T
  attempt: number
}

/** Work in the background: bounded, so much at once and in one turn of the event loop, each piece tried again until it is done. */
export class WorkQueue<T> {
  done = 0
  failed = 0
  dropped = 0
  readonly #work: Work<T>
  readonly #options: WorkQueueOptions
  readonly #events: WorkQueueEvents
  readonly #waiting: Array<Piece<T>> = []
  readonly #pausing = new Map<Piece<T>, NodeJS.Timeout>()
  /** What gives each try up that is under way. */
  readonly #running = new Set<() => void>()
  /** Tries that were given up and go on all the same: they hold their item, and so count in the bound. */
  #abandoned = 0
  /** How many of those that may run rest. */
  #resting = 0
  #woken = false
  #closing = false
  #emptied: () => void = () => {}

  constructor (work: Work<T>, options: WorkQueueOptions, events: WorkQueueEvents) {
    this.#work = work
    this.#options = options
    this.#events = events
  }

  get size (): number {
    return this.#waiting.length + this.#pausing.size + this.#running.size
  }

  get full (): boolean {
    return this.#closing || this.size + this.#abandoned >= this.#options.queue
  }

  /** Takes a piece on, or drops it where it is full. */
  add (item: T): void {
    if (this.full) this.drop()
    else this.#enqueue({ item, attempt: 1 })
  }

  /** Counts a piece that there was no room for. */
  drop (): void {
    this.dropped++
    this.#events.dropped()
  }

  /**
   * Tries what is left once more, and drops what is not done in time. Nothing is taken on afterwards.
   *
   * @param ms how long all of that may take
   */
  async close (ms: number): Promise<void> {
    this.#closing = true
    for (const [piece, timer] of this.#pausing) {
      clearTimeout(timer)
      this.#enqueue(piece)
    }
    this.#pausing.clear()
    if (this.size > 0) {
      const emptied = new Promise<void>(resolve => { this.#emptied = resolve })
      await within(emptied, ms, () => new Error('it took too long')).then(null, () => {})
    }
    this.#waiting.splice(0).forEach(() => this.drop())
    for (const giveUp of this.#running) giveUp()
  }

  #enqueue (piece: Piece<T>): void {
    this.#waiting.push(piece)
    this.#wake()
  }

  /** Nothing begins in the turn that brings it, so that no caller waits; nor do more than `concurrency` in any. */
  #wake (): void {
    if (this.#woken) return
    this.#woken = true
    setImmediate(() => {
      this.#woken = false
      const idle = this.#options.concurrency - this.#running.size - (this.#closing ? 0 : this.#resting)
      for (const piece of this.#waiting.splice(0, idle)) this.#run(piece)
    })
  }

  async #run (piece: Piece<T>): Promise<void> {
    try {
      await this.#try(piece)
      this.done++
    } catch (error) {
      this.#rest()
      if (this.#closing || error instanceof Undeliverable || piece.attempt >= this.#options.attempts) {
        this.failed++
        this.#events.failed(error)
      } else {
        this.#pause({ ...piece, attempt: piece.attempt + 1 })
      }
    }
    if (this.#waiting.length > 0) this.#wake()
    if (this.size === 0) this.#emptied()
  }

  #try ({ item, attempt }: Piece<T>): Promise<void> {
    return new Promise((resolve, reject) => {
      const controller = new AbortController()
      const giveUp = (): void => {
        const late = new Error('it did not answer in time')
        this.#running.delete(giveUp)
        this.#abandoned++
        reject(late)
        controller.abort(late)
      }
      const timer = setTimeout(giveUp, this.#options.timeout).unref()
      const settle = (): void => {
        clearTimeout(timer)
        if (!this.#running.delete(giveUp)) this.#abandoned--
      }
      this.#running.add(giveUp)
      const work = async () => await this.#work(item, { signal: controller.signal, attempt })
      work().finally(settle).then(() => resolve(), reject)
    })
  }

  #rest (): void {
    this.#resting++
    setTimeout(() => {
      this.#resting--
      this.#wake()
    }, REST).unref()
  }

  #pause (piece: Piece<T>): void {
    this.#pausing.set(piece, setTimeout(() => {
      this.#pausing.delete(piece)
      this.#enqueue(piece)
    }, pauseBefore(piece.attempt, this.#options.pause)).unref())
  }
}

/**
 * Four times as long before each further attempt, half of it at random.
 *
 * @param attempt 2 or more
 * @param pause ms, before the second one
 */
export function pauseBefore (attempt: number, pause: number): number {
  return Math.min(pause * 4 ** (attempt - 2), LONGEST_PAUSE) * (1 + Math.random()) / 2
}
