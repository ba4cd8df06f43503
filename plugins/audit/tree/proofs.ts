import type { Tile } from '../ledger.ts'
import { emptyRoot, Frontier, nodeHash } from '../verify/index.ts'
import { hashesIn } from './appender.ts'
import { TILE, TILE_HEIGHT } from './tile.ts'

/** Where hashes are read from. */
export interface HashReader {
  tiles (wanted: ReadonlyArray<Pick<Tile, 'level' | 'index'>>): Promise<ReadonlyArray<Uint8Array | undefined>>
  /** Of entries, whose tile is not complete. @param to exclusive; at most 256 after `from` */
  leafHashes (from: number, to: number): Promise<readonly Uint8Array[]>
}

/** Leaves from the first to before the second. */
type Range = readonly [number, number]

/**
 * That a leaf is in a tree: RFC 6962 §2.1.1.
 *
 * @returns hashes from the leaf to the root
 * @throws {RangeError}
 * @throws {TypeError} where hashes are not there
 */
export async function inclusionProof (index: number, size: number, reader: HashReader): Promise<{ leafHash: Uint8Array, proof: Uint8Array[] }> {
  if (!isSize(size) || !isSize(index) || index >= size) throw new RangeError(`index is ${index} and size ${size}: index may be 0 to size - 1`)
  const ranges: Range[] = []
  let [from, to] = [0, size]
  while (to - from > 1) {
    const middle = from + largestBelow(to - from)
    ranges.push(index < middle ? [middle, to] : [from, middle])
    if (index < middle) to = middle
    else from = middle
  }
  const [leafHash, ...proof] = await roots([[index, index + 1], ...ranges.reverse()], size, reader)
  return { leafHash: leafHash as Uint8Array, proof } // the first range's
}

/**
 * That a tree begins with a smaller one: RFC 6962 §2.1.2.
 *
 * @throws {RangeError}
 * @throws {TypeError} where hashes are not there
 */
export async function consistencyProof (from: number, to: number, reader: HashReader): Promise<Uint8Array[]> {
  if (!isSize(from) || !isSize(to) || from < 1 || from > to) throw new RangeError(`from is ${from} and to ${to}: from may be 1 to to`)
  const ranges: Range[] = []
  let [start, end, whole] = [0, to, true]
  while (from < end) {
    const middle = start + largestBelow(end - start)
    if (from <= middle) {
      ranges.push([middle, end])
      end = middle
    } else {
      ranges.push([start, middle])
      start = middle
      whole = false
    }
  }
  if (!whole) ranges.push([start, end])
  return await roots(ranges.reverse(), to, reader)
}

/**
 * What the root was of so many entries.
 *
 * @throws {RangeError}
 */
export async function rootAt (size: number, reader: HashReader): Promise<Uint8Array> {
  if (!isSize(size)) throw new RangeError(`size is ${size}: it may be a whole number from 0`)
  const [root] = size === 0 ? [] : await roots([[0, size]], size, reader)
  return root ?? emptyRoot
}

/** The root of each range: one call for tiles, and one for the entries whose tile is not complete. @throws {TypeError} where hashes are missing */
async function roots (ranges: readonly Range[], size: number, reader: HashReader): Promise<Uint8Array[]> {
  const nodes = ranges.map(nodesOf)
  const wanted = new Map(nodes.flat().map(node => [keyOf(node), { level: node.level, index: node.index }]))
  const found = wanted.size === 0 ? [] : await reader.tiles([...wanted.values()])
  const tiles = new Map(await Promise.all([...wanted].map(async ([key, { level, index }], place) => {
    const bytes = found[place]
    if (bytes === undefined && level === 0) return [key, await reader.leafHashes(index * TILE, Math.min(size, (index + 1) * TILE))] as const
    return [key, hashesIn(bytes ?? new Uint8Array())] as const
  })))
  return nodes.map(ofRange => {
    const subtrees = ofRange.map(node => rootOf(hashesOf(node, tiles.get(keyOf(node)))))
    return subtrees.reduceRight((right, left) => nodeHash(left, right))
  })
}

/** A complete subtree, as hashes of a tile. */
interface Node {
  /** Of its tile. */
  level: number
  index: number
  first: number
  count: number
}

/** The complete subtrees of a range, the largest first: it begins where a subtree of its size can. */
function nodesOf ([from, to]: Range): Node[] {
  const nodes: Node[] = []
  for (let start = from; start < to;) {
    let [height, leaves] = [0, 1]
    while (start % (2 * leaves) === 0 && start + 2 * leaves <= to) {
      leaves *= 2
      height++
    }
    const level = Math.floor(height / TILE_HEIGHT)
    const place = start / TILE ** level
    nodes.push({ level, index: Math.floor(place / TILE), first: place % TILE, count: 2 ** (height % TILE_HEIGHT) })
    start += leaves
  }
  return nodes
}

function keyOf ({ level, index }: Node): string {
  return `${level} ${index}`
}

function hashesOf ({ level, index, first, count }: Node, tile: readonly Uint8Array[] = []): readonly Uint8Array[] {
  const hashes = tile.slice(first, first + count)
  if (hashes.length < count) throw new TypeError(`hashes ${first} to ${first + count - 1} of tile ${index} of level ${level} are not there`)
  return hashes
}

function rootOf (hashes: readonly Uint8Array[]): Uint8Array {
  const frontier = Frontier.from()
  for (const hash of hashes) frontier.append(hash)
  return frontier.root()
}

function isSize (value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

/** The largest power of two that is smaller. */
function largestBelow (size: number): number {
  let power = 1
  while (power * 2 < size) power *= 2
  return power
}
