import { randomBytes } from 'node:crypto'
import { setImmediate, setTimeout as after } from 'node:timers/promises'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import { longestPause } from './pauses.ts'

// A million sessions in memory, in a process of their own with --expose-gc: what they take, and what it takes to see them expire.

export interface Million {
  /** Bytes a session, its meta included: on the heap, and in buffers beside it. */
  heap: number
  buffers: number
  /** The longest time that nothing else could run while all of them expired and were removed: ms, garbage collection left out. */
  longestSlice: number
  /** ms until the last of them was gone */
  cleanup: number
}

const SESSIONS = 1_000_000
const SUBJECTS = 250_000
const META_BYTES = 300
const BATCH = 1000
/** ms after the first is issued, by when all of them have been */
const LIFETIME = 90_000

const collect = globalThis.gc
if (collect === undefined) throw new Error('run with --expose-gc')

/** What lives: without what is only waiting to be collected. */
function memory (): { heap: number, buffers: number } {
  collect?.()
  collect?.()
  const { heapUsed, external } = process.memoryUsage()
  return { heap: heapUsed, buffers: external }
}

const app = Fastify()
await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64') })
await app.ready()
const { tokenRegistry: registry } = app

/** 300 bytes as JSON, and like no other. */
function metaOf (i: number): { ipAddress: string, userAgent: string, note: string } {
  const meta = {
    ipAddress: `10.${i >> 16 & 255}.${i >> 8 & 255}.${i & 255}`,
    userAgent: `Mozilla/5.0 (X11; Linux x86_64; rv:${i % 140}.0) Gecko/20100101 Firefox/${i % 140}.0`,
    note: ''
  }
  return { ...meta, note: String(i).padEnd(META_BYTES - JSON.stringify(meta).length, '.') }
}

async function fill (deadline: number): Promise<void> {
  for (let i = 0; i < SESSIONS; i += BATCH) {
    const batch = Array.from({ length: BATCH }, (_, j) => i + j)
    await Promise.all(batch.map(async n => await registry.issue({ sub: `user-${n % SUBJECTS}`, ttl: deadline - Date.now(), meta: metaOf(n) })))
    await setImmediate()
  }
}

const before = memory()
const deadline = Date.now() + LIFETIME
await fill(deadline)
const full = memory()
if (Date.now() > deadline) throw new Error(`this machine did not issue ${SESSIONS} sessions in ${LIFETIME / 1000} s`)

await after(deadline - Date.now())
const slice = await longestPause(async () => ((await registry.health()).sessions ?? 0) === 0)
process.send?.({
  heap: (full.heap - before.heap) / SESSIONS,
  buffers: (full.buffers - before.buffers) / SESSIONS,
  longestSlice: slice,
  cleanup: Date.now() - deadline
} satisfies Million)
process.once('disconnect', () => process.exit())
