import type { Documents } from '../store.ts'
import { everyCharacter, ShardedMap } from './sharded-map.ts'

interface Document {
  text: string
  expiresAt: number
}

/** Texts that stand until a time. */
export class MemoryDocuments implements Documents {
  readonly #now: () => number
  readonly #documents = new ShardedMap<Document>(everyCharacter)

  constructor (now: () => number) {
    this.#now = now
  }

  /** How many there are, those included that have expired and are still to be removed. */
  get size (): number {
    return [...this.#documents].length
  }

  async read (purpose: string, key: string): Promise<string | null> {
    return this.#standing(nameOf(purpose, key))
  }

  async write (purpose: string, key: string, before: string | null, after: string | null, expiresAt: number): Promise<boolean> {
    const name = nameOf(purpose, key)
    if (this.#standing(name) !== before) return false
    if (after === null) this.#documents.delete(name)
    else this.#documents.set(name, { text: after, expiresAt })
    return true
  }

  clear (): void {
    this.#documents.clear()
  }

  /** Deletes what has expired, a document a step, which tells whether it did. */
  * sweep (): Generator<boolean, undefined> {
    for (const [name, { expiresAt }] of this.#documents) yield expiresAt <= this.#now() && this.#documents.delete(name)
  }

  #standing (name: string): string | null {
    const document = this.#documents.get(name)
    return document !== undefined && document.expiresAt > this.#now() ? document.text : null
  }
}

function nameOf (purpose: string, key: string): string {
  return `${purpose.length}:${purpose}${key}`
}
