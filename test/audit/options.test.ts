import { generateKeyPairSync, randomBytes } from 'node:crypto'
import t from 'tap'
import { csvHeader, csvLine } from '../../plugins/audit/csv.ts'
import { fileSink, memoryLedger, vkeysOf, type AuditEntry } from '../../plugins/audit/index.ts'
import { resolveOptions, type AuditPluginOptions } from '../../plugins/audit/options.ts'
import { Signer } from '../../plugins/audit/signing.ts'
import { audited } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'

t.test('options are complete where none is given', async t => {
  t.same(resolveOptions({}), {
    copies: [], guarantee: 'required', gather: { time: 10, entries: 500 }, maxQueue: 50_000, timeout: 5000, origin: 'fastify-token-registry/audit', signingKeys: [], formerKeys: [], masterKeys: [], checkpointInterval: 1000, anchors: []
  })
})

t.test('options are taken as they are given', async t => {
  const { privateKey } = generateKeyPairSync('ed25519')
  const [ledger, sink, anchor] = [memoryLedger(), fileSink('audit'), () => {}]
  const secret = randomBytes(32).toString('base64')
  const formerKeys = new Signer('example.com/audit', [privateKey]).vkeys
  const given: AuditPluginOptions = {
    ledger,
    copies: [sink],
    guarantee: 'best-effort',
    gather: { time: '5ms', entries: 1 },
    maxQueue: 1,
    timeout: '1m',
    origin: 'example.com/audit',
    signingKeys: [privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()],
    formerKeys,
    masterKeys: [secret],
    checkpointInterval: '1d',
    anchors: [anchor]
  }
  const resolved = resolveOptions(Object.freeze(given))
  t.match(resolved, { guarantee: 'best-effort', gather: { time: 5, entries: 1 }, maxQueue: 1, timeout: 60_000, origin: 'example.com/audit', formerKeys, checkpointInterval: 86_400_000 })
  t.equal(resolved.ledger, ledger)
  t.equal(resolved.copies[0], sink)
  t.equal(resolved.anchors[0], anchor)
  t.ok(resolved.signingKeys[0]?.equals(privateKey))
  t.same(resolved.masterKeys, [Buffer.from(secret)])
})

t.test('who has the secret, or keys of the log, knows its public keys without a server', async t => {
  const [secret, signingKey] = [newSecret(), String(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }))]
  let formerKeys: readonly string[] = []
  for (const options of [{ origin: 'example.com/audit' }, { origin: 'example.com/audit', signingKeys: [signingKey] }]) {
    const app = await audited(t, { ...options, formerKeys }, { secret })
    t.same(vkeysOf(app.tokenRegistry, { ...options, formerKeys }), app.audit.vkeys)
    formerKeys = app.audit.vkeys
  }
  t.equal(formerKeys.length, 2)
})

t.test('what is given is not changed', async t => {
  const given = Object.freeze({ masterKeys: Object.freeze([randomBytes(32).toString('base64')]), anchors: Object.freeze([() => {}]), gather: Object.freeze({ time: 5 }), formerKeys: Object.freeze([]) })
  t.match(resolveOptions(given), { gather: { time: 5, entries: 500 }, anchors: given.anchors })
})

t.test('what is wrong is named, with what it was and what it may be', async t => {
  const { privateKey } = generateKeyPairSync('x25519')
  const secret = randomBytes(32).toString('base64')
  const wrong: Array<[object, RegExp]> = [
    [{ nope: secret }, /^audit: nope is not an option: there are ledger, copies, /],
    [{ ledger: 1 }, /^audit: ledger is 1: it may be .*sqlLedger\(pool\)$/],
    [{ ledger: {} }, /^audit: ledger\.append is undefined: it may be .*sqlLedger\(pool\)$/],
    [{ copies: fileSink('audit') }, /^audit: copies is .*: it may be a list of sinks, such as fileSink\(path\)$/],
    [{ copies: [{ name: 'x' }] }, /^audit: copies\.0\.write is undefined: it may be .*fileSink\(path\)$/],
    [{ copies: ['audit.log'] }, /^audit: copies\.0 is 'audit\.log': it may be .*fileSink\(path\)$/],
    [{ guarantee: 'maybe' }, /^audit: guarantee is 'maybe': it may be "required" or "best-effort"$/],
    [{ gather: 10 }, /^audit: gather is 10: it may be \{ time, entries \}$/],
    [{ gather: { time: '10 ms' } }, /^audit: gather\.time is '10 ms': it may be a number of milliseconds, or text such as "15m"$/],
    [{ gather: { entries: 501 } }, /^audit: gather\.entries is 501: it may be a whole number from 1 to 500$/],
    [{ gather: { size: 1 } }, /^audit: gather\.size is not an option: there are time, entries$/],
    [{ gather: { time: 100 }, timeout: 100 }, /^audit: gather\.time is 100 ms, and timeout 100 ms: what waits for others would be given up$/],
    [{ maxQueue: 0 }, /^audit: maxQueue is 0: it may be a whole number from 1 to 1000000$/],
    [{ maxQueue: 1.5 }, /^audit: maxQueue is 1\.5/],
    [{ timeout: 0 }, /^audit: timeout is 0 ms: it may be 1 to 3600000$/],
    [{ timeout: '2h' }, /^audit: timeout is 7200000 ms/],
    [{ timeout: -1 }, /^audit: timeout is -1: it may be a number of milliseconds/],
    [{ origin: 'a b' }, /^audit: origin is 'a b': it may be 1 to 200 visible ASCII characters, without spaces and \+$/],
    [{ origin: 'a+b' }, /^audit: origin/],
    [{ origin: '' }, /^audit: origin is ''/],
    [{ origin: 'x'.repeat(201) }, /^audit: origin is text of 201 characters/],
    [{ signingKeys: secret }, /^audit: signingKeys is text of 44 characters: it may be a list of Ed25519 private keys in PEM$/],
    [{ signingKeys: [privateKey] }, /^audit: signingKeys\.0 is .*: it may be an Ed25519 private key in PEM$/],
    [{ signingKeys: [secret] }, /^audit: signingKeys\.0 is no Ed25519 private key in PEM: make one with openssl/],
    [{ signingKeys: [privateKey.export({ type: 'pkcs8', format: 'pem' })] }, /^audit: signingKeys\.0 is no Ed25519 private key in PEM/],
    [{ formerKeys: [1] }, /^audit: formerKeys\.0 is 1: it may be a public key, as audit\.vkeys gives them$/],
    [{ formerKeys: ['example.com/audit+00000000+AAAA'] }, /^audit: formerKeys\.0 is no public key: it may be a public key, as audit\.vkeys gives them$/],
    [{ masterKeys: [1] }, /^audit: masterKeys\.0 is 1: it may be text of at least 32 bytes$/],
    [{ masterKeys: [secret, 'short'] }, /^audit: masterKeys\.1 has 5 bytes: at least 32 are needed: it may be text of at least 32 bytes, such as openssl rand -base64 32 makes$/],
    [{ masterKeys: ['x'.repeat(32)] }, /^audit: masterKeys\.0 is made of fewer than 8 different characters/],
    [{ checkpointInterval: '2d' }, /^audit: checkpointInterval is 172800000 ms: it may be 1 to 86400000$/],
    [{ anchors: ['https://example.com'] }, /^audit: anchors\.0 is 'https:\/\/example\.com': it may be a function, such as fileAnchor\(path\)$/],
    [{ anchors: 'x' }, /^audit: anchors is 'x': it may be a list of functions, such as fileAnchor\(path\)$/]
  ]
  for (const [options, message] of wrong) {
    t.throws(() => resolveOptions(options), { code: 'FST_AUDIT_OPTIONS', message })
    try {
      resolveOptions(options)
    } catch (error) {
      t.notOk(String(error).includes(secret), 'no secret is repeated')
    }
  }
})

// CSV

function entry (alter: Partial<AuditEntry> = {}): AuditEntry {
  return {
    seq: 7,
    at: '1970-01-01T00:00:00.000Z',
    type: 'test',
    outcome: 'success',
    actor: { sub: 'alice', client: null, ip: null, userAgent: null },
    target: { kind: 'session', id: 's', sub: null },
    tenant: '',
    requestId: null,
    reason: null,
    data: { a: '"' },
    op: null,
    sealed: [],
    kept: null,
    ...alter
  }
}

t.test('a line of CSV has a field for each column, quoted', async t => {
  t.equal(csvHeader, 'seq,at,type,outcome,actor,client,ip,user_agent,target_kind,target_id,target_subject,tenant,request_id,reason,data\r\n')
  t.equal(csvLine(entry()), '"7","1970-01-01T00:00:00.000Z","test","success","alice",,,,"session","s",,"",,,"{""a"":""\\""""}"\r\n')
  t.equal(csvLine(entry({ target: null, data: null })), '"7","1970-01-01T00:00:00.000Z","test","success","alice",,,,,,,"",,,\r\n')
})

t.test('what a spreadsheet would take for a formula is text', async t => {
  for (const start of ['=', '+', '-', '@', '\t', '\r', '\n']) t.ok(csvLine(entry({ reason: `${start}cmd|"x"!A1` })).includes(`,"'${start}cmd|""x""!A1",`), JSON.stringify(start))
  t.ok(csvLine(entry({ reason: 'a=b' })).includes(',"a=b",'))
  t.ok(csvLine(entry({ seq: -1 })).startsWith('"-1",'), 'numbers are numbers')
})
