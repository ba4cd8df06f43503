import { hash } from 'node:crypto'

/** Bytes of a hash: SHA-256. */
export const HASH = 32

/** RFC 6962 §2.1. @param leaf text counts as UTF-8 */
export function leafHash (leaf: string | Uint8Array): Buffer {
  return sha256(typeof leaf === 'string' ? `\0${leaf}` : Buffer.concat([LEAF, leaf]))
}

/** RFC 6962 §2.1. @throws {RangeError} where one is not of 32 bytes */
export function nodeHash (left: Uint8Array, right: Uint8Array): Buffer {
  if (left.length !== HASH || right.length !== HASH) throw new RangeError('a hash has 32 bytes')
  pair.set(left, 1)
  pair.set(right, 1 + HASH)
  return sha256(pair)
}

/** Root of the tree that has no leaf. */
export const emptyRoot: Buffer = sha256('')

const LEAF = Buffer.of(0)
const pair = Buffer.alloc(1 + 2 * HASH, 1)

/** A tree without its inside: the roots of the complete subtrees at its right edge, the largest first. Enough to append to it, and for its root. */
export class Frontier {
  readonly #roots: Buffer[]
  #size: number

  private constructor (size: number, roots: Buffer[]) {
    this.#size = size
    this.#roots = roots
  }

  /**
   * @param size leaves
   * @param bytes 32 for each bit that is set in `size`
   * @throws {RangeError}
   */
  static from (size = 0, bytes: Uint8Array = Buffer.alloc(0)): Frontier {
    if (!Number.isSafeInteger(size) || size < 0 || bytes.length !== HASH * bitsIn(size)) throw new RangeError(`the frontier of ${size} leaves has not ${bytes.length} bytes`)
    return new Frontier(size, Array.from({ length: bytes.length / HASH }, (_, index) => Buffer.from(bytes.subarray(index * HASH, (index + 1) * HASH))))
  }

  get size (): number {
    return this.#size
  }

  /** @throws {RangeError} where it is not of 32 bytes */
  append (hash: Uint8Array): void {
    if (hash.length !== HASH) throw new RangeError('a hash has 32 bytes')
    let root: Buffer = Buffer.from(hash)
    // Each bit at the end that is set is a subtree that is now complete with another one.
    for (let rest = this.#size; rest % 2 === 1; rest = (rest - 1) / 2) root = nodeHash(this.#roots.pop() as Buffer, root) // one for each bit
    this.#roots.push(root)
    this.#size++
  }

  root (): Buffer {
    return this.#roots.reduceRight<Buffer | null>((right, left) => right === null ? left : nodeHash(left, right), null) ?? emptyRoot
  }

  toBytes (): Buffer {
    return Buffer.concat(this.#roots)
  }

  copy (): Frontier {
    return new Frontier(this.#size, [...this.#roots])
  }
}

function sha256 (data: string | Uint8Array): Buffer {
  // As text and back: half the time, and no memory of its own outside the heap, for each hash.
  return Buffer.from(hash('sha256', data, 'binary'), 'binary')
}

/** Of a whole number, which may be too large for the operators on bits. */
function bitsIn (number: number): number {
  let bits = 0
  for (let rest = number; rest > 0; rest = Math.floor(rest / 2)) bits += rest % 2
  return bits
}
