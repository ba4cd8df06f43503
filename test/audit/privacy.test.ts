import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { maskEmail, maskIp, memoryLedger, type StoredKey } from '../../plugins/audit/index.ts'
import type { MemoryLedger } from '../../plugins/audit/ledgers/memory.ts'
import { HolderKeys } from '../../plugins/audit/privacy/keys.ts'
import { open, seal, sealingKey } from '../../plugins/audit/privacy/seal.ts'
import { randomBytes as drawn } from '../../plugins/audit/random.ts'
import { hostileStrings } from '../../plugins/testing/index.ts'
import { deferred } from '../support/deferred.ts'

const alice = { tenant: '', sub: 'alice' }

async function keysOf (ledger: MemoryLedger, ...secrets: Buffer[]): Promise<HolderKeys> {
  const keys = new HolderKeys(ledger, secrets)
  await keys.open()
  return keys
}

/** How often a ledger is asked for keys. */
function counted (ledger: MemoryLedger): { calls: number } {
  const count = { calls: 0 }
  const addKeys = ledger.addKeys.bind(ledger)
  ledger.addKeys = async keys => {
    count.calls++
    return await addKeys(keys)
  }
  return count
}

async function corrupted (t: Test, work: () => Promise<unknown>): Promise<void> {
  await t.rejects(work, { code: 'FST_AUDIT_KEY', statusCode: 500 })
}

// Boxes

t.test('a box opens with its key, what it is bound to, and as it is; else not at all', async t => {
  const { key } = sealingKey(randomBytes(32))
  for (const text of ['', 'text', 'x'.repeat(2 ** 20), ...hostileStrings]) t.equal(open(key, seal(key, text, text), text), text)
  const box = seal(key, 'text', 'bound')
  t.equal(open(sealingKey(randomBytes(32)).key, box, 'bound'), null)
  t.equal(open(key, box, 'bound '), null)
  const bytes = Buffer.from(box, 'base64url')
  t.equal(bytes.length, 12 + 4 + 16)
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const altered = Buffer.from(bytes)
    altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ 1 << (bit & 7)
    if (open(key, altered.toString('base64url'), 'bound') !== null) t.fail(`it opens with bit ${bit} altered`)
  }
  for (let length = 0; length < bytes.length; length++) if (open(key, bytes.subarray(0, length).toString('base64url'), 'bound') !== null) t.fail(`it opens cut to ${length}`)
})

t.test('it is AES-256-GCM as NIST tests it', async t => {
  // gcmEncryptExtIV256.rsp, of which a text can be a string
  const vector = { key: 'b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4', nonce: '516c33929df5a3284ff463d7', tag: 'bdc1ac884d332457a1d2664f168c76f0' }
  const box = Buffer.from(vector.nonce + vector.tag, 'hex').toString('base64url')
  t.equal(open(Buffer.from(vector.key, 'hex'), box, ''), '')
  t.equal(open(Buffer.from(vector.key, 'hex'), box, 'bound'), null)
})

t.test('nonces are never the same, and a key commits to itself', async t => {
  const secret = randomBytes(32)
  const { key, commitment } = sealingKey(secret)
  t.equal(new Set(Array.from({ length: 5000 }, () => seal(key, '', '').slice(0, 16))).size, 5000)
  t.same(sealingKey(secret), { key, commitment })
  t.not(sealingKey(randomBytes(32)).commitment, commitment)
})

t.test('random bytes are drawn as many as asked, and none twice', async t => {
  const all = Array.from({ length: 3000 }, (_, i) => drawn(8 + i % 32))
  t.ok(all.every((bytes, i) => bytes.length === 8 + i % 32))
  t.equal(new Set(all.map(bytes => bytes.subarray(0, 8).toString('hex'))).size, all.length)
  t.equal(drawn(4096).length, 4096)
  t.equal(drawn(0).length, 0)
})

// Keys

t.test('who makes a key first has made it for all', async t => {
  const ledger = memoryLedger()
  const secret = randomBytes(32)
  const instances = await Promise.all(Array.from({ length: 20 }, async () => await keysOf(ledger, secret)))
  const made = (await Promise.all(instances.map(async keys => await keys.of([alice])))).flat()
  t.equal(new Set(made.map(({ owner, commitment, key }) => `${owner} ${commitment} ${key.toString('hex')}`)).size, 1)
  t.match(made[0], { owner: /^[\w-]{22}$/, holder: alice })
  t.equal((await ledger.keysAfter('', 100)).length, 2, 'that of alice, and what finds it')
  t.notOk(JSON.stringify(await ledger.keysAfter('', 100)).includes('alice'))
})

t.test('keys come in the order asked, from one call of the ledger, or none', async t => {
  const ledger = memoryLedger()
  const keys = await keysOf(ledger, randomBytes(32))
  const count = counted(ledger)
  const holders = [alice, { tenant: '', day: '2026-01-01' }, alice, { tenant: 'a', sub: 'lice' }, { tenant: '1 ', sub: '' }, { tenant: '', sub: '2026-01-01' }]
  const made = await keys.of(holders)
  t.same(made.map(({ holder }) => holder), holders)
  t.equal(new Set(made.map(({ owner }) => owner)).size, 5)
  t.equal(made[0]?.owner, made[2]?.owner)
  t.same(await keys.of(holders), made)
  t.same(await keys.of([]), [])
  t.equal(count.calls, 1)
  keys.forget()
  t.same((await keys.of(holders)).map(({ owner }) => owner), made.map(({ owner }) => owner))
  t.equal(count.calls, 2)
})

t.test('as many are remembered as there is room for', async t => {
  const ledger = memoryLedger()
  const keys = await keysOf(ledger, randomBytes(32))
  const count = counted(ledger)
  const holders = Array.from({ length: 10_001 }, (_, i) => ({ tenant: '', sub: String(i) }))
  await keys.of(holders)
  await keys.of(holders.slice(-1))
  t.equal(count.calls, 1)
  await keys.of(holders.slice(0, 1))
  t.equal(count.calls, 2)
})

t.test('a key that was forgotten while it was asked for is not remembered', async t => {
  const ledger = memoryLedger()
  const keys = await keysOf(ledger, randomBytes(32))
  const [asked, answer] = [deferred(), deferred()]
  const addKeys = ledger.addKeys.bind(ledger)
  ledger.addKeys = async given => {
    const added = await addKeys(given)
    asked.resolve()
    await answer.promise
    return added
  }
  const asking = keys.of([alice])
  await asked.promise
  const owner = (await keys.find(alice))?.owner ?? ''
  await ledger.append(async ({ head }) => ({ entries: [], tiles: [], head: { ...head, erasures: 1 }, destroyed: [owner] }))
  keys.forget()
  answer.resolve()
  t.equal((await asking)[0]?.owner, owner)
  t.equal(await keys.find(alice), null)
  t.not((await keys.of([alice]))[0]?.owner, owner, 'who comes back is somebody new')
})

t.test('keys are found by whose they are, and by owner, as long as they exist', async t => {
  const ledger = memoryLedger()
  const keys = await keysOf(ledger, randomBytes(32))
  const [made] = await keys.of([alice])
  t.same(await keys.find(alice), made)
  t.equal(await keys.find({ tenant: 'other', sub: 'alice' }), null)
  const owner = String(made?.owner)
  t.same(await keys.byOwner([owner, owner, 'nobody']), new Map([[owner, made]]))
  ledger.keysByOwner = async () => t.fail('it is asked for nothing') as never
  t.same(await keys.byOwner([]), new Map())
})

t.test('all unwrap, the first wraps: a master key can be replaced, and only then be dropped', async t => {
  const ledger = memoryLedger()
  const [old, fresh] = [randomBytes(32), randomBytes(32)]
  const before = await keysOf(ledger, old)
  const holders = Array.from({ length: 1100 }, (_, i) => ({ tenant: '', sub: String(i) }))
  const made = await before.of(holders)
  t.equal(await before.rewrap(), 0)
  await corrupted(t, async () => await keysOf(ledger, fresh))
  const both = await keysOf(ledger, fresh, old)
  t.equal(await both.rewrap(), 1101)
  t.equal(await both.rewrap(), 0)
  const after = await keysOf(ledger, fresh)
  t.same((await after.of(holders)).map(({ owner, commitment }) => [owner, commitment]), made.map(({ owner, commitment }) => [owner, commitment]))
  await corrupted(t, async () => await keysOf(ledger, old))
})

t.test('a key that was altered, or put in the place of another, opens nothing', async t => {
  const ledger = memoryLedger()
  const secret = randomBytes(32)
  const keys = await keysOf(ledger, secret)
  const [a, b] = await keys.of([alice, { tenant: '', sub: 'bob' }])
  const [ofAlice, ofBob] = await ledger.keysByOwner([String(a?.owner), String(b?.owner)]) as [StoredKey, StoredKey]
  const reads = async (alter: Partial<StoredKey>): Promise<unknown> => {
    const { keysByOwner } = ledger
    ledger.keysByOwner = async () => [{ ...ofAlice, ...alter }]
    try {
      return await keys.byOwner([ofAlice.owner])
    } finally {
      ledger.keysByOwner = keysByOwner
    }
  }
  t.ok(await reads({}))
  const [id = '', box = ''] = ofAlice.wrapped.split('.')
  for (const wrapped of ['', '.', box, `${id}.`, `unknown.${box}`, `${id}.${box.slice(1)}`, ofBob.wrapped]) await corrupted(t, async () => await reads({ wrapped }))
  await corrupted(t, async () => await reads({ owner: ofBob.owner }))
  await corrupted(t, async () => await reads({ finder: ofBob.finder }))
  ledger.keysByFinder = async () => [ofBob, ofAlice].map((key, index) => ({ ...key, finder: [ofAlice.finder, ofBob.finder][index] ?? '' }))
  await corrupted(t, async () => await keys.find(alice))
  keys.forget()
  await corrupted(t, async () => await keys.of([alice]))
})

// Masks

t.test('addresses of mail are masked but for what cannot be told without', async t => {
  for (const [email, masked] of [
    ['john@example.com', 'j***@example.com'], ['j@example.com', 'j***@example.com'], ['\u{1f600}x@example.com', '\u{1f600}***@example.com'], ['"a@b"@example.com', '"***@example.com'],
    ['@example.com', '***'], ['none', '***'], ['', '***'], ['a@', 'a***@']
  ]) t.equal(maskEmail(String(email)), masked)
})

t.test('of addresses of the net the network stays', async t => {
  for (const [ip, masked] of [
    ['203.0.113.77', '203.0.113.0/24'], ['127.0.0.1', '127.0.0.0/24'], ['2001:db8:1:2:3:4:5:6', '2001:db8:1::/48'], ['::1', '::/48'], ['fe80::1%eth0', 'fe80::/48'], ['2001:db8:0:ffff::', '2001:db8::/48'],
    ['::ffff:203.0.113.77', '203.0.113.0/24'], ['::ffff:cb00:714d', '203.0.113.0/24'], ['nonsense', '***'], ['', '***'], ['203.0.113.777', '***']
  ]) t.equal(maskIp(String(ip)), masked)
})
