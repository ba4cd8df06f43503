import { createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { sessionRecord } from '../plugins/testing/index.ts'
import { weakness } from '../plugins/token-registry/index.ts'
import { Keyring } from '../plugins/token-registry/keyring.ts'
import { Mac } from '../plugins/token-registry/mac.ts'
import { TokenMint } from '../plugins/token-registry/token.ts'
import { build, newSecret, newSecrets } from './support/build.ts'
import { endings, invalid, rig } from './support/rig.ts'

// Tokens

t.test('a token is its prefix and 42 bytes, the last of which sign the others, and the id is public', async t => {
  const secret = newSecret()
  const { registry } = await rig(t, { secret })
  const subject = { tenant: 'acme', sub: 'al\u{1f600}ce' }
  for (const [use, prefix] of [['session', 'trs_'], ['refresh', 'trr_'], ['once', 'tro_']] as const) {
    const { token, session } = await registry.issue({ ...subject, use })
    t.match(token, new RegExp(`^${prefix}[A-Za-z0-9_-]{56}$`))
    const bytes = Buffer.from(token.slice(4), 'base64url')
    t.equal(bytes.toString('base64url'), token.slice(4))

    const key = Buffer.from(hkdfSync('sha256', secret, '', 'fastify-token-registry token mac', 32))
    const mac = createHmac('sha256', key).update(prefix).update(bytes.subarray(0, 26)).digest()
    const tag = createHash('sha256').update(`4:acme${subject.sub.length}:${subject.sub}`).digest().subarray(0, 3)
    const digest = createHash('sha256').update(bytes.subarray(4, 22)).digest()
    t.same(bytes.subarray(26), mac.subarray(0, 16))
    t.same(bytes.subarray(1, 4), tag)
    t.equal(bytes.readUInt32BE(22), 0)
    t.equal(session.id, Buffer.concat([tag, digest.subarray(0, 15)]).toString('base64url'))
    t.equal(sessionRecord(subject).id.slice(0, 4), session.id.slice(0, 4), 'generated records share the slot of their subject')
  }
})

t.test('no secret is drawn twice', async t => {
  const { registry } = await rig(t)
  const tokens = await Promise.all(Array.from({ length: 1000 }, async () => await registry.issue({ sub: 'alice' })))
  t.equal(new Set(tokens.map(({ token }) => Buffer.from(token.slice(4), 'base64url').toString('latin1', 4, 22))).size, 1000)
  t.equal(new Set(tokens.map(({ session }) => session.id)).size, 1000)
})

t.test('a token with any part changed is refused, and ends nothing', async t => {
  const { registry } = await rig(t, { cache: false })
  const told = endings(registry)
  const { token } = await registry.issue({ sub: 'alice' })
  const { token: refresh } = await registry.issue({ sub: 'alice', use: 'refresh' })
  const bytes = Buffer.from(token.slice(4), 'base64url')

  const forged = [
    ...Array.from({ length: 42 * 8 }, (_, bit) => {
      const copy = Buffer.from(bytes)
      copy.writeUInt8(copy.readUInt8(bit >> 3) ^ 1 << (bit & 7), bit >> 3)
      return `trs_${copy.toString('base64url')}`
    }),
    ...Array.from(token, (_, i) => token.slice(0, i) + '*' + token.slice(i + 1)),
    ...['trr_', 'tro_', 'TRS_', 'trx_', 'trs-', ''].map(prefix => prefix + token.slice(4)),
    `trs_${refresh.slice(4)}`,
    `trs_${bytes.toString('base64')}`.replace(/$/, '='), `${token}=`, `${token}A`, token.slice(0, -1), ` ${token}`, `${token}\n`, token.slice(0, -1) + '+', token.slice(0, -2) + '\u{1f600}',
    `trs_${'A'.repeat(56)}`, 'trs_', 'trs_' + 'a'.repeat(10_000)
  ]
  const accepted = []
  for (const bad of forged.filter(text => text !== token)) {
    const answers = [
      registry.verify(bad).then(() => 'verified', error => error.code), registry.get(bad), registry.rotate(bad).then(() => 'rotated', error => error.code),
      registry.consume(bad).then(() => 'consumed', error => error.code), registry.revoke(bad)
    ]
    const expected = ['FST_TOKEN_INVALID', null, 'FST_TOKEN_INVALID', 'FST_TOKEN_INVALID', false]
    if (!isDeepStrictEqual(await Promise.all(answers), expected)) accepted.push(bad)
  }
  t.same(accepted, [])
  t.equal((await registry.verify(token)).session.sub, 'alice')
  t.same(told, [])
  await t.rejects(registry.verify(''), { code: 'FST_TOKEN_MISSING', statusCode: 401 })
})

t.test('a token that another secret signed is refused', async t => {
  const [{ registry: ours }, { registry: theirs }] = [await rig(t), await rig(t)]
  const { token } = await theirs.issue({ sub: 'alice' })
  await t.rejects(ours.verify(token), invalid)
})

t.test('HMAC-SHA-256 is that of RFC 4231', async t => {
  const vectors = [
    ['0b'.repeat(20), Buffer.from('Hi There').toString('hex'), 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
    [Buffer.from('Jefe').toString('hex'), Buffer.from('what do ya want for nothing?').toString('hex'), '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'],
    ['aa'.repeat(20), 'dd'.repeat(50), '773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe'],
    ['0102030405060708090a0b0c0d0e0f10111213141516171819', 'cd'.repeat(50), '82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b']
  ]
  for (const [key = '', data = '', mac] of vectors) t.equal(macOf(key, data), mac)
  t.throws(() => new Mac(Buffer.alloc(65), 1, 32), RangeError)
})

t.test('HMAC-SHA-256 and HKDF keep to the public vectors', async t => {
  const folder = new URL('../../shared/vectors/', import.meta.url)
  if (!existsSync(folder)) return t.pass('the vectors are not here')
  const read = (name: string) => JSON.parse(readFileSync(new URL(name, folder), 'utf8'))

  for (const { key, data, sha256 } of read('hmac-rfc4231.json').vectors) t.equal(macOf(key, data), sha256)
  for (const { tagSize, tests } of read('hmac-sha256-wycheproof.json').groups) {
    for (const { key, msg, tag, result, tcId } of tests) t.equal(macOf(key, msg).slice(0, tagSize / 4) === tag, result === 'valid', `HMAC ${tcId}`)
  }
  for (const { tests } of read('hkdf-sha256-wycheproof.json').groups) {
    for (const { ikm, salt, info, size, okm, result, tcId } of tests) {
      const [key, saltBytes, infoBytes] = [ikm, salt, info].map(hex => Buffer.from(hex, 'hex')) as [Buffer, Buffer, Buffer]
      if (result === 'valid') t.equal(Buffer.from(hkdfSync('sha256', key, saltBytes, infoBytes, size)).toString('hex'), okm, `HKDF ${tcId}`)
      else t.throws(() => hkdfSync('sha256', key, saltBytes, infoBytes, size))
    }
  }
})

function macOf (key: string, data: string): string {
  const bytes = Buffer.from(key, 'hex')
  // RFC 2104: a key longer than a block stands for its digest.
  const mac = new Mac(bytes.length > 64 ? createHash('sha256').update(bytes).digest() : bytes, data.length / 2, 32)
  mac.sign(Buffer.alloc(data.length / 2, 0xff))
  return mac.sign(Buffer.from(data, 'hex')).toString('hex')
}

// Secrets

t.test('a secret is replaced without signing anyone out', async t => {
  const [first = '', second = ''] = newSecrets(2)
  const { registry: before, store } = await rig(t, { secret: first })
  const during = (await build(t, { secret: [second, first], store })).tokenRegistry
  const after = (await build(t, { secret: second, store })).tokenRegistry

  const { token } = await before.issue({ sub: 'alice' })
  t.equal((await during.verify(token)).session.sub, 'alice')
  await t.rejects(after.verify(token), invalid)
  const { token: successor } = await during.rotate(token)
  t.equal((await after.verify(successor)).session.sub, 'alice')
  await t.rejects(before.verify(successor), invalid)
  t.equal((await during.rotate(token)).token, successor)
})

t.test('a successor inside the window is signed by the secret that signed it first, while that is known', async t => {
  const [first = '', second = ''] = newSecrets(2)
  const { registry: before, store } = await rig(t, { secret: [first, second] })
  const during = (await build(t, { secret: [second, first], store })).tokenRegistry
  const after = (await build(t, { secret: second, store })).tokenRegistry

  const { token } = await during.issue({ sub: 'alice' })
  const { token: successor } = await before.rotate(token)
  t.equal((await during.rotate(token)).token, successor)
  const { token: resigned } = await after.rotate(token)
  t.not(resigned, successor)
  t.equal((await after.verify(resigned)).session.generation, 1)
})

t.test('weak secrets are refused at boot, named and never repeated', async t => {
  const weak = [
    '', 'short', 'x'.repeat(31), 'a'.repeat(64), 'abcabcabcabcabcabcabcabcabcabcabc', '0123456789'.repeat(4), 'password'.repeat(4), 'abcdefghijklmnopqrstuvwxyz0123456789',
    'zyxwvutsrqponmlkjihgfedcba987654321', 'change-me-please-this-is-not-a-real-one', 'your-secret-key-goes-here-9182736450', 'a1b2c3d4e5f6g7h8'.repeat(2), '\u{1f600}'.repeat(20)
  ]
  for (const secret of weak) {
    const error = await build(t, { secret }).then(() => null, (error: Error) => error)
    t.match(error, { code: 'FST_TOKEN_OPTIONS', message: /secret/ })
    if (secret !== '') t.notOk(error?.message.includes(secret))
    await t.rejects(build(t, { secret: [newSecret(), secret] }), { code: 'FST_TOKEN_OPTIONS', message: /secret\.1/ })
  }
  await t.rejects(build(t, { secret: [] }), { code: 'FST_TOKEN_OPTIONS' })
  for (const strong of [newSecret(), randomBytes(32).toString('hex'), randomBytes(24).toString('base64url'), 'correct horse battery staple is known']) t.equal(weakness(strong), null)
})

t.test('two secrets that would share a key id are refused at boot', async t => {
  const kidOf = (secret: string) => createHash('sha256').update('fastify-token-registry kid').update(secret).digest()[0]
  const [secret = '', between = ''] = newSecrets(2)
  let other = newSecret()
  while (kidOf(other) !== kidOf(secret)) other = newSecret()
  await t.rejects(build(t, { secret: [secret, between, other] }), { code: 'FST_TOKEN_OPTIONS', message: /secret\.2 has the same key id/ })
  t.throws(() => new TokenMint([]), { code: 'FST_TOKEN_OPTIONS', message: /empty/ })
  t.throws(() => new Keyring([secret], 1).sign(-1, Buffer.alloc(1)), RangeError)
  t.throws(() => new TokenMint([secret]).successor('adopted-token', 1, null), TypeError)
  await t.rejects(build(t, { secret: [secret, secret] }), { code: 'FST_TOKEN_OPTIONS', message: /secret\.1 has the same key id/ })
})
