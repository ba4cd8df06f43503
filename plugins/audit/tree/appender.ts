import type { Head, StoredEntry, Tile } from '../ledger.ts'
import { Frontier, HASH } from '../verify/index.ts'
import { TILE } from './tile.ts'

/** What a tree is loaded from. */
export interface TreeReader {
  entries (from: number, to: number): Promise<ReadonlyArray<Pick<StoredEntry, 'hash'>>>
  tiles (wanted: ReadonlyArray<Pick<Tile, 'level' | 'index'>>): Promise<ReadonlyArray<Uint8Array | undefined>>
}

/** Hashes of the tile at the right edge of a level: fewer than 256. */
interface Edge {
  hashes: readonly Uint8Array[]
  frontier: Frontier
}

/** A tree as far as it is needed to append to it: the tiles at its right edge, one a level. It never changes. */
export class TreeAppender {
  /** Entries. */
  readonly size: number
  /** By level; those that are missing are empty. */
  readonly #edges: readonly Edge[]

  private constructor (size: number, edges: readonly Edge[]) {
    this.size = size
    this.#edges = edges
  }

  /**
   * Reads fewer than 256 entries, and a tile a level: of a million entries two.
   *
   * @throws {TypeError} where they are not those of which `head` is: whoever appends to them would sign what was altered
   */
  static async load ({ size, frontier }: Pick<Head, 'size' | 'frontier'>, reader: TreeReader): Promise<TreeAppender> {
    const [entries, ...tiles] = edgesOf(size)
    // One after the other: a connection to a database takes one query at a time.
    const leaves = entries === undefined || entries.count === 0 ? [] : await reader.entries(size - entries.count, size)
    const above = tiles.length === 0 ? [] : await reader.tiles(tiles.map(({ level, index }) => ({ level, index })))
    const edges = [leaves.map(({ hash }) => hash), ...tiles.map(({ count }, place) => hashesIn(above[place] ?? new Uint8Array()).slice(0, count))].map(edgeOf)
    const appender = new TreeAppender(size, edges)
    const isWhole = edges.every(({ hashes }, level) => hashes.length === Math.floor(size / TILE ** level) % TILE)
    if (!isWhole || !appender.#frontier().equals(frontier)) throw new TypeError(`the hashes at the end of the log are not those of its ${size} entries: they were altered, or are of another log`)
    return appender
  }

  /** @returns the tree after that, and what has to be stored of it: `frontier` as `Head` has it */
  append (hashes: readonly Uint8Array[]): { appender: TreeAppender, frontier: Uint8Array, tiles: Tile[] } {
    const growing = new Growing(this.size, this.#edges)
    for (const hash of hashes) growing.append(hash)
    const appender = new TreeAppender(growing.size, growing.edges)
    return { appender, frontier: appender.#frontier(), tiles: growing.tiles() }
  }

  #frontier (): Buffer {
    return Buffer.concat(this.#edges.map(({ frontier }) => frontier.toBytes()).reverse())
  }
}

class Growing {
  readonly edges: Array<{ hashes: Uint8Array[], frontier: Frontier }>
  readonly #complete: Tile[] = []
  /** Levels above the first whose tile at the edge has grown. */
  readonly #grown = new Set<number>()
  size: number

  constructor (size: number, edges: readonly Edge[]) {
    this.size = size
    this.edges = edges.map(({ hashes, frontier }) => ({ hashes: [...hashes], frontier: frontier.copy() }))
  }

  append (hash: Uint8Array): void {
    this.size++
    this.#add(0, hash)
  }

  /** Complete ones, and those of the levels above the first that have grown. */
  tiles (): Tile[] {
    const partial = [...this.edges.entries()].filter(([level, { hashes }]) => this.#grown.has(level) && hashes.length > 0)
    return [...this.#complete, ...partial.map(([level, { hashes }]) => ({ level, index: Math.floor(this.size / TILE ** (level + 1)), hashes: Buffer.concat(hashes) }))]
  }

  /** Adds to the tile at the edge of a level; where that is complete, its root to the level above. */
  #add (level: number, hash: Uint8Array): void {
    const edge = this.edges[level] ??= { hashes: [], frontier: Frontier.from() }
    edge.hashes.push(hash)
    edge.frontier.append(hash)
    if (level > 0) this.#grown.add(level)
    if (edge.hashes.length < TILE) return
    this.#complete.push({ level, index: this.size / TILE ** (level + 1) - 1, hashes: Buffer.concat(edge.hashes) })
    this.edges[level] = { hashes: [], frontier: Frontier.from() }
    this.#add(level + 1, edge.frontier.root())
  }
}

/** Of each level up to the root the tile at the right edge, and how many hashes it has: fewer than 256. */
function edgesOf (size: number): Array<Pick<Tile, 'level' | 'index'> & { count: number }> {
  const edges = []
  for (let [level, count] = [0, size]; count > 0; [level, count] = [level + 1, Math.floor(count / TILE)]) edges.push({ level, index: Math.floor(count / TILE), count: count % TILE })
  return edges
}

function edgeOf (hashes: readonly Uint8Array[]): Edge {
  const frontier = Frontier.from()
  for (const hash of hashes) frontier.append(hash)
  return { hashes, frontier }
}

export function hashesIn (bytes: Uint8Array): Uint8Array[] {
  return Array.from({ length: bytes.length / HASH }, (_, index) => bytes.subarray(index * HASH, (index + 1) * HASH))
}
