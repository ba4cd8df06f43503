import { deadlineOf, type Ending, type SessionRecord } from './record.ts'
import type { TokenStore } from './store.ts'

/** Is told when the session does not live any more: how it ended, as far as that is known. */
export type WatchListener = (ending: Ending | null) => void

/** Sessions that are looked at at once. */
const AT_ONCE = 100
/** ms until a look that failed is repeated, more or less */
const AGAIN = 1000
/** setTimeout takes no more. */
const LONGEST = 2 ** 31 - 1

interface Watched {
  listeners: Set<WatchListener>
  timer: NodeJS.Timeout | undefined
}

/**
 * Tells when sessions end, in whichever process: for connections that outlive the request that opened them. A session is looked at when the store says that it
 * changed, when it may have, and at its deadline.
 */
export class Watches {
  readonly #store: TokenStore
  readonly #log: (error: unknown, message: string) => void
  readonly #sessions = new Map<string, Watched>()
  #due = new Set<string>()
  #looking = false

  /** @param log is told where a listener throws */
  constructor (store: TokenStore, log: (error: unknown, message: string) => void) {
    this.#store = store
    this.#log = log
  }

  /** @returns a function that stops it */
  watch (id: string, listener: WatchListener): () => void {
    const watched = this.#sessions.get(id) ?? { listeners: new Set(), timer: undefined }
    this.#sessions.set(id, watched)
    const own: WatchListener = ending => listener(ending) // one that listens twice may stop once
    watched.listeners.add(own)
    this.#lookAt([id])
    return () => {
      watched.listeners.delete(own)
      if (watched.listeners.size === 0) this.#forget(id, watched)
    }
  }

  invalidate (ids: readonly string[] | 'all'): void {
    if (this.#sessions.size > 0) this.#lookAt(ids === 'all' ? this.#sessions.keys() : ids.filter(id => this.#sessions.has(id)))
  }

  close (): void {
    for (const [id, watched] of this.#sessions) this.#forget(id, watched)
  }

  #lookAt (ids: Iterable<string>): void {
    for (const id of ids) this.#due.add(id)
    if (this.#looking || this.#due.size === 0) return
    this.#looking = true
    this.#look()
  }

  async #look (): Promise<void> {
    while (this.#due.size > 0) {
      const slice = [...this.#due].slice(0, AT_ONCE)
      for (const id of slice) this.#due.delete(id)
      await Promise.all(slice.map(async id => {
        const watched = this.#sessions.get(id)
        if (watched !== undefined) await this.#lookAtOne(id, watched)
      }))
    }
    this.#looking = false
  }

  async #lookAtOne (id: string, watched: Watched): Promise<void> {
    try {
      const session = await this.#store.get(id)
      if (session === null) this.#tell(id, watched, await this.#store.ending(id))
      else this.#lookIn(id, watched, untilDeadline(session, this.#store.now()))
    } catch {
      // What cannot be looked at is not known to have ended.
      this.#lookIn(id, watched, AGAIN * (0.5 + Math.random()))
    }
  }

  #lookIn (id: string, watched: Watched, delay: number): void {
    if (this.#sessions.get(id) !== watched) return
    clearTimeout(watched.timer)
    watched.timer = setTimeout(() => this.#lookAt([id]), Math.min(delay, LONGEST)).unref()
  }

  #tell (id: string, watched: Watched, ending: Ending | null): void {
    if (this.#sessions.get(id) !== watched) return
    this.#forget(id, watched)
    for (const listener of watched.listeners) {
      try {
        listener(ending)
      } catch (error) {
        this.#log(error, 'what watched a session failed')
      }
    }
  }

  #forget (id: string, watched: Watched): void {
    clearTimeout(watched.timer)
    if (this.#sessions.get(id) === watched) this.#sessions.delete(id)
  }
}

function untilDeadline (session: SessionRecord, now: number): number {
  return Math.max(deadlineOf(session) - now + 1, 1)
}
