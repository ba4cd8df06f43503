import { ShardedMap } from './sharded-map.ts'

/** Marks that stand until a time, by purpose. */
export class Marks {
  readonly #now: () => number
  readonly #purposes = new Map<string, ShardedMap<number>>()

  constructor (now: () => number) {
    this.#now = now
  }

  add (purpose: string, key: string, expiresAt: number): boolean {
    if (this.has(purpose, key)) return false
    if (expiresAt <= this.#now()) return true
    const marks = this.#purposes.get(purpose) ?? new ShardedMap()
    this.#purposes.set(purpose, marks)
    marks.set(key, expiresAt)
    return true
  }

  has (purpose: string, key: string): boolean {
    const expiresAt = this.#purposes.get(purpose)?.get(key)
    return expiresAt !== undefined && expiresAt > this.#now()
  }

  clear (): void {
    this.#purposes.clear()
  }

  /** Deletes what has expired, a mark a step, which tells whether it did. */
  * sweep (): Generator<boolean, undefined> {
    for (const marks of this.#purposes.values()) {
      for (const [key, expiresAt] of marks) yield expiresAt <= this.#now() && marks.delete(key)
    }
  }
}
