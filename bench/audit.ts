// What it costs to append to an audit log in PostgreSQL, beside plain inserts of as many lines: `npm run build && AUDIT_DATABASE_URL=postgresql://… npx tsx bench/audit.ts [entries]`
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import audit, { sqlLedger } from 'fastify-token-registry/audit'
import pg from 'pg'
import { median } from './statistics.ts'

const [entries = 50_000] = process.argv.slice(2).map(Number)
const ROUNDS = 7
/** Lines in one insert, and entries that are recorded at once. */
const [BATCH, AT_ONCE] = [500, 2000]

const pool = new pg.Pool({ connectionString: process.env['AUDIT_DATABASE_URL'], max: 4, connectionTimeoutMillis: 5000 })
const tables = `bench_${randomBytes(4).toString('hex')}`
const app = Fastify()
await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64') })
await app.register(audit, { ledger: sqlLedger(pool, { tables }) })
await pool.query(`create table ${tables}_plain (seq bigint primary key, leaf text not null)`)

async function record (): Promise<void> {
  let sent = 0
  await Promise.all(Array.from({ length: AT_ONCE }, async (_, user) => {
    while (sent++ < entries) {
      await app.audit.record({
        type: 'session.start',
        actor: { sub: `user ${user}`, ip: '203.0.113.7', userAgent: 'Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0' },
        target: { kind: 'session', id: randomBytes(18).toString('base64url'), sub: `user ${user}` },
        requestId: `req-${sent}`,
        data: { use: 'session' }
      })
    }
  }))
}

let lines = 0
async function insert (leaf: string): Promise<void> {
  for (let done = 0; done < entries; done += BATCH) {
    const batch = Array.from({ length: BATCH }, () => lines++)
    await pool.query(`insert into ${tables}_plain select * from unnest($1::bigint[], $2::text[])`, [batch, batch.map(() => leaf)])
  }
}

async function rateOf (work: () => Promise<void>): Promise<number> {
  const began = performance.now()
  await work()
  return entries / (performance.now() - began) * 1000
}

await record()
const { rows: [row] } = await pool.query<{ leaf: string }>(`select leaf from ${tables}_entries order by seq desc limit 1`)
const [appended, plain]: [number[], number[]] = [[], []]
for (let round = 0; round < ROUNDS; round++) {
  appended.push(await rateOf(record))
  plain.push(await rateOf(async () => await insert(row?.leaf ?? '')))
}
console.log(`${row?.leaf.length ?? 0} bytes an entry; appended ${Math.round(median(appended))} a second, plain inserts ${Math.round(median(plain))} a second: ${(median(appended) / median(plain)).toFixed(3)}`)
await app.close()
await pool.query(`drop table ${['head', 'entries', 'tiles', 'checkpoints', 'keys', 'plain'].map(name => `${tables}_${name}`).join(', ')}`)
await pool.end()
