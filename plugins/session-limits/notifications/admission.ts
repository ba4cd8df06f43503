import { within } from '../../token-registry/index.ts'
import { tellsOfTakeover, type Notification } from './event.ts'
import type { ResolvedNotificationOptions } from './options.ts'

/** The store's "set if absent until": false where it stood. */
export type Mark = (purpose: string, key: string, expiresAt: number) => Promise<boolean>

export type Verdict = 'new' | 'duplicate' | 'limited'

/** Keys, and budgets, that this process remembers. */
const REMEMBERED = 10_000
/** ms that the store may take to answer, and that it is not asked again when it did not */
const PATIENCE = 1000

/** The places of one of a user's two budgets in a window: this process takes them one after the other from a random one on, so that processes seldom meet. */
interface Places {
  window: number
  next: number
  left: number
}

/**
 * Says what is new, and who has had enough, for all processes together: by marks in the store. Where that does not answer, by what this process remembers:
 * then a user may be told twice, and not too little.
 */
export class Admission {
  readonly #options: Pick<ResolvedNotificationOptions, 'dedupeFor' | 'perUser'>
  readonly #store: Mark
  readonly #now: () => number
  readonly #failed: (error: unknown) => void
  /** Until when a key is known to have been sent; the oldest first. */
  readonly #known = new Map<string, number>()
  readonly #places = new Map<string, Places>()
  #asksFrom = -Infinity

  /** @param failed is told where the store did not answer */
  constructor (options: Pick<ResolvedNotificationOptions, 'dedupeFor' | 'perUser'>, store: Mark, now: () => number, failed: (error: unknown) => void) {
    this.#options = options
    this.#store = store
    this.#now = now
    this.#failed = failed
  }

  /** Whether this process has had that key. */
  knows (key: string): boolean {
    const until = this.#known.get(key)
    return until !== undefined && this.#now() < until
  }

  remember (key: string): void {
    put(this.#known, key, this.#now() + this.#options.dedupeFor)
  }

  /**
   * Asks the store: once for the key, and mostly once for the user's budget.
   *
   * @param key null where it cannot be a duplicate
   */
  async judge ({ type, tenant, sub }: Pick<Notification, 'type' | 'tenant' | 'sub'>, key: string | null): Promise<Verdict> {
    const { dedupeFor, perUser } = this.#options
    if (key !== null && !await this.#mark('notification', key, this.#now() + dedupeFor)) return 'duplicate'
    if (perUser === null) return 'new'
    const budget = [tenant, sub, tellsOfTakeover(type)]
    const places = this.#placesOf(JSON.stringify(budget), perUser)
    while (places.left > 0) {
      const place = places.next++ % perUser.max
      places.left--
      const mark = JSON.stringify([...budget, perUser.window, places.window, place])
      if (await this.#mark('notification-place', mark, (places.window + 1) * perUser.window)) return 'new'
    }
    return 'limited'
  }

  #placesOf (budget: string, { max, window: ms }: { max: number, window: number }): Places {
    const window = Math.floor(this.#now() / ms)
    const places = this.#places.get(budget)
    if (places?.window === window) return places
    const fresh = { window, next: Math.floor(Math.random() * max), left: max }
    put(this.#places, budget, fresh)
    return fresh
  }

  /** Where the store does not answer, it counts as not having stood. */
  async #mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    if (this.#now() < this.#asksFrom) return true
    try {
      return await within(this.#store(purpose, key, expiresAt), PATIENCE, () => new Error(`the store did not answer within ${PATIENCE} ms`))
    } catch (error) {
      this.#asksFrom = this.#now() + PATIENCE
      this.#failed(error)
      return true
    }
  }
}

/** Puts an entry last; the first go where there are too many. */
function put<T> (entries: Map<string, T>, key: string, value: T): void {
  entries.delete(key)
  entries.set(key, value)
  const [first] = entries.keys()
  if (first !== undefined && entries.size > REMEMBERED) entries.delete(first)
}
