// Appends to an audit log in PostgreSQL: `AUDIT_DATABASE_URL=postgresql://… npx tsx bench/audit-append.ts [entries]`
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import audit, { sqlLedger } from 'fastify-token-registry/audit'
import pg from 'pg'

const [entries = 200_000] = process.argv.slice(2).map(Number)
const pool = new pg.Pool({ connectionString: process.env['AUDIT_DATABASE_URL'], max: 4 })
const tables = `bench_${randomBytes(4).toString('hex')}`
const app = Fastify()
await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64') })
await app.register(audit, { ledger: sqlLedger(pool, { tables }), maxQueue: 5000 })
let sent = 0
const began = performance.now()
await Promise.all(Array.from({ length: 2000 }, async (_, i) => {
  while (sent++ < entries) await app.audit.record({ type: 'session.start', actor: { sub: `user ${i}`, ip: '203.0.113.7', userAgent: 'Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0' }, target: { kind: 'session', id: '1Kz4_7cpHvAsp864SZoUrGX8', sub: `user ${i}` }, requestId: `req-${sent}`, data: { use: 'session' } })
}))
const seconds = (performance.now() - began) / 1000
console.log(`${Math.round(entries / seconds)} entries a second`)
await app.close()
await pool.query(`drop table ${['head', 'entries', 'tiles', 'checkpoints', 'keys'].map(name => `${tables}_${name}`).join(', ')}`)
await pool.end()
