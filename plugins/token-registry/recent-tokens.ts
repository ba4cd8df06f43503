import type { CachedToken } from './cache.ts'

/**
 * The tokens that were used a short while ago, in front of the cache's own maps. Those hash the whole of a token, which takes as long as all else
 * that a hit does; here five of its last characters, which nobody chooses in a signed token, lead to the one token that may stand there, and the comparison of
 * the two decides. Of two that share them the later one stays: the other is found in the maps.
 */
export class RecentTokens {
  readonly #tokens = new Map<number, CachedToken>()

  get (key: string): CachedToken | undefined {
    const cached = this.#tokens.get(tailOf(key))
    return cached !== undefined && cached.key === key ? cached : undefined
  }

  set (cached: CachedToken): void {
    this.#tokens.set(tailOf(cached.key), cached)
  }

  delete (cached: CachedToken): void {
    const tail = tailOf(cached.key)
    if (this.#tokens.get(tail) === cached) this.#tokens.delete(tail)
  }

  clear (): void {
    this.#tokens.clear()
  }
}

/** 30 bits: a small integer, which a map needs not hash. The very last character is left out, since it may hold two bits only. */
function tailOf (key: string): number {
  const end = key.length - 2
  return (key.charCodeAt(end) ^ key.charCodeAt(end - 1) << 6 ^ key.charCodeAt(end - 2) << 12 ^ key.charCodeAt(end - 3) << 18 ^ key.charCodeAt(end - 4) << 24) & 0x3fffffff
}
