import type { Head, StoredEntry, Tile } from '../ledger.ts'
import { Frontier, HASH } from '../verify/index.ts'
import { TILE } from './tile.ts'

/** What a tree is loaded from. */
export interface TreeReader {
  entriesFrom (seq: number): Promise<ReadonlyArray<Pick<StoredEntry, 'hash'>>>
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

  /** Reads fewer than 256 entries, and a tile a level: of a million entries two. */
  static async load ({ size }: Pick<Head, 'size'>, reader: TreeReader): Promise<TreeAppender> {
    const entries = size % TILE === 0 ? [] : await reader.entriesFrom(size - size % TILE)
    const wanted: Array<Pick<Tile, 'level' | 'index'>> = []
    for (let [level, count] = [1, Math.floor(size / TILE)]; count > 0; [level, count] = [level + 1, Math.floor(count / TILE)]) wanted.push({ level, index: Math.floor(count / TILE) })
    const tiles = wanted.length === 0 ? [] : await reader.tiles(wanted)
    let count = size
    const edges = [Buffer.concat(entries.map(({ hash }) => hash)), ...tiles].map(bytes => {
      const hashes = hashesIn(bytes ?? Buffer.alloc(0)).slice(0, count % TILE)
      count = Math.floor(count / TILE)
      return edgeOf(hashes)
    })
    return new TreeAppender(size, edges)
  }

  /** @returns the tree after that, and what has to be stored of it: `frontier` as `Head` has it */
  append (hashes: readonly Uint8Array[]): { appender: TreeAppender, frontier: Uint8Array, tiles: Tile[] } {
    const growing = new Growing(this.size, this.#edges)
    for (const hash of hashes) growing.add(0, hash)
    const appender = new TreeAppender(this.size + hashes.length, growing.edges)
    return { appender, frontier: appender.#frontier(), tiles: growing.tiles(appender.size) }
  }

  #frontier (): Uint8Array {
    return Buffer.concat(this.#edges.map(({ frontier }) => frontier.toBytes()).reverse())
  }
}

class Growing {
  readonly edges: Array<{ hashes: Uint8Array[], frontier: Frontier }>
  readonly #complete: Tile[] = []
  /** Places of tiles of each level, by the entries that the tree had. */
  readonly #counts: number[]
  readonly #grown = new Set<number>()

  constructor (size: number, edges: readonly Edge[]) {
    this.edges = edges.map(({ hashes, frontier }) => ({ hashes: [...hashes], frontier: frontier.copy() }))
    this.#counts = edges.map((_, level) => Math.floor(size / TILE ** (level + 1)))
  }

  /** Adds to the tile at the edge of a level; where that is complete, its root to the level above. */
  add (level: number, hash: Uint8Array): void {
    const edge = this.edges[level] ??= { hashes: [], frontier: Frontier.from() }
    edge.hashes.push(hash)
    edge.frontier.append(hash)
    if (level > 0) this.#grown.add(level)
    if (edge.hashes.length < TILE) return
    const index = this.#counts[level] ?? 0
    this.#counts[level] = index + 1
    this.#complete.push({ level, index, hashes: Buffer.concat(edge.hashes) })
    this.edges[level] = { hashes: [], frontier: Frontier.from() }
    this.add(level + 1, edge.frontier.root())
  }

  /** Complete ones, and those of the levels above the first that have grown. */
  tiles (size: number): Tile[] {
    const partial = [...this.#grown].flatMap(level => {
      const hashes = this.edges[level]?.hashes ?? []
      return hashes.length === 0 ? [] : [{ level, index: Math.floor(size / TILE ** (level + 1)), hashes: Buffer.concat(hashes) }]
    })
    return [...this.#complete, ...partial]
  }
}

function edgeOf (hashes: readonly Uint8Array[]): Edge {
  const frontier = Frontier.from()
  for (const hash of hashes) frontier.append(hash)
  return { hashes, frontier }
}

export function hashesIn (bytes: Uint8Array): Uint8Array[] {
  return Array.from({ length: bytes.length / HASH }, (_, index) => bytes.subarray(index * HASH, (index + 1) * HASH))
}
