import type { FastifyRequest } from 'fastify'

/** What the registry does, or asks of its store; plugins add layers of their own. */
export interface Observed {
  layer: 'registry' | 'store' | (string & {})
  /** Of the operation, one of a fixed few. */
  name: string
  /** On whose behalf, where that is known. */
  request: FastifyRequest | null
}

/** Runs around what is observed, and gives what the work gives. */
export type Observer = <T>(observed: Observed, work: () => Promise<T>) => Promise<T>

/** Runs work within all that observe it: metrics, traces. Without any it costs a comparison. */
export class Observers {
  /** The innermost first. */
  readonly #observers: Array<{ observer: Observer, priority: number }> = []

  /** @param priority lower ones run around higher ones */
  add (observer: Observer, priority: number): void {
    this.#observers.push({ observer, priority })
    this.#observers.sort((a, b) => b.priority - a.priority)
  }

  run<T> (observed: Observed, work: () => Promise<T>): Promise<T> {
    return this.#observers.length === 0 ? work() : this.#within(observed, work)
  }

  #within<T> (observed: Observed, work: () => Promise<T>): Promise<T> {
    let within = work
    for (const { observer } of this.#observers) {
      const inner = within
      within = () => observer(observed, inner)
    }
    return within()
  }
}
