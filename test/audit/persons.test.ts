import t from 'tap'
import { memoryLedger } from '../../plugins/audit/index.ts'
import { verifyLog, recordsOf } from '../../plugins/audit/verify/index.ts'
import { audited, entriesOf } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'

async function textOf (lines: AsyncIterable<string>): Promise<string> {
  let text = ''
  for await (const line of lines) text += line
  return text
}

const alice = { sub: 'alice' }

t.test('everything that is known of a person is exported, and that it was is recorded', async t => {
  const app = await audited(t)
  const { tokenRegistry: registry, audit } = app
  const { session } = await registry.issue({ sub: 'alice', meta: { ipAddress: '203.0.113.7', userAgent: '=cmd|"calc"' } })
  await registry.issue({ sub: 'bob', meta: { ipAddress: '198.51.100.9' } })
  await registry.revokeById(session.id, 'revoked', { by: 'bob' })
  const ndjson = await textOf(audit.exportSubject(alice, { actor: { sub: 'bob' } }))
  const lines = ndjson.trimEnd().split('\n').map(line => JSON.parse(line) as { type: string, actor: { sub: string } })
  t.same(lines.map(({ type }) => type), ['intent', 'session.start', 'session.end', 'audit.export'])
  t.match(lines[1], { actor: { sub: 'alice', ip: '203.0.113.7' } })
  t.match(lines[2], { target: { sub: 'alice' } })
  t.match(lines[3], { target: { id: 'alice' }, data: { format: 'ndjson' } })
  t.notOk(/198\.51\.100\.9|bob/.test(ndjson), 'nothing of others, who go by their pseudonyms')

  const csv = (await textOf(audit.exportSubject(alice, { format: 'csv' }))).split('\r\n')
  t.match(csv[0], /^seq,at,type,outcome,actor,/)
  t.match(csv[2], /"203.0.113.7","'=cmd\|""calc"""/, 'what looks like a formula is none')
  t.equal(csv.length, 1 + 5 + 1)
  t.equal(await textOf(audit.exportSubject({ sub: 'nobody else' }, { format: 'csv' })), `${csv[0] ?? ''}\r\n`, 'of nobody there is nothing')
})

t.test('who is erased is gone, and every proof holds', async t => {
  const ledger = memoryLedger()
  const app = await audited(t, { ledger })
  const { tokenRegistry: registry, audit } = app
  const { session } = await registry.issue({ sub: 'alice', meta: { ipAddress: '203.0.113.7', userAgent: 'Alice\'s browser' } })
  await registry.revokeById(session.id)
  const before = await audit.checkpoint()
  const receipt = await audit.receipt(session.id)
  t.equal(await audit.erase(alice, { actor: { sub: 'bob' } }), true)
  t.equal(await audit.erase(alice), false, 'there is nobody of that name any more')

  t.same(await audit.entries(alice), { entries: [], cursor: null })
  const entries = await entriesOf(app)
  for (const { actor, type } of entries.slice(1, 5)) t.match(actor, { ip: null, userAgent: null }, type)
  const pseudonym = entries[2]?.actor.sub
  t.match(pseudonym, /^[A-Za-z0-9_-]{22}$/)
  t.match(entries.at(-1), { type: 'audit.erase', actor: { sub: 'bob' }, target: { kind: 'subject', id: pseudonym, sub: null } })
  t.match(await audit.verify({ outside: [String(before)] }), { ok: true, size: entries.length })
  t.match(await audit.receipt(session.id), { index: receipt.index, entry: receipt.entry })

  const stored = JSON.stringify([await ledger.entries(0, 100), await ledger.keysAfter('', 100)])
  const exported: string[] = []
  for await (const line of audit.lines()) exported.push(line)
  for (const plain of ['alice', 'Alice', '203.0.113.7']) t.notOk(stored.includes(plain) || exported.join('\n').includes(plain), plain)

  await registry.issue({ sub: 'alice' })
  const again = (await audit.entries({ sub: 'alice' })).entries
  t.equal(again.length, 2, 'who comes back is somebody new')
})

t.test('what was under way while somebody was erased holds nothing of them', async t => {
  const ledger = memoryLedger()
  const masterKeys = [newSecret()]
  const [one, other] = [await audited(t, { ledger, masterKeys }), await audited(t, { ledger, masterKeys })]
  const event = { type: 'test', actor: { sub: 'alice', ip: '203.0.113.7' } }
  await other.audit.record(event)
  await one.audit.erase(alice)
  await other.audit.record(event)
  await other.audit.record(event)
  const entries = (await entriesOf(one)).filter(({ type }) => type === 'test')
  t.match(entries, [{ actor: { ip: null } }, { actor: { ip: null }, sealed: [] }, { actor: { sub: 'alice', ip: '203.0.113.7' } }])
  t.equal(entries[1]?.actor.sub, entries[0]?.actor.sub, 'the key was gone: the pseudonym stands for nobody')

  await Promise.all(Array.from({ length: 100 }, async (_, i) => await (i % 10 === 0 ? one.audit.erase({ sub: 'bob' }) : [one, other][i % 2]?.audit.record({ type: 'race', actor: { sub: 'bob', ip: '203.0.113.8' } }))))
  await one.audit.erase({ sub: 'bob' })
  const raced = (await entriesOf(other)).filter(({ type }) => type === 'race')
  t.equal(raced.length, 90)
  t.same(raced.filter(({ actor }) => actor.ip !== null), [])
  t.match(await one.audit.verify(), { ok: true })
})

t.test('anonymising keeps what is asked for, without whose it was', async t => {
  const app = await audited(t)
  const { audit } = app
  await audit.record({ type: 'test', actor: { sub: 'alice', ip: '203.0.113.7', userAgent: 'Firefox 130' } })
  await audit.record({ type: 'test', actor: { sub: 'alice', ip: '198.51.100.1' } })
  await audit.record({ type: 'test', actor: { sub: 'alice' } })
  const kept = { ip: (ip: string) => ip.startsWith('203') ? 'CH' : undefined, userAgent: (agent: string) => agent.split(' ')[0] }
  t.equal(await audit.anonymise(alice, { kept, actor: { sub: 'bob' } }), true)
  t.equal(await audit.anonymise(alice, { kept }), false)
  t.match((await entriesOf(app)).slice(1), [
    { kept: { country: 'CH', agent: 'Firefox' }, actor: { ip: null, userAgent: null } }, { kept: null, actor: { ip: null } }, { kept: null }, { type: 'audit.anonymise', actor: { sub: 'bob' } }
  ])
  t.match(await audit.verify(), { ok: true })
  await audit.record({ type: 'test', actor: { sub: 'carol', ip: '203.0.113.7' } })
  t.equal(await audit.anonymise({ sub: 'carol' }), true, 'keeping nothing is erasing')
  t.match((await entriesOf(app)).at(-2), { kept: null, actor: { ip: null } })
})

t.test('of a person with many entries, all are exported', async t => {
  const { audit } = await audited(t)
  await Promise.all(Array.from({ length: 1003 }, async (_, i) => await audit.record({ type: 'test', actor: { sub: 'alice' }, data: { i } })))
  t.equal((await textOf(audit.exportSubject(alice))).split('\n').length, 1004 + 1)
})

t.test('old contents are dropped in whole tiles, and the tree stays provable; what vanished otherwise is told', async t => {
  const ledger = memoryLedger()
  let now = Date.parse('2030-01-01T00:00:00Z')
  // Who verifies reads on up to what was signed last: nothing is signed here but what is asked for.
  const app = await audited(t, { ledger, checkpointInterval: '1h' })
  app.tokenRegistry.now = () => now
  const { audit } = app
  const { entries } = ledger
  const many = async (count: number) => { await Promise.all(Array.from({ length: count }, async () => await audit.record({ type: 'test', actor: { sub: 'alice' } }))) }
  await many(600)
  const before = String(await audit.checkpoint())
  now += 86_400_000
  const olderThan = now
  await many(300)
  t.equal(await audit.prune({ olderThan: olderThan - 86_400_000 }), 0, 'there is nothing so old')
  // While somebody verifies the log, who has read the first tile already, and finds the second one gone.
  let pruned = 0
  ledger.entries = async (from, to) => {
    const found = await entries.call(ledger, from, to)
    if (pruned++ === 1) t.equal(await audit.prune({ olderThan }, { actor: { sub: 'bob' } }), 512)
    return from === 0 && pruned === 1 ? found.slice(0, 256) : found
  }
  t.match(await audit.verify(), { ok: true, pruned: 512 })
  ledger.entries = entries.bind(ledger)
  t.equal(await audit.prune({ olderThan }), 512)
  const [oldest] = await ledger.find({}, { limit: 1, order: 'oldest' })
  t.equal(oldest?.seq, 512)
  t.match((await entriesOf(app)).at(-1), { type: 'audit.prune', actor: { sub: 'bob' }, data: { before: 512, olderThan: '2030-01-02T00:00:00.000Z' } })
  t.match(await audit.verify({ outside: [before] }), { ok: true, pruned: 512, size: 902 })
  t.match(await audit.inclusionProof(3, 902), { index: 3, size: 902 })
  await many(10)
  t.equal(await audit.prune({ olderThan: now + 1 }), 768)
  t.match(await audit.verify(), { ok: true, pruned: 768 })
  for (const wrong of [NaN, 1.5, Number.MAX_SAFE_INTEGER]) await t.rejects(audit.prune({ olderThan: wrong }), { code: 'FST_AUDIT_RANGE' })

  const lines: string[] = []
  for await (const line of audit.lines()) if (!line.includes('"audit.prune"')) lines.push(line)
  const verdict = await verifyLog(recordsOf((async function * () { yield * lines })()), { vkeys: audit.vkeys })
  t.match(verdict, { ok: false, what: 'deleted' })
})

t.test('persons of tenants with any name are found, exported and erased', async t => {
  const { audit, tokenRegistry: registry } = await audited(t)
  for (const tenant of ['ACME\\users', 'a\nb', '\u2028', '\ufeffé', '\u001b[31m']) {
    const { session } = await registry.issue({ sub: 'alice', tenant })
    await registry.revokeById(session.id)
    const person = { sub: 'alice', tenant }
    t.equal((await audit.entries({ tenant })).entries.length, 3)
    t.equal((await audit.entries(person)).entries.length, 3)
    t.match(await audit.receipt(session.id, tenant), { version: 1 })
    const following = audit.follow({ after: 0, tenant })
    t.equal((await following.next()).value?.length, 3)
    await following.return([])
    t.match(await textOf(audit.exportSubject(person)), /session\.end/)
    t.equal(await audit.erase(person), true)
    t.same((await audit.entries(person)).entries, [])
  }
  t.match(await audit.verify(), { ok: true })
})
