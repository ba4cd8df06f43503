import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import canonicalize from 'canonicalize'
import Fastify from 'fastify'
import t from 'tap'
import { Anchors } from '../../plugins/audit/anchors.ts'
import { plainJson, plainName, plainText } from '../../plugins/audit/canonical.ts'
import { draftOf, leafParts, type AuditEvent } from '../../plugins/audit/entry.ts'
import audit, { fileAnchor, maskEmail, maskIp, memoryLedger, webhookAnchor, type AuditPluginOptions, type Ledger, type StoredEntry } from '../../plugins/audit/index.ts'
import { HolderKeys } from '../../plugins/audit/privacy/keys.ts'
import { open, seal, sealingKey } from '../../plugins/audit/privacy/seal.ts'
import { openNote } from '../../plugins/audit/verify/index.ts'
import { hostileStrings, malformedStrings } from '../../plugins/testing/index.ts'
import tokenRegistry, { memoryStore } from '../../plugins/token-registry/index.ts'
import { audited, entriesOf } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'
import { decorated } from '../support/decorated.ts'
import { deferred } from '../support/deferred.ts'

const oneLine = /^[^\n\r\u0000-\u001f\u007f-\u009f\u2028\u2029]*$/ // eslint-disable-line no-control-regex

t.test('whatever an event holds, its entry is one line of canonical JSON', async t => {
  const circular: Record<string, unknown> = {}
  circular['self'] = circular
  const throwing = { get secret (): never { throw new Error('no') } }
  let deep: unknown = 'bottom'
  for (let i = 0; i < 40; i++) deep = [deep]
  const values: unknown[] = [
    ...hostileStrings, ...malformedStrings, 'a\r\nb', '\u2028\u2029\u0085\u009b31m', '\u001b[31m', '"\\', '\ud800', 'x'.repeat(1_000_000), 0, -0, 1e21, 1e-7, NaN, Infinity, 10n, true, null,
    undefined, () => 1, Symbol('s'), new Date(0), { toJSON: () => null }, { toJSON: () => { throw new Error('no') } }, circular, throwing, deep, Array(10_000).fill('x'), new Map([['a', 1]]),
    JSON.parse('{"__proto__":1,"10":1,"9":2,"a":{"c":1,"b":2},"€":1,"\\ud83d\\ude00":2,"\\r":3}')
  ]
  const app = await audited(t)
  for (const value of values) {
    const text = String(typeof value === 'string' ? value : 'text')
    await app.audit.record({ type: text, reason: text, requestId: text, tenant: text, actor: { client: text, userAgent: text, ip: text, sub: text.slice(0, 200) }, target: { kind: text, id: text }, data: { value } })
    await app.audit.record({ type: 'data itself', data: value as Record<string, unknown> })
  }
  const stored: StoredEntry[] = []
  for await (const line of app.audit.lines()) {
    t.match(line, oneLine)
    if (line.startsWith('{"actor"')) stored.push({ leaf: line } as StoredEntry)
  }
  t.equal(stored.length, 1 + 2 * values.length)
  for (const { leaf } of stored) if (canonicalize(JSON.parse(leaf)) !== leaf) t.equal(canonicalize(JSON.parse(leaf)), leaf)
  t.match(await app.audit.verify(), { ok: true })
  t.match((await entriesOf(app)).filter(({ data }) => data !== null && 'value' in data).map(({ data }) => data?.['value']).find(value => /more$/.test(String(value))), /^x{4096}… 995904 more$/)
})

t.test('canonical JSON is that of RFC 8785', async t => {
  // §3.2.3, and an event of which every part is there
  const data = { '\u20ac': 'Euro Sign', '\r': 'Carriage Return', דּ: 'Hebrew Letter Dalet With Dagesh', 1: 'One', '\ud83d\ude00': 'Emoji: Grinning Face', ö: 'Latin Small Letter O With Diaeresis', numbers: [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001] }
  const event: AuditEvent = { type: 'test', outcome: 'denied', actor: { sub: 'alice', client: 'web' }, target: { kind: 'subject', id: 'bob' }, tenant: 'acme', requestId: 'r', reason: 'why', data }
  const [first, last] = leafParts(draftOf(event, 0, { op: 'op' }), { actor: 'A', subject: 'S', sealed: [{ box: 'b', fields: ['actor.ip'], key: 'k', owner: 'A' }] })
  const leaf = `${first}7${last}`
  t.equal(leaf, canonicalize(JSON.parse(leaf)))
  t.match(leaf, /\{"\\r":"Carriage Return","1":"One","numbers":\[333333333\.3333333,1e\+30,4\.5,0\.002,1e-27\],"ö"/)
  t.match(JSON.parse(leaf), { at: '1970-01-01T00:00:00.000Z', op: 'op', seq: 7, target: { id: 'S', kind: 'subject', sub: 'S' }, v: 1 })
})

t.test('names that differ stay different', async t => {
  const names = ['a', '\ufeffa', '\\ufeffa', 'a\n', 'a\\u000a', 'a\\', 'a\\\\', 'a\u2028', '\u001b', 'é', 'e\u0301', '\u0000', '']
  t.equal(new Set(names.map(name => plainName(name))).size, names.length)
  t.equal(plainText('a\\b'), 'a\\b', 'text keeps its backslashes')
  t.equal(plainJson([1, { a: undefined }]) instanceof Array, true)
})

t.test('what is sealed opens with its key alone, where it belongs, as it was', async t => {
  const [key, other] = [sealingKey(randomBytes(32)), sealingKey(randomBytes(32))]
  const box = seal(key.key, 'text \u2028', 'bound')
  t.equal(open(key.key, box, 'bound'), 'text \u2028')
  t.equal(open(other.key, box, 'bound'), null)
  t.equal(open(key.key, box, 'elsewhere'), null)
  t.equal(open(key.key, 'short', 'bound'), null)
  t.equal(open(key.key, `A${box.slice(1)}`, 'bound') === null || box.startsWith('A'), true)
  t.not(key.commitment, other.commitment)
  t.equal(new Set(Array.from({ length: 1000 }, () => seal(key.key, '', ''))).size, 1000)
})

t.test('keys are one for each person, whoever makes them first', async t => {
  const ledger = memoryLedger()
  const secrets = [randomBytes(32), randomBytes(32)]
  const all = await Promise.all(Array.from({ length: 10 }, async () => {
    const keys = new HolderKeys(ledger, secrets)
    await keys.open()
    return keys
  }))
  const alice = { tenant: '', sub: 'alice' }
  const made = (await Promise.all(all.map(async keys => await keys.of([alice, { tenant: '', day: '2026-01-01' }, alice])))).flat()
  t.equal(new Set(made.map(({ owner }) => owner)).size, 2)
  t.equal(new Set(made.map(({ commitment }) => commitment)).size, 2)
  const keys = all[0] as HolderKeys
  const holders = [{ tenant: 'a', sub: 'bc' }, { tenant: 'ab', sub: 'c' }, { tenant: '', sub: '2026-01-01' }]
  t.equal(new Set((await keys.of(holders)).map(({ owner }) => owner)).size, 3, 'those of no two are the same')
  t.equal((await keys.of(Array.from({ length: 10_050 }, (_, i) => ({ tenant: '', sub: `user ${i}` })))).length, 10_050)

  const fresh = randomBytes(32)
  const turned = new HolderKeys(ledger, [fresh, ...secrets])
  await turned.open()
  t.equal(await turned.rewrap(), 10_056)
  t.equal(await turned.rewrap(), 0)
  const alone = new HolderKeys(ledger, [fresh])
  await alone.open()
  t.equal((await alone.find(alice))?.owner, made[0]?.owner)
  t.equal(await alone.find({ tenant: '', sub: 'nobody' }), null)
  await t.rejects(new HolderKeys(ledger, secrets).open(), { code: 'FST_AUDIT_KEY', statusCode: 500 })
  const [stored] = await ledger.keysByOwner([String(made[0]?.owner)])
  await ledger.rewrapKeys([{ owner: '', finder: '', ...stored, wrapped: 'nonsense' }])
  await t.rejects(alone.find(alice), { code: 'FST_AUDIT_KEY' })
})

t.test('addresses are masked for logs', async t => {
  for (const [given, masked] of [['john@example.com', 'j***@example.com'], ['😀x@example.com', '😀***@example.com'], ['a@b@c', 'a***@c'], ['@x', '***'], ['none', '***']]) t.equal(maskEmail(String(given)), masked)
  for (const [given, masked] of [['203.0.113.77', '203.0.113.0/24'], ['2001:db8:1:2:3::4', '2001:db8:1::/48'], ['::ffff:203.0.113.77', '203.0.113.0/24'], ['nonsense', '***']]) t.equal(maskIp(String(given)), masked)
})

t.test('wrong options are named', async t => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const wrong: Array<[object, RegExp]> = [
    [{ nope: 1 }, /nope is not an option/], [{ ledger: {} }, /ledger\.append is undefined: it may be what a ledger has, such as sqlLedger/], [{ copies: [{}] }, /copies/], [{ guarantee: 'some' }, /"required" or "best-effort"/],
    [{ gather: { entries: 501 } }, /gather\.entries is 501/], [{ gather: { time: '5s' } }, /gather\.time is 5000 ms, and timeout 5000 ms/], [{ maxQueue: 0 }, /maxQueue is 0/], [{ timeout: '2h' }, /timeout is 7200000 ms/],
    [{ timeout: 0 }, /timeout is 0 ms/], [{ origin: 'with space' }, /origin/], [{ origin: 'a+b' }, /origin/], [{ signingKeys: ['nonsense'] }, /signingKeys\.0 is no Ed25519 private key/],
    [{ signingKeys: [privateKey.export({ type: 'pkcs8', format: 'pem' })] }, /no Ed25519/], [{ masterKeys: ['short'] }, /masterKeys\.0 has 5 bytes/], [{ checkpointInterval: '2d' }, /checkpointInterval/], [{ anchors: ['x'] }, /anchors/]
  ]
  for (const [options, message] of wrong) await t.rejects(audited(t, options as AuditPluginOptions), { code: 'FST_AUDIT_OPTIONS', message })
})

t.test('keys of one\'s own sign, several side by side, and those that went before still count', async t => {
  const pem = () => String(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const ledger = memoryLedger()
  const [first, second, third] = [pem(), pem(), pem()]
  const before = await audited(t, { ledger, signingKeys: [first, second], origin: 'example.com/audit', masterKeys: [newSecret()] })
  const note = await before.audit.checkpoint()
  t.equal(note.split('\n— ').length, 3)
  for (const vkey of before.audit.vkeys) t.match(openNote(note, [vkey]), { verifiedBy: ['example.com/audit'] })
  const after = await audited(t, { ledger: sharing(ledger), signingKeys: [third], formerKeys: before.audit.vkeys.slice(1), origin: 'example.com/audit', masterKeys: [newSecret(), newSecret()] }).catch((error: unknown) => error)
  t.match(after, { code: 'FST_AUDIT_KEY' }, 'a master key that is missing is noticed at once')
  t.equal(await before.audit.rewrapKeys(), 0)
})

/** The same log, opened once more. */
function sharing (ledger: Ledger): Ledger {
  return ledger
}

t.test('checkpoints are kept elsewhere: in a file, by a webhook, by a function; the latest one is what counts', async t => {
  const directory = await mkdtemp(join(tmpdir(), 'anchor-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const bodies: string[] = []
  let status = 500
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', chunk => { body += String(chunk) }).on('end', () => {
      if (request.headers['x-key'] === 'k' && status === 200) bodies.push(body)
      response.writeHead(status, { location: '/elsewhere' }).end('said')
    })
  }).listen(0)
  t.teardown(() => server.close())
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const webhook = webhookAnchor(url, { 'x-key': 'k' })
  await t.rejects(async () => await webhook({ size: 1, note: 'n' }), { message: 'the anchor answered 500' })
  status = 302
  await t.rejects(async () => await webhook({ size: 1, note: 'n' }))
  status = 200
  const app = await audited(t, { anchors: [fileAnchor(join(directory, 'checkpoints')), webhook, async () => {}], checkpointInterval: 1 })
  await app.audit.record({ type: 'test' })
  await app.close()
  const kept = await readFile(join(directory, 'checkpoints'), 'utf8')
  t.match(kept, /^fastify-token-registry\/audit\n/)
  t.equal(`${String(bodies.at(-1))}\n`, kept.slice(-String(bodies.at(-1)).length - 1))
  t.match(await app.audit.figures, { anchorsFailed: 0 })

  const sent: number[] = []
  const failures: unknown[] = []
  const [second, third] = [deferred(), deferred()]
  const anchors = new Anchors([async ({ size }) => {
    sent.push(size)
    if (size === 1) {
      second.resolve()
      throw new Error('no')
    }
    third.resolve()
  }], error => { failures.push(error) })
  anchors.send({ size: 1, note: '' })
  anchors.send({ size: 2, note: '' })
  anchors.send({ size: 3, note: '' })
  await second.promise
  await third.promise
  await anchors.close()
  t.equal(sent.at(-1), 3)
  t.notOk(sent.includes(2), 'one that another has overtaken is not sent')
  t.equal(failures.length, 1)
  const stubborn = new Anchors([() => { throw new Error('no') }], () => {})
  stubborn.send({ size: 1, note: '' })
  await stubborn.close()
})

t.test('a log is verified where it lies, index and all', async t => {
  const ledger = memoryLedger()
  const { audit } = await audited(t, { ledger })
  for (let i = 0; i < 5; i++) await audit.record({ type: 'test', actor: { sub: 'alice' }, data: { i } })
  const entries = ledger.entries.bind(ledger)
  const altered = (alter: (entry: StoredEntry) => StoredEntry) => { ledger.entries = async (from, to) => (await entries(from, to)).map(entry => entry.seq === 3 ? alter(entry) : entry) }
  const seen: number[] = []
  t.match(await audit.verify({ since: 2, onProgress: seq => { seen.push(seq) } }), { ok: true, size: 6 })
  t.equal(seen.at(-1), 6)
  altered(entry => ({ ...entry, type: 'session.end' }))
  t.match(await audit.verify(), { ok: false, what: 'edited', index: 3, message: /filed/ })
  t.match(await audit.verify({ since: 4 }), { ok: true })
  altered(entry => ({ ...entry, leaf: entry.leaf.replace('"i":2', '"i":3') }))
  t.match(await audit.verify(), { ok: false, what: 'edited', index: 3 })
  altered(entry => ({ ...entry, leaf: 'nonsense' }))
  t.match(await audit.verify(), { ok: false, what: 'edited', index: 3 })
  ledger.entries = async (from, to) => (await entries(from, to)).filter(({ seq }) => seq !== 3)
  t.match(await audit.verify(), { ok: false, what: 'deleted', index: 3 })
})

t.test('operations that fail are recorded as that; of what was under way when the audit came, nothing is', async t => {
  const store = memoryStore()
  t.teardown(async () => await store.close())
  const thrown = deferred<unknown>()
  let failing: unknown = null
  const started = deferred()
  const go = deferred()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(tokenRegistry, {
    secret: newSecret(),
    store: decorated(store, {
      insert: async (...args) => {
        started.resolve()
        await go.promise
        if (failing !== null) throw failing
        return await store.insert(...args)
      },
      mark: async () => { throw new Error('no') }
    })
  })
  const { tokenRegistry: registry } = app
  registry.addHook('preChange', () => {})
  const early = registry.issue({ sub: 'early' })
  await started.promise
  await app.register(audit, { gather: { time: 0 } })
  go.resolve()
  thrown.resolve(await early)
  failing = new Error('out of memory')
  await t.rejects(registry.issue({ sub: 'alice' }), { code: 'FST_STORE_UNAVAILABLE' })
  await t.rejects(registry.denylist.add('jti', registry.now() + 60_000), { code: 'FST_STORE_UNAVAILABLE' })
  failing = null
  const { token, session } = await registry.issue({ sub: 'alice', use: 'refresh', client: 'web' })
  registry.addHook('postRotate', () => {})
  await registry.rotate(token, { client: 'web' })
  await t.rejects(registry.rotate(token, { client: 'other' }), { code: 'FST_TOKEN_INVALID' })
  const entries = (await entriesOf(app)).filter(({ type }) => type !== 'intent')
  t.match(entries.map(({ type, outcome, reason, actor }) => [type, outcome, reason, actor.client]), [
    ['audit.start', 'success', null, null],
    ['session.start', 'failure', 'FST_STORE_UNAVAILABLE', null],
    ['jwt.deny', 'failure', 'FST_STORE_UNAVAILABLE', null],
    ['session.start', 'success', null, 'web'],
    ['session.rotate', 'success', null, 'web'],
    ['session.rotate', 'denied', 'FST_TOKEN_INVALID', 'other']
  ])
  t.equal(entries.at(-1)?.target?.id, session.id)
})

t.test('best effort records what is done, and no intents', async t => {
  const app = await audited(t, { guarantee: 'best-effort' })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  await app.tokenRegistry.revokeById(session.id)
  await t.rejects(app.tokenRegistry.consume('adopted-token-unknown'))
  await app.audit.record({ type: 'test.mark' })
  await app.audit.flush()
  t.same((await entriesOf(app)).map(({ type, outcome }) => `${type} ${outcome}`), ['audit.start success', 'session.start success', 'session.end success', 'token.consume denied', 'test.mark success'])
})

t.test('routes of any kind are told apart, and requests without an agent', async t => {
  const app = await audited(t, {}, { session: true })
  app.route({ method: ['GET', 'POST'], url: '/both', config: { session: false }, onSend: async (_request, _reply, payload) => payload, handler: async request => { await request.audit({ type: 'both' }) } })
  app.get('/off', { config: { session: false, audit: false } }, async request => { await request.audit({ type: 'off' }) })
  await app.listen({ port: 0 })
  const { port } = app.server.address() as AddressInfo
  for (const [method, path] of [['GET', '/both'], ['POST', '/both'], ['GET', '/off'], ['GET', '/unknown']]) {
    const sent = httpRequest({ port, method, path, agent: false }).end()
    const [response] = await once(sent, 'response') as [NodeJS.ReadableStream]
    response.resume()
    await once(response, 'end')
  }
  await app.audit.record({ type: 'test.mark' })
  const entries = (await entriesOf(app)).slice(1, -1)
  t.same(entries.map(({ type, target, actor }) => [type, target?.id, actor.userAgent]), [['both', undefined, null], ['both', undefined, null], ['off', undefined, null], ['request.refuse', 'GET ', null]])
})

t.test('an empty log has no checkpoint', async t => {
  const ledger = memoryLedger()
  ledger.append = async () => await new Promise(() => {})
  const app = await audited(t, { ledger, guarantee: 'best-effort', timeout: 30, gather: { time: 1 } })
  await t.rejects(app.audit.checkpoint(), { code: 'FST_AUDIT_RANGE', message: 'the log has 0 entries, fewer than 1' })
  await app.audit.record({ type: 'test' })
})
