import { randomFillSync } from 'node:crypto'

const POOL = 4096
const pool = Buffer.alloc(POOL)
let used = POOL

/** Random bytes, drawn many at a time: to draw a few costs more than anything else in an entry. @param size at most 4096 */
export function randomBytes (size: number): Buffer {
  if (used + size > POOL) {
    randomFillSync(pool)
    used = 0
  }
  const bytes = Buffer.from(pool.subarray(used, used + size))
  pool.fill(0, used, used + size)
  used += size
  return bytes
}
