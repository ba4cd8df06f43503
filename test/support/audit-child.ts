// One instance of a service that records as fast as it can, and says what it was told is on record. Started by tests, and killed.
import Fastify from 'fastify'
import pg from 'pg'
import audit, { sqlLedger } from '../../plugins/audit/index.ts'
import tokenRegistry from '../../plugins/token-registry/index.ts'

const { url, secret } = JSON.parse(process.argv[2] ?? '') as { url: string, secret: string }
const app = Fastify()
await app.register(tokenRegistry, { secret })
await app.register(audit, { ledger: sqlLedger(new pg.Pool({ connectionString: url, max: 4, connectionTimeoutMillis: 5000 })), checkpointInterval: 100 })

let made = 0
await Promise.all(Array.from({ length: 100 }, async () => {
  for (;;) {
    const name = `${process.pid} ${made++}`
    await app.audit.record({ type: 'test', actor: { sub: `user ${made % 50}`, ip: '203.0.113.7' }, data: { name } }).then(() => console.log(name), () => {})
  }
}))
