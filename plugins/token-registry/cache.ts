import { LRUCache } from 'lru-cache'
import type { Auth } from './auth.ts'
import type { SessionRecord } from './record.ts'
import type { TokenStore } from './store.ts'

/** A token that proved a session. */
export interface CachedToken {
  readonly auth: Auth
  /** ms since the epoch by the store's clock: the deadline of the session, of the token, or of the reuse window. */
  readonly validUntil: number
  /** When its session was read, by the monotonic clock. */
  readonly readAt: number
  readonly use: Use
}

/** The last use of a session, as this process knows it. */
export interface Use {
  readonly id: string
  /** ms; Infinity where the session has no idle timeout */
  readonly idleTimeout: number
  usedAt: number
  /** Whether it is waiting to be written. */
  noted: boolean
}

export interface CacheStats {
  hits: number
  misses: number
  invalidations: number
}

/** A read of the store that is under way. An invalidation kills it, so that a revocation that races it is never cached over. */
export interface Read {
  readonly id: string
  readonly record: Promise<SessionRecord | null>
  /** When it began, by the monotonic clock. */
  readonly at: number
  /** Whether nothing ended or changed the session since the read began. */
  alive: boolean
  readers: number
}

/** Tokens that proved a session, least recently used first out, each gone with its session. About 1 KiB a token. */
export class SessionCache {
  readonly stats: CacheStats = { hits: 0, misses: 0, invalidations: 0 }
  readonly #store: TokenStore
  readonly #maxStaleness: number
  readonly #tokens: LRUCache<string, CachedToken> | null
  readonly #sessions = new Map<string, { use: Use, tokens: Set<string> }>()
  readonly #reads = new Map<string, Read>()

  /**
   * @param max tokens kept; 0 turns the cache off
   * @param maxStaleness ms since invalidations were last proved to arrive, beyond which nothing is served from here
   */
  constructor (store: TokenStore, max: number, maxStaleness: number) {
    this.#store = store
    this.#maxStaleness = maxStaleness
    this.#tokens = max === 0 ? null : new LRUCache({ max, dispose: (cached, token) => this.#forget(cached.auth.session.id, token) })
  }

  /** Tokens kept, and the sessions that they are of. */
  get sizes (): { tokens: number, sessions: number } {
    return { tokens: this.#tokens?.size ?? 0, sessions: this.#sessions.size }
  }

  /** What the token proves, where that is known for certain and has not expired. */
  lookup (token: string): CachedToken | undefined {
    const cached = this.#tokens?.get(token)
    if (cached === undefined || !this.#coherent()) return undefined
    const now = this.#store.now()
    if (isOver(cached, now)) return undefined
    this.stats.hits++
    cached.use.usedAt = now
    return cached
  }

  /** What the token proved when the store was last heard of, at most `age` ms ago. */
  stale (token: string, age: number): CachedToken | undefined {
    const cached = this.#tokens?.get(token)
    if (cached === undefined || isOver(cached, this.#store.now())) return undefined
    return Math.min(performance.now() - cached.readAt, this.#store.staleness) <= age ? cached : undefined
  }

  /**
   * Begins to read a session from the store; requests that want the same one at the same time share the read. To be given to `done`, whatever
   * comes of it. While nobody would tell that the session ended, no read is shared, and what it gives is not kept.
   */
  read (id: string, fetch: () => Promise<SessionRecord | null>): Read {
    this.stats.misses++
    const coherent = this.#coherent()
    let read = coherent ? this.#reads.get(id) : undefined
    if (read === undefined) {
      read = { id, at: performance.now(), record: fetch(), alive: coherent, readers: 0 }
      if (coherent) this.#reads.set(id, read)
    }
    read.readers++
    return read
  }

  done (read: Read): void {
    if (--read.readers === 0 && this.#reads.get(read.id) === read) this.#reads.delete(read.id)
  }

  /** Notes that a session was used now, and keeps the token that proved it while the read is alive: nothing may be awaited in between. */
  keep (token: string, auth: Auth, validUntil: number, read: Read): CachedToken {
    const { id, idleTimeout } = auth.session
    const use = this.#sessions.get(id)?.use ?? { id, idleTimeout: idleTimeout ?? Infinity, usedAt: 0, noted: false }
    use.usedAt = Math.max(use.usedAt, this.#store.now())
    const cached = { auth, validUntil, readAt: read.at, use }
    if (!read.alive || this.#tokens === null) return cached

    this.#tokens.set(token, cached)
    // Looked up again: to replace an older entry of the token may have removed the session.
    const { tokens } = this.#sessions.get(id) ?? { tokens: new Set<string>() }
    this.#sessions.set(id, { use, tokens: tokens.add(token) })
    return cached
  }

  invalidate (ids: readonly string[] | 'all'): void {
    this.stats.invalidations++
    if (ids === 'all') {
      for (const read of this.#reads.values()) read.alive = false
      this.#reads.clear()
      this.#tokens?.clear()
      return
    }
    for (const id of ids) {
      const read = this.#reads.get(id)
      if (read !== undefined) {
        read.alive = false
        this.#reads.delete(id)
      }
      for (const token of this.#sessions.get(id)?.tokens ?? []) this.#tokens?.delete(token)
    }
  }

  #coherent (): boolean {
    return this.#store.staleness <= this.#maxStaleness
  }

  #forget (id: string, token: string): void {
    const session = this.#sessions.get(id)
    session?.tokens.delete(token)
    if (session?.tokens.size === 0) this.#sessions.delete(id)
  }
}

/** Whether the token has expired, or its session was not used for too long. */
function isOver ({ validUntil, use }: CachedToken, now: number): boolean {
  return now >= validUntil || now - use.usedAt >= use.idleTimeout
}
