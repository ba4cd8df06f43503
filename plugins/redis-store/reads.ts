import type { Connection } from './connection.ts'
import { sliced } from './grouped.ts'

/** Sessions that one command reads at most: some 50 µs of Redis. */
const MOST = 100

interface Reading {
  keys: readonly string[]
  resolve: (values: Array<string | null>) => void
  reject: (error: unknown) => void
}

/**
 * Reads of single sessions. Those of a slot that are asked for in one turn of the event loop go together, as one command: a server that is busy
 * pays for a command, and for waking up when it is answered, once for all of them.
 */
export class Reads {
  readonly #connection: Connection
  /** By the hash tag of their slot. */
  readonly #asked = new Map<string, Reading[]>()

  constructor (connection: Connection) {
    this.#connection = connection
  }

  /**
   * @param tag of the slot that all the keys share
   * @returns what each holds
   * @throws {StoreUnavailable | StoreTimeout}
   */
  read (tag: string, keys: readonly string[]): Promise<Array<string | null>> {
    if (this.#asked.size === 0) setImmediate(() => this.#sendAll())
    return new Promise((resolve, reject) => {
      const readings = this.#asked.get(tag)
      if (readings === undefined) this.#asked.set(tag, [{ keys, resolve, reject }])
      else readings.push({ keys, resolve, reject })
    })
  }

  #sendAll (): void {
    for (const readings of this.#asked.values()) for (const together of sliced(readings, MOST)) this.#send(together)
    this.#asked.clear()
  }

  #send (readings: readonly Reading[]): void {
    this.#connection.ask('get', client => client.mget(readings.flatMap(({ keys }) => keys))).then(values => {
      let start = 0
      for (const { keys, resolve } of readings) resolve(values.slice(start, start += keys.length))
    }, error => {
      for (const { reject } of readings) reject(error)
    })
  }
}
