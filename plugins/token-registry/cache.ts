import type { Auth } from './auth.ts'
import { RecentTokens } from './recent-tokens.ts'
import type { SessionRecord } from './record.ts'
import type { TokenStore } from './store.ts'

/** A token that proved a session, and its last use as this process knows it. */
export interface CachedToken {
  /** As presented: see `keyOf`. */
  readonly key: string
  readonly auth: Auth
  /** Before this time it is valid and its use need not be noted: whole seconds since the epoch, which V8 keeps in the object itself. */
  freshUntil: number
  /** ms since the epoch by the store's clock: the deadline of the session, of the token, or of the reuse window. */
  readonly validUntil: number
  /** When its session was read, by the monotonic clock. */
  readonly readAt: number
  /** ms; Infinity where the session has no idle timeout */
  readonly idleTimeout: number
  usedAt: number
}

export interface CacheStats {
  hits: number
  misses: number
  /** misses while nobody would tell that a session ended */
  bypassed: number
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
  readonly stats: CacheStats = { hits: 0, misses: 0, bypassed: 0, invalidations: 0 }
  readonly #store: Pick<TokenStore, 'now' | 'staleness'>
  readonly #half: number
  readonly #maxStaleness: number
  readonly #reads = new Map<string, Read>()
  /** Some of the young. */
  readonly #recent = new RecentTokens()
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

  /** A token that is known for certain, has not expired, and was used so short a while ago that this use need not be noted. */
  fresh (key: string): CachedToken | undefined {
    const cached = this.#recent.get(key)
    if (cached === undefined || !(this.#store.now() / 1000 < cached.freshUntil) || !this.#coherent()) return undefined
    this.stats.hits++
    return cached
  }

  /** A token that is known for certain and has not expired; `alone`: that proves its session by itself. */
  lookup (key: string, alone = false): CachedToken | undefined {
    const cached = this.#find(key)
    if (cached === undefined || (alone && cached.auth.session.binding !== null) || isOver(cached, this.#store.now()) || !this.#coherent()) return undefined
    this.stats.hits++
    return cached
  }

  /** Notes a use of a token that is kept: until `freshUntil`, ms since the epoch, the next need not be. */
  used (cached: CachedToken, at: number, freshUntil: number): void {
    cached.usedAt = at
    cached.freshUntil = Math.floor(Math.min(cached.validUntil, freshUntil) / 1000)
    // Where nothing is kept, to look would cost a hash.
    if (this.#young.tokens.size > 0 && this.#young.tokens.get(cached.key) === cached) this.#recent.set(cached)
  }

  /** What a token proved when the store was last heard of, at most `age` ms ago. */
  stale (key: string, age: number): CachedToken | undefined {
    const cached = this.#find(key)
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
    if (!coherent && this.#half > 0) this.stats.bypassed++
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
    // In this order: what a hit looks at lies together in memory.
    const cached = { key, auth, freshUntil: 0, validUntil, readAt: read.at, idleTimeout: auth.session.idleTimeout ?? Infinity, usedAt: this.#store.now() }
    if (read.alive && this.#half > 0) this.#put(cached)
    return cached
  }

  invalidate (ids: readonly string[] | 'all'): void {
    this.stats.invalidations++
    if (ids === 'all') {
      for (const read of this.#reads.values()) read.alive = false
      this.#reads.clear()
      this.#young = new Generation()
      this.#old = new Generation()
      this.#recent.clear()
      return
    }
    for (const id of ids) {
      const read = this.#reads.get(id)
      if (read !== undefined) {
        read.alive = false
        this.#reads.delete(id)
      }
      for (const cached of this.#young.forget(id)) this.#recent.delete(cached)
      this.#old.forget(id)
    }
  }

  #coherent (): boolean {
    return this.#store.staleness <= this.#maxStaleness
  }

  #find (key: string): CachedToken | undefined {
    return this.#young.tokens.get(key) ?? this.#broughtBack(key)
  }

  #broughtBack (key: string): CachedToken | undefined {
    const cached = this.#old.tokens.get(key)
    if (cached === undefined) return undefined
    this.#old.remove(cached)
    this.#put(cached)
    return cached
  }

  #put (cached: CachedToken): void {
    if (this.#young.tokens.size >= this.#half) {
      this.#old = this.#young
      this.#young = new Generation()
      this.#recent.clear()
    }
    const replaced = this.#young.add(cached)
    if (replaced !== undefined) this.#recent.delete(replaced)
  }
}

class Generation {
  readonly tokens = new Map<string, CachedToken>()
  readonly #sessions = new Map<string, Set<CachedToken>>()

  /** @returns the one that had the key before */
  add (cached: CachedToken): CachedToken | undefined {
    const replaced = this.tokens.get(cached.key)
    if (replaced !== undefined) this.remove(replaced)
    this.tokens.set(cached.key, cached)
    const { id } = cached.auth.session
    const tokens = this.#sessions.get(id)
    if (tokens === undefined) this.#sessions.set(id, new Set([cached]))
    else tokens.add(cached)
    return replaced
  }

  remove (cached: CachedToken): void {
    this.tokens.delete(cached.key)
    const { id } = cached.auth.session
    const tokens = this.#sessions.get(id)
    if (tokens?.delete(cached) === true && tokens.size === 0) this.#sessions.delete(id)
  }

  /** @returns the tokens of a session, which are here no longer */
  forget (id: string): Iterable<CachedToken> {
    const forgotten = this.#sessions.get(id) ?? []
    for (const { key } of forgotten) this.tokens.delete(key)
    this.#sessions.delete(id)
    return forgotten
  }
}

/** Whether the token has expired, or was not used for too long: another token of its session may have been, which the store knows. */
function isOver ({ validUntil, idleTimeout, usedAt }: CachedToken, now: number): boolean {
  return now >= validUntil || now - usedAt >= idleTimeout
}
