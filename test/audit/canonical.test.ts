import { randomBytes, randomInt } from 'node:crypto'
import canonicalize from 'canonicalize'
import t from 'tap'
import { canonicalJson, plainJson, plainName, plainText } from '../../plugins/audit/canonical.ts'
import { draftOf, indexOf, leafIndexOf, leafParts, parseLeaf, type AuditEvent, type Holder, type SealedBox } from '../../plugins/audit/entry.ts'
import { openLeaf, ownersIn, holdersOf, sealDraft } from '../../plugins/audit/privacy/sealing.ts'
import { sealingKey } from '../../plugins/audit/privacy/seal.ts'
import type { StoredEntry } from '../../plugins/audit/index.ts'
import { hostileStrings, malformedStrings } from '../../plugins/testing/index.ts'
import { audited, entriesOf } from '../support/audited.ts'

// Canonical JSON

const oneLine = /^[^\n\r\u0000-\u001f\u007f-\u009f\u2028\u2029]*$/ // eslint-disable-line no-control-regex

t.test('the examples of RFC 8785 §3.2.2 and §3.2.3 come out as they have to', async t => {
  const given = JSON.parse(String.raw`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`) as object
  const made = String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`
  t.equal(canonicalJson(given), made)
  t.equal(canonicalJson(plainJson(given) as object), made)
  const keys = { '\u20ac': 'Euro Sign', '\r': 'Carriage Return', דּ: 'Hebrew Letter Dalet With Dagesh', 1: 'One', '\ud83d\ude00': 'Emoji: Grinning Face', '\u0080': 'Control', ö: 'Latin Small Letter O With Diaeresis' }
  t.same([...canonicalJson(keys).matchAll(/:"([^"]*)"/g)].map(([, value]) => value), ['Carriage Return', 'One', 'Control', 'Latin Small Letter O With Diaeresis', 'Euro Sign', 'Emoji: Grinning Face', 'Hebrew Letter Dalet With Dagesh'])
})

t.test('numbers are written as appendix B of RFC 8785 writes them', async t => {
  for (const [bits, written] of [
    ['0000000000000000', '0'], ['8000000000000000', '0'], ['0000000000000001', '5e-324'], ['8000000000000001', '-5e-324'], ['7fefffffffffffff', '1.7976931348623157e+308'], ['4340000000000000', '9007199254740992'],
    ['4430000000000000', '295147905179352830000'], ['44b52d02c7e14af5', '9.999999999999997e+22'], ['44b52d02c7e14af6', '1e+23'], ['444b1ae4d6e2ef4f', '999999999999999900000'], ['444b1ae4d6e2ef50', '1e+21'],
    ['3eb0c6f7a0b5ed8c', '9.999999999999997e-7'], ['3eb0c6f7a0b5ed8d', '0.000001'], ['41b3de4355555553', '333333333.3333332'], ['becbf647612f3696', '-0.0000033333333333333333'], ['43143ff3c1cb0959', '1424953923781206.2']
  ]) t.equal(canonicalJson([plainJson(Buffer.from(String(bits), 'hex').readDoubleBE())]), `[${String(written)}]`)
})

t.test('what cannot be JSON is told, and throws nothing', async t => {
  const cycle: Record<string, unknown> = { a: 1 }
  cycle['self'] = cycle
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  const cases: Array<[unknown, unknown]> = [
    [undefined, null], [null, null], [() => 1, null], [Symbol('s'), null], [NaN, 'NaN'], [-Infinity, '-Infinity'], [10n ** 30n, `1${'0'.repeat(30)}`], ['\ud800', '\ufffd'], ['a\ud83d\ude00', 'a\u{1f600}'],
    ['\u2028\u2029\u0085\u007f', '\\u2028\\u2029\\u0085\\u007f'], ['x'.repeat(5000), `${'x'.repeat(4096)}… 904 more`], [`${'x'.repeat(4095)}\u{1f600}`, `${'x'.repeat(4095)}\ufffd… 1 more`],
    [new Date(0), '1970-01-01T00:00:00.000Z'], [new Date(NaN), null], [{ toJSON: () => undefined }, null], [{ toJSON: () => ({ a: 1 }) }, { a: 1 }], [{ toJSON: 1 }, { toJSON: 1 }],
    [{ get a () { throw new Error('no') } }, 'omitted: it cannot be read'], [{ toJSON () { throw new Error('no') } }, 'omitted: it cannot be read'], [proxy, 'omitted: it cannot be read'],
    [{ a: undefined, b: () => 1, c: Symbol('s') }, { c: null }], [[undefined, () => 1], [null, null]], [new Array(2), [null, null]], [new Map([[1, 2]]), {}], [Object.create(null), {}],
    [{ 'a\u2028': 1 }, { 'a\\u2028': 1 }], [Array(5000).fill(0), Array(4096).fill(0)]
  ]
  for (const [given, expected] of cases) {
    t.same(plainJson(given), expected)
    t.same(JSON.parse(canonicalJson([plainJson(given)])), [expected])
  }
  t.match(canonicalJson(plainJson(cycle) as object), /^(\{"a":1,"self":){16}\{"a":"omitted: it is too deep","self":"omitted: it is too deep"\}{17}$/)
})

t.test('keys that name a prototype are keys', async t => {
  const given = JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}') as object
  t.equal(canonicalJson(plainJson(given) as object), '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}')
  t.notOk('polluted' in {})
})

t.test('what is too large is told, however it is made', async t => {
  const told = 'omitted: more than 65536 characters of JSON'
  let many: unknown = 'leaf'
  for (let depth = 0; depth < 12; depth++) many = Array(4096).fill(many)
  const each: Record<string, unknown> = {}
  for (let i = 0; i < 50; i++) each[`key ${i}`] = each
  for (const [name, value] of Object.entries({
    many, each, texts: Array(17).fill('x'.repeat(4096)), keys: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`${i}${'x'.repeat(4000)}`, 0])), escapes: Array(15).fill('\u001b'.repeat(1000)), longs: Array(20).fill(BigInt(`1${'0'.repeat(4000)}`))
  })) t.equal(plainJson(value), told, name)
  t.equal(JSON.stringify(plainJson(Array(16).fill('x'.repeat(4000)))).length, 64_049)
})

t.test('names that differ are never made alike, and are one line', async t => {
  const alphabet = ['\\', 'u', '0', '2', '8', 'a', '\n', '\r', '\0', '\u001b', '\u007f', '\u0085', '\u2028', '\u2029', '\ud800', '\ud801', '\udc00', '\ufffd', '\u{1f600}', 'é']
  const made = new Map<string, string>()
  const names = [...alphabet, ...alphabet.flatMap(a => alphabet.map(b => a + b)), ...Array.from({ length: 20_000 }, () => Array.from({ length: randomInt(1, 8) }, () => alphabet[randomInt(alphabet.length)]).join('')), 'a\\u2028', '\\ud800', ...hostileStrings, ...malformedStrings]
  for (const name of names.map(name => name.slice(0, 256))) {
    const plain = plainName(name)
    if (!plain.isWellFormed() || /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(plain)) t.fail(`${JSON.stringify(name)} is no line`) // eslint-disable-line no-control-regex
    if ((made.get(plain) ?? name) !== name) t.fail(`${JSON.stringify(name)} is made ${JSON.stringify(plain)}, as another is`)
    made.set(plain, name)
  }
  t.ok(made.size > 10_000)
  t.equal(plainName('x'.repeat(300)).length, 256)
  t.equal(plainText('a\\b\n'), 'a\\b\n', 'text keeps what JSON escapes')
})

// Leaves

function randomText (): string {
  const pieces = [...hostileStrings, ...malformedStrings, '\u2028', '\ud800', '"', '\\', '\n', '', 'plain', 'é', '\u{1f600}', randomBytes(6).toString('base64')]
  return Array.from({ length: randomInt(3) }, () => pieces[randomInt(pieces.length)]).join('')
}

function randomJson (depth = 0): unknown {
  switch (randomInt(depth > 4 ? 5 : 7)) {
    case 0: return randomText()
    case 1: return Buffer.from(randomBytes(8)).readDoubleBE()
    case 2: return randomInt(1000)
    case 3: return null
    case 4: return randomInt(2) === 1
    case 5: return Array.from({ length: randomInt(4) }, () => randomJson(depth + 1))
    default: return Object.fromEntries(Array.from({ length: randomInt(5) }, () => [randomInt(9) === 0 ? '__proto__' : randomText(), randomJson(depth + 1)]))
  }
}

function maybe<T> (make: () => T): T | undefined {
  return randomInt(3) === 0 ? undefined : make()
}

function randomEvent (): AuditEvent {
  const parts = {
    outcome: maybe(() => 'denied' as const),
    actor: maybe(() => JSON.parse(JSON.stringify({ sub: maybe(randomText), client: maybe(randomText), ip: maybe(randomText), userAgent: maybe(randomText), tenant: maybe(randomText) })) as object),
    target: maybe(() => ({ kind: randomInt(2) === 0 ? 'subject' : randomText(), id: randomText(), sub: randomInt(2) === 0 ? null : randomText() })),
    tenant: maybe(randomText),
    requestId: maybe(randomText),
    reason: maybe(randomText),
    data: maybe(() => randomJson() as Record<string, unknown>),
    personal: maybe(() => [randomText(), 'email'])
  }
  return { type: randomText(), ...Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== undefined)) }
}

t.test('a leaf is what canonical JSON makes of it, whatever the event', async t => {
  for (let i = 0; i < 3000; i++) {
    const draft = draftOf(randomEvent(), randomInt(2 ** 42), { op: randomInt(2) === 0 ? null : 'op' })
    const keys = new Map(holdersOf(draft).map((holder, index) => [JSON.stringify(holder), { owner: `owner ${index}`, holder, ...sealingKey(randomBytes(32)) }]))
    const { parts: [first, last] } = sealDraft(draft, holder => keys.get(JSON.stringify(holder)) ?? t.fail('a key that was not asked for') as never, new Set())
    const text = `${first}${i}${last}`
    if (text !== canonicalize(JSON.parse(text)) || /[\n\r\u2028\u2029]/.test(text)) t.fail(text)
    const leaf = parseLeaf(text)
    const ownerOf = (holder: Holder | null) => holder && keys.get(JSON.stringify(holder))?.owner
    const index = indexOf(draft, { actor: ownerOf(draft.actor) ?? null, subject: ownerOf(draft.subject) ?? null })
    t.strictSame(leafIndexOf(leaf), index)
    if (leaf.seq !== i) t.fail(text)
    const opened = openLeaf(leaf, new Map([...keys.values()].map(key => [key.owner, key])))
    if (Object.keys(opened).length !== new Set(leaf.sealed.flatMap(({ fields }) => fields)).size) t.fail(`${text} does not open`)
  }
})

t.test('what tells of a person is sealed: email always, and what is named', async t => {
  const personalOf = (event: Omit<AuditEvent, 'type'>) => {
    const { data, personal } = draftOf({ type: 'test', ...event }, 0)
    return { data, personal: personal.map(({ holder, fields }) => [holder, fields]) }
  }
  const day = { tenant: '', day: '1970-01-01' }
  t.same(personalOf({}), { data: null, personal: [] })
  t.same(personalOf({ data: null, personal: ['a'] }), { data: null, personal: [] })
  t.same(personalOf({ data: { email: 'e', a: 1, b: 2 }, personal: ['a', 'none'] }), { data: { b: 2 }, personal: [[day, { 'data.email': 'e', 'data.a': 1 }]] })
  t.same(personalOf({ data: { 'a\u2028': 1, ['x'.repeat(5000)]: 2 }, personal: ['a\u2028', 'x'.repeat(5000)] }).data, {}, 'however its key is written')
  t.same(personalOf({ data: [1, 2] as unknown as Record<string, unknown>, personal: ['value'] }), { data: {}, personal: [[day, { 'data.value': [1, 2] }]] })
  t.same(personalOf({ data: 'text' as unknown as Record<string, unknown> }).data, { value: 'text' })
  t.same(personalOf({ data: (() => {}) as unknown as Record<string, unknown> }).data, { value: null })
  t.same(personalOf({ data: { toJSON: () => null } }).data, { value: null })

  const who = { actor: { sub: 'alice', ip: '203.0.113.7', userAgent: 'x'.repeat(600) }, tenant: 'acme' }
  const agent = `${'x'.repeat(512)}… 88 more`
  const [alice, bob] = [{ tenant: 'acme', sub: 'alice' }, { tenant: 'acme', sub: 'bob' }]
  const ofAlice = { 'actor.ip': '203.0.113.7', 'actor.userAgent': agent }
  t.same(personalOf({ ...who, data: { email: 'e' } }).personal, [[alice, { ...ofAlice, 'data.email': 'e' }]])
  t.same(personalOf({ ...who, data: { email: 'e' }, target: { kind: 'subject', id: 'bob' } }).personal, [[alice, ofAlice], [bob, { 'data.email': 'e' }]])
  t.same(personalOf({ ...who, data: { email: 'e' }, target: { kind: 'session', id: 's', sub: 'bob' } }).personal, [[alice, ofAlice], [bob, { 'data.email': 'e' }]])
  t.same(personalOf({ ...who, data: { email: 'e' }, target: { kind: 'subject', id: 'alice' } }).personal, [[alice, { ...ofAlice, 'data.email': 'e' }]])
  t.same(personalOf({ ...who, actor: { ...who.actor, tenant: 'other' }, target: { kind: 'subject', id: 'alice' }, data: { email: 'e' } }).personal, [[{ tenant: 'other', sub: 'alice' }, ofAlice], [alice, { 'data.email': 'e' }]])
  t.same(personalOf({ actor: { ip: 'i' }, target: { kind: 'subject', id: 'bob' }, tenant: 'acme' }).personal, [[{ tenant: 'acme', day: '1970-01-01' }, { 'actor.ip': 'i' }]])
})

t.test('who is named by a pseudonym is nobody\'s target', async t => {
  const draft = draftOf({ type: 'test', target: { kind: 'subject', id: 'alice' } }, 0, { pseudonym: 'A' })
  t.match(draft, { target: { kind: 'subject', id: 'A' }, subject: null })
  const [first, last] = leafParts(draft, { actor: null, subject: null, sealed: [] })
  t.same(parseLeaf(`${first}0${last}`).target, { id: 'A', kind: 'subject', sub: null })
  t.match(indexOf(draft, { actor: null, subject: null }), { targetId: 'A', subject: null })
})

t.test('a box opens by the key that it was made with alone', async t => {
  const holder = { tenant: '', sub: 'alice' }
  const key = { owner: 'A', holder, ...sealingKey(randomBytes(32)) }
  const draft = draftOf({ type: 'test', actor: { sub: 'alice', ip: 'i' } }, 0)
  const { parts: [first, last] } = sealDraft(draft, () => key, new Set())
  const leaf = parseLeaf(`${first}0${last}`)
  const opensWith = (alter: Partial<typeof key>, box: Partial<SealedBox> = {}, id = leaf.id) => openLeaf({ ...leaf, id, sealed: leaf.sealed.map(sealed => ({ ...sealed, ...box })) }, new Map([['A', { ...key, ...alter }]]))
  t.same(opensWith({}), { 'actor.ip': 'i' })
  t.same(openLeaf(leaf, new Map()), {})
  t.same(opensWith({ key: sealingKey(randomBytes(32)).key }), {})
  t.same(opensWith({ commitment: sealingKey(randomBytes(32)).commitment }), {})
  t.same(opensWith({}, {}, 'another'), {})
  t.same(opensWith({}, { box: 'AAAA' }), {})
  t.same([...ownersIn([leaf, { ...leaf, target: { kind: 'subject', id: 'B', sub: 'B' } }])], ['A', 'B'])
  t.same([...ownersIn([{ ...leaf, actor: { sub: null, client: null }, sealed: [] }])], [])
  const { parts: [without] } = sealDraft(draft, () => key, new Set(['A']))
  t.match(without, /"sealed":\[\]/)
})

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
