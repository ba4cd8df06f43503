import { Frontier } from './merkle.ts'

/** Leaves of a tile. */
export const TILE = 256
/** Tiles that are remembered. */
const REMEMBERED = 1024

interface Tile {
  from: number
  /** Of the tree before it. */
  before: Frontier
  hashes: Uint8Array[]
}

/** A tree that grows, and what its root was: as far back as some hundred thousand leaves, in flat memory. */
export class Roots {
  readonly #frontier = Frontier.from()
  readonly #tiles: Tile[] = []
  /** The tree as it was where it was asked last: the next question is mostly about a little later. */
  #last: Frontier = Frontier.from()

  get size (): number {
    return this.#frontier.size
  }

  append (hash: Uint8Array): void {
    const { size } = this.#frontier
    if (size % TILE === 0) {
      this.#tiles.push({ from: size, before: this.#frontier.copy(), hashes: [] })
      if (this.#tiles.length > REMEMBERED) this.#tiles.shift()
    }
    this.#tiles.at(-1)?.hashes.push(hash)
    this.#frontier.append(hash)
  }

  /** What was appended at a place; undefined where that is forgotten. */
  hashAt (index: number): Uint8Array | undefined {
    return this.#tileOf(index)?.hashes[index % TILE]
  }

  /** @returns null where that is forgotten, or not reached */
  rootAt (size: number): Buffer | null {
    if (size === this.size) return this.#frontier.root()
    const tile = this.#tileOf(size)
    if (tile === undefined || size > this.size) return null
    if (this.#last.size < tile.from || this.#last.size > size) this.#last = tile.before.copy()
    while (this.#last.size < size) this.#last.append(tile.hashes[this.#last.size - tile.from] as Uint8Array) // as far as it reaches
    return this.#last.root()
  }

  root (): Buffer {
    return this.#frontier.root()
  }

  #tileOf (index: number): Tile | undefined {
    const [first] = this.#tiles
    return first === undefined ? undefined : this.#tiles[Math.floor(index / TILE) - first.from / TILE]
  }
}
