import { HASH, nodeHash } from './merkle.ts'

/** Hashes of a proof. */
const LONGEST = 54

export interface Inclusion {
  /** of the leaf, from 0 */
  index: number
  /** leaves of the tree */
  size: number
  leafHash: Uint8Array
  /** from the leaf to the root */
  proof: readonly Uint8Array[]
  root: Uint8Array
}

export interface Consistency {
  /** leaves of the smaller tree, 1 at least */
  from: number
  /** leaves of the larger one */
  to: number
  proof: readonly Uint8Array[]
  fromRoot: Uint8Array
  toRoot: Uint8Array
}

/** Whether a leaf is in a tree: RFC 9162 §2.1.3.2. Nothing that is passed in makes it throw. */
export function verifyInclusion ({ index, size, leafHash, proof, root }: Inclusion): boolean {
  if (!isSize(index) || !isSize(size) || index >= size || ![leafHash, root].every(isHash) || !isPath(proof)) return false
  let [node, last, hash] = [index, size - 1, leafHash]
  for (const sibling of proof) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      hash = nodeHash(sibling, hash)
      for (; node % 2 === 0 && node > 0; node /= 2) last = half(last)
    } else {
      hash = nodeHash(hash, sibling)
    }
    node = half(node)
    last = half(last)
  }
  return last === 0 && isSame(hash, root)
}

/** Whether a tree begins with a smaller one: RFC 9162 §2.1.4.2. The tree without leaves proves nothing. Nothing that is passed in makes it throw. */
export function verifyConsistency ({ from, to, proof, fromRoot, toRoot }: Consistency): boolean {
  if (!isSize(from) || !isSize(to) || from < 1 || from > to || ![fromRoot, toRoot].every(isHash) || !isPath(proof)) return false
  if (from === to) return proof.length === 0 && isSame(fromRoot, toRoot)
  const path = isPowerOfTwo(from) ? [fromRoot, ...proof] : [...proof]
  const [first] = path
  if (first === undefined) return false
  let [node, last] = [from - 1, to - 1]
  for (; node % 2 === 1; node = half(node)) last = half(last)
  let [smaller, larger] = [first, first]
  for (const sibling of path.slice(1)) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      smaller = nodeHash(sibling, smaller)
      larger = nodeHash(sibling, larger)
      for (; node % 2 === 0 && node > 0; node /= 2) last = half(last)
    } else {
      larger = nodeHash(larger, sibling)
    }
    node = half(node)
    last = half(last)
  }
  return last === 0 && isSame(smaller, fromRoot) && isSame(larger, toRoot)
}

/** A tree has fewer than 2^53 leaves, and a proof of consistency one hash more than levels. */
function isPath (value: unknown): value is readonly Uint8Array[] {
  return Array.isArray(value) && value.length <= LONGEST && value.every(isHash)
}

function isSize (value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

function isHash (value: unknown): value is Uint8Array {
  return value instanceof Uint8Array && value.length === HASH
}

function isSame (a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

function isPowerOfTwo (number: number): boolean {
  return 2 ** Math.round(Math.log2(number)) === number
}

function half (number: number): number {
  return Math.floor(number / 2)
}
