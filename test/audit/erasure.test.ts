import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify from 'fastify'
import pg from 'pg'
import t from 'tap'
import audit, { fileAnchor, fileSink, pinoSink, sqlLedger } from '../../plugins/audit/index.ts'
import { recordsOf, verifyLog } from '../../plugins/audit/verify/index.ts'
import tokenRegistry from '../../plugins/token-registry/index.ts'
import { newSecret } from '../support/build.ts'
import { freshDatabase } from '../support/postgres.ts'

t.test('who is erased is in no table, file, log or dump, and all proofs hold', async t => {
  const url = await freshDatabase(t)
  const directory = await mkdtemp(join(tmpdir(), 'audit-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const pool = new pg.Pool({ connectionString: url, max: 3, connectionTimeoutMillis: 5000 })
  t.teardown(() => pool.end())
  const logged: string[] = []
  const app = Fastify({ logger: { level: 'trace', stream: { write: line => { logged.push(line) } } } })
  await app.register(tokenRegistry, { secret: newSecret() })
  await app.register(audit, {
    ledger: sqlLedger(pool),
    copies: [fileSink(join(directory, 'copy')), pinoSink(app.log)],
    anchors: [fileAnchor(join(directory, 'anchor'))],
    checkpointInterval: 10
  })
  app.post('/in', { logLevel: 'silent' }, async request => {
    await request.startSession({ sub: 'alice-4711' })
    await request.audit({ type: 'mail.change', data: { user: { email: 'alice@example.com' }, phone: '+1 555 0100' }, personal: ['phone'] })
  })
  await app.inject({ method: 'POST', url: '/in', remoteAddress: '203.0.113.77', headers: { 'user-agent': 'Alice\'s browser' } })
  const plain = ['alice-4711', 'alice@example.com', '203.0.113.77', 'Alice\'s browser', '+1 555 0100']
  /** All rows of all tables, bytes in hexadecimal, and all that was written elsewhere. */
  const everywhere = async (): Promise<string> => {
    const { rows: tables } = await pool.query<{ name: string }>("select tablename as name from pg_tables where schemaname = 'public'")
    const dump = await Promise.all(tables.map(async ({ name }) => (await pool.query<{ row: string }>(`select t::text as row from ${name} t`)).rows.map(({ row }) => row).join('\n')))
    const files = await Promise.all((await readdir(directory)).map(async name => await readFile(join(directory, name), 'utf8')))
    return [...dump, ...files, ...logged].join('\n')
  }
  const exported: string[] = []
  for await (const line of app.audit.exportSubject({ sub: 'alice-4711' })) exported.push(line)
  for (const text of plain) t.ok(exported.join('').includes(text), `${text} was there to be read`)

  const outside = [await app.audit.checkpoint()]
  t.equal(await app.audit.erase({ sub: 'alice-4711' }), true)
  await app.audit.flush()
  t.match(await app.audit.verify({ outside }), { ok: true })
  const { vkeys } = app.audit
  await app.close()
  const left = await everywhere()
  t.ok(left.includes('audit.erase'))
  for (const text of plain) t.notOk(left.includes(text) || left.includes(Buffer.from(text).toString('hex')), text)
  const lines = (await Promise.all((await readdir(directory)).filter(name => name.startsWith('copy')).sort().map(async name => await readFile(join(directory, name), 'utf8')))).join('').split('\n')
  t.match(await verifyLog(recordsOf((async function * () { yield * lines })()), { vkeys, outside }), { ok: true })
})
