import type { CachedToken } from './cache.ts'

/** Slots at most: 8 bytes each. */
const MAX_SLOTS = 131_072

/**
 * The tokens that were used a short while ago, in front of the cache's maps. A map hashes the whole token and reaches for it by way of a bucket and
 * a chain; here a few of its last characters, which nobody chooses in a signed token, lead to the one token that may stand there, and the
 * comparison of the two decides. What a slot loses is found in the map.
 */
export class RecentTokens {
  readonly #slots: Array<CachedToken | undefined>
  readonly #mask: number

  /** @param max tokens that the cache keeps */
  constructor (max: number) {
    const slots = Math.min(MAX_SLOTS, 2 ** Math.ceil(Math.log2(Math.max(1, max))))
    this.#slots = new Array<undefined>(slots).fill(undefined)
    this.#mask = slots - 1
  }

  get (key: string): CachedToken | undefined {
    const cached = this.#slots[this.#slotOf(key)]
    return cached !== undefined && cached.key === key ? cached : undefined
  }

  set (cached: CachedToken): void {
    this.#slots[this.#slotOf(cached.key)] = cached
  }

  delete (cached: CachedToken): void {
    const slot = this.#slotOf(cached.key)
    if (this.#slots[slot] === cached) this.#slots[slot] = undefined
  }

  clear (): void {
    this.#slots.fill(undefined)
  }

  /** The very last character is left out: it may hold two bits only. */
  #slotOf (key: string): number {
    const end = key.length - 2
    return (key.charCodeAt(end) ^ key.charCodeAt(end - 1) << 4 ^ key.charCodeAt(end - 2) << 8 ^ key.charCodeAt(end - 3) << 12) & this.#mask
  }
}
