import type { Auth } from './auth.ts'
import type { SessionRecord } from './record.ts'
import type { TokenStore } from './store.ts'

/** A token that proved a session, and its last use as this process knows it. */
export interface CachedToken {
  readonly auth: Auth
  /** ms since the epoch by the store's clock: the deadline of the session, of the token, or of the reuse window. */
  readonly validUntil: number
  /** When its session was read, by the monotonic clock. */
  readonly readAt: number
  /** ms; Infinity where the session has no idle timeout */
  readonly idleTimeout: number
  usedAt: number
  /** When its last use will be written, by the monotonic clock; Infinity where that need not be. */
  writeBy: number
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

/** What a request presents for a token: the usual header is a key as it comes, without a copy of a part of it. */
export function keyOf (token: string): string {
  return `Bearer ${token}`
}

/**
 * Tokens that proved a session, each gone with its session. They are kept in two generations: when the younger one is full it becomes the elder,
 * and the elder is forgotten. A hit is one look-up that moves nothing, unless it brings a token back from the elder. About 1 KiB a token.
 */
export class SessionCache {
  readonly stats: CacheStats = { hits: 0, misses: 0, invalidations: 0 }
  readonly #store: Pick<TokenStore, 'now' | 'staleness'>
  readonly #half: number
  readonly #maxStaleness: number
  readonly #reads = new Map<string, Read>()
  #young = new Generation()
  #old = new Generation()

  /**
   * @param max tokens kept at most (an odd number counts as the next one): the more recently used half of them for certain; 0 turns the cache off
   * @param maxStaleness ms since invalidations were last proved to arrive, beyond which nothing is served from here
   */
  constructor (store: Pick<TokenStore, 'now' | 'staleness'>, max: number, maxStaleness: number) {
    this.#store = store
    this.#half = Math.ceil(max / 2)
    this.#maxStaleness = maxStaleness
  }

  /** Tokens kept. */
  get size (): number {
    return this.#young.tokens.size + this.#old.tokens.size
  }

  /** What a token proves, where that is known for certain and has not expired. */
  lookup (key: string): CachedToken | undefined {
    const cached = this.#young.tokens.get(key) ?? this.#broughtBack(key)
    if (cached === undefined || !this.#coherent()) return undefined
    const now = this.#store.now()
    if (isOver(cached, now)) return undefined
    this.stats.hits++
    cached.usedAt = now
    return cached
  }

  /** What a token proved when the store was last heard of, at most `age` ms ago. */
  stale (key: string, age: number): CachedToken | undefined {
    const cached = this.#young.tokens.get(key) ?? this.#broughtBack(key)
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
    if (--read.readers === 0 && read.alive) this.#reads.delete(read.id)
  }

  /** Keeps the token that proved a session now, while the read is alive: nothing may be awaited in between. */
  keep (key: string, auth: Auth, validUntil: number, read: Read): CachedToken {
    const cached = { auth, validUntil, readAt: read.at, idleTimeout: auth.session.idleTimeout ?? Infinity, usedAt: this.#store.now(), writeBy: Infinity }
    if (read.alive && this.#half > 0) this.#put(key, cached)
    return cached
  }

  invalidate (ids: readonly string[] | 'all'): void {
    this.stats.invalidations++
    if (ids === 'all') {
      for (const read of this.#reads.values()) read.alive = false
      this.#reads.clear()
      this.#young = new Generation()
      this.#old = new Generation()
      return
    }
    for (const id of ids) {
      const read = this.#reads.get(id)
      if (read !== undefined) {
        read.alive = false
        this.#reads.delete(id)
      }
      this.#young.forget(id)
      this.#old.forget(id)
    }
  }

  #coherent (): boolean {
    return this.#store.staleness <= this.#maxStaleness
  }

  #broughtBack (key: string): CachedToken | undefined {
    const cached = this.#old.tokens.get(key)
    if (cached === undefined) return undefined
    this.#old.tokens.delete(key)
    this.#put(key, cached)
    return cached
  }

  #put (key: string, cached: CachedToken): void {
    if (this.#young.tokens.size >= this.#half) {
      this.#old = this.#young
      this.#young = new Generation()
    }
    this.#young.add(key, cached)
  }
}

class Generation {
  readonly tokens = new Map<string, CachedToken>()
  /** The keys of each session's tokens. */
  readonly #sessions = new Map<string, Set<string>>()

  add (key: string, cached: CachedToken): void {
    this.tokens.set(key, cached)
    const { id } = cached.auth.session
    const keys = this.#sessions.get(id)
    if (keys === undefined) this.#sessions.set(id, new Set([key]))
    else keys.add(key)
  }

  forget (id: string): void {
    for (const key of this.#sessions.get(id) ?? []) this.tokens.delete(key)
    this.#sessions.delete(id)
  }
}

/** Whether the token has expired, or was not used for too long: another token of its session may have been, which the store knows. */
function isOver ({ validUntil, idleTimeout, usedAt }: CachedToken, now: number): boolean {
  return now >= validUntil || now - usedAt >= idleTimeout
}
