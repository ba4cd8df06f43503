import { emptyRoot, Frontier, HASH } from './merkle.ts'

/** Leaves of a tile. */
export const TILE = 256
/** Tiles that are remembered. */
const REMEMBERED = 1024
/** Leaves at the right edge of which everything is known. */
export const WINDOW = TILE * REMEMBERED

interface Tile {
  from: number
  /** Of the tree before it. */
  before: Frontier
  hashes: Buffer
}

/** A tree that grows, and what its root was: as far back as {@link WINDOW}, in flat memory. */
export class Roots {
  readonly #frontier = Frontier.from()
  readonly #tiles: Tile[] = []
  /** Tiles before those. */
  #forgotten = 0
  /** The tree as it was where it was asked last: the next question is mostly about a little later. */
  #last: Frontier = Frontier.from()

  get size (): number {
    return this.#frontier.size
  }

  append (hash: Uint8Array): void {
    const { size } = this.#frontier
    if (size % TILE === 0) this.#tiles.push({ from: size, before: this.#frontier.copy(), hashes: Buffer.alloc(TILE * HASH) })
    if (this.#tiles.length > REMEMBERED) this.#forget()
    this.#tiles.at(-1)?.hashes.set(hash, size % TILE * HASH)
    this.#frontier.append(hash)
  }

  /** What was appended at a place; undefined where that is forgotten, or not reached. */
  hashAt (index: number): Uint8Array | undefined {
    const tile = index < this.size ? this.#tileOf(index) : undefined
    return tile === undefined ? undefined : hashIn(tile, index)
  }

  /** @param size at most that of the tree @returns null where that is forgotten */
  rootAt (size: number): Buffer | null {
    if (size === this.size) return this.#frontier.root()
    const tile = this.#tileOf(size)
    if (tile === undefined) return size === 0 ? emptyRoot : null
    if (this.#last.size < tile.from || this.#last.size > size) this.#last = tile.before.copy()
    while (this.#last.size < size) this.#last.append(hashIn(tile, this.#last.size))
    return this.#last.root()
  }

  root (): Buffer {
    return this.#frontier.root()
  }

  #forget (): void {
    this.#tiles.shift()
    this.#forgotten++
  }

  #tileOf (index: number): Tile | undefined {
    return this.#tiles[Math.floor(index / TILE) - this.#forgotten]
  }
}

function hashIn ({ from, hashes }: Tile, index: number): Uint8Array {
  return hashes.subarray((index - from) * HASH, (index - from + 1) * HASH)
}
