// A long audit log in PostgreSQL: proofs, verification, searches: `npm run build && AUDIT_DATABASE_URL=postgresql://… npx tsx bench/audit-log.ts [entries]`
import { randomBytes, randomInt } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import audit, { sqlLedger } from 'fastify-token-registry/audit'
import pg from 'pg'
import { median } from './statistics.ts'

const [entries = 1_000_000] = process.argv.slice(2).map(Number)
const PROOFS = 200
/** Entries that are recorded at once. */
const AT_ONCE = 2000

const pool = new pg.Pool({ connectionString: process.env['AUDIT_DATABASE_URL'], max: 4, connectionTimeoutMillis: 5000 })
const tables = `bench_${randomBytes(4).toString('hex')}`
let reads = 0
pool.on('acquire', () => { reads++ })
const app = Fastify()
await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64') })
await app.register(audit, { ledger: sqlLedger(pool, { tables }) })

let sent = 1
await Promise.all(Array.from({ length: AT_ONCE }, async (_, user) => {
  while (sent++ < entries) {
    const op = randomBytes(9).toString('base64url')
    const event = {
      actor: { sub: `user ${user}`, ip: '203.0.113.7', userAgent: 'Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0' },
      target: { kind: 'session', id: randomBytes(18).toString('base64url'), sub: `user ${user}` },
      requestId: `req-${sent}`
    }
    await app.audit.record({ ...event, type: 'intent', data: { operation: 'issue' } }, op)
    if (sent++ < entries) await app.audit.record({ ...event, type: 'session.start', data: { use: 'session' } }, op)
  }
}))
const { rows: [head] } = await pool.query<{ size: string }>(`select size from ${tables}_head`)
const size = Number(head?.size)
await pool.query(`vacuum analyze ${tables}_entries`)

async function timed (name: string, work: () => Promise<unknown>): Promise<void> {
  const times: number[] = []
  const before = reads
  for (let i = 0; i < PROOFS; i++) {
    const began = performance.now()
    await work()
    times.push(performance.now() - began)
  }
  console.log(`${name}: median ${median(times).toFixed(2)} ms, longest ${Math.max(...times).toFixed(2)} ms, ${((reads - before) / PROOFS).toFixed(1)} statements`)
}

console.log(`${size} entries`)
await timed('inclusion proof', async () => await app.audit.inclusionProof(randomInt(size), size))
await timed('consistency proof', async () => await app.audit.consistencyProof(randomInt(1, size), size))
await timed('100 newest entries', async () => await app.audit.entries())
await timed('100 entries of a person', async () => await app.audit.entries({ sub: `user ${randomInt(AT_ONCE)}` }))
let most = 0
const sampling = setInterval(() => { most = Math.max(most, process.memoryUsage().rss) }, 50)
const began = performance.now()
const verdict = await app.audit.verify()
clearInterval(sampling)
console.log(`verify: ${verdict.ok ? 'whole' : verdict.message}, ${Math.round(size / (performance.now() - began) * 1000)} entries a second, ${Math.round(most / 2 ** 20)} MiB at most`)
const looked = performance.now()
const unresolved = await app.audit.unresolved(Date.now() + 1000)
console.log(`unresolved: ${unresolved.length} in ${Math.round(performance.now() - looked)} ms`)

await app.close()
await pool.query(`drop table ${['head', 'entries', 'tiles', 'checkpoints', 'keys'].map(name => `${tables}_${name}`).join(', ')}`)
await pool.end()
