import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { sqlLedger, type StoredEntry } from '../../plugins/audit/index.ts'
import { openNote, parseCheckpoint, verifyConsistency } from '../../plugins/audit/verify/index.ts'
import { audited } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'
import { childEnv } from '../support/child-env.ts'
import { freshDatabase } from '../support/postgres.ts'

const INSTANCES = 3
const KILLS = Number(process.env['AUDIT_KILLS'] ?? 6)
/** ms between them */
const BETWEEN = Number(process.env['AUDIT_KILL_EVERY'] ?? 1500)

t.test('instances append to one log while they are killed: no fork, no gap, nothing twice, and all that was acknowledged is there', async t => {
  const url = await freshDatabase(t, { durable: true })
  const secret = newSecret()
  const acknowledged: string[] = []
  const children = await Promise.all(Array.from({ length: INSTANCES }, async () => await start(t, { url, secret }, acknowledged)))
  for (let kill = 0; kill < KILLS; kill++) {
    await setTimeout(BETWEEN * (0.5 + Math.random()))
    const victim = kill % INSTANCES
    children[victim]?.kill('SIGKILL')
    children[victim] = await start(t, { url, secret }, acknowledged)
  }
  await Promise.all(children.map(async child => {
    const gone = once(child, 'close')
    child.kill('SIGKILL')
    await gone
  }))

  const pool = new pg.Pool({ connectionString: url, max: 4, connectionTimeoutMillis: 5000 })
  t.teardown(async () => await pool.end())
  const ledger = sqlLedger(pool)
  const { audit } = await audited(t, { ledger }, { secret })
  const stored: StoredEntry[] = []
  const { size } = await ledger.head()
  while (stored.length < size) stored.push(...await ledger.entries(stored.length, stored.length + 1000))
  t.same(stored.map(({ seq }) => seq), Array.from(stored, (_, i) => i), 'no gap')
  const names = stored.filter(({ type }) => type === 'test').map(({ leaf }) => (JSON.parse(leaf) as { data: { name: string } }).data.name)
  const there = new Set(names)
  t.equal(there.size, names.length, 'nothing twice')
  t.same(acknowledged.filter(name => !there.has(name)), [], 'all that was acknowledged')
  t.ok(acknowledged.length > 1000)
  t.match(await audit.verify(), { ok: true })

  const signed = (await ledger.checkpointsAfter(0, 1000)).map(({ note }) => parseCheckpoint(openNote(note, audit.vkeys)?.text ?? ''))
  t.ok(signed.length > KILLS)
  for (const [index, to] of signed.entries()) {
    const from = signed[index - 1]
    if (from == null || to === null) continue
    const { proof } = await audit.consistencyProof(from.size, to.size)
    const holds = verifyConsistency({ from: from.size, to: to.size, proof: proof.map(hash => Buffer.from(hash, 'base64')), fromRoot: from.root, toRoot: to.root })
    if (!holds) t.fail(`${to.size} does not begin with ${from.size}`)
  }
  t.comment(`${names.length} entries, ${acknowledged.length} of them acknowledged, ${signed.length} checkpoints`)
})

async function start (t: Test, settings: { url: string, secret: string }, acknowledged: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--import', 'tsx', 'test/support/audit-child.ts', JSON.stringify(settings)], { env: childEnv, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })
  lines.on('line', line => { acknowledged.push(line) })
  await once(lines, 'line')
  return child
}
