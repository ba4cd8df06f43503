import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import { checkpointText, Frontier, leafHash, openNote, parseCheckpoint, parseVkey, signNote, vkeyOf, verifyReceipt, type NoteSigner, type Receipt } from '../../plugins/audit/verify/index.ts'
import { inclusionProof } from '../../plugins/audit/tree/index.ts'

const peter = 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'
const quote = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
const byPeter = '— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n'

function newSigner (name = 'example.com/audit'): NoteSigner & { vkey: string } {
  const { privateKey } = generateKeyPairSync('ed25519')
  return { name, privateKey, vkey: vkeyOf(name, privateKey) }
}

/** A signature line of text as it stands, sound or not. */
function signatureOf (text: string, { name, privateKey, vkey }: NoteSigner & { vkey: string }): string {
  const id = Buffer.from(vkey.split('+')[1] ?? '', 'hex')
  return `— ${name} ${Buffer.concat([id, sign(null, Buffer.from(text), privateKey)]).toString('base64')}\n`
}

// Notes

t.test('the note that golang.org/x/mod/sumdb/note shows is opened', async t => {
  t.same(openNote(`${quote}\n${byPeter}`, [peter]), { text: quote, verifiedBy: ['PeterNeumann'], unknown: [] })
  const key = parseVkey(peter)
  t.match(key, { name: 'PeterNeumann', id: 'c74f20a3' })
  t.equal(key === null ? null : vkeyOf(key.name, key.publicKey), peter)
})

t.test('the note that C2SP signed-note shows is opened', async t => {
  const note = 'This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n'
  t.same(openNote(note, ['example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k']), { text: 'This is an example message.\n', verifiedBy: ['example.com/foo'], unknown: [] })
})

t.test('a key of RFC 8032 §7.1 makes the line that it has to, by its public part too', async t => {
  const privateKey = createPrivateKey({ key: Buffer.from('302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex'), format: 'der', type: 'pkcs8' })
  const vkey = vkeyOf('rfc8032', privateKey)
  t.equal(Buffer.from(vkey.slice('rfc8032+00000000+'.length), 'base64').toString('hex'), '01d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')
  t.equal(signNote('text\n', [{ name: 'rfc8032', privateKey }]), `text\n\n${signatureOf('text\n', { name: 'rfc8032', privateKey, vkey })}`, 'Ed25519 signs the same text the same')
})

t.test('a note is opened by any trusted key that signed it, and tells of the others', async t => {
  const [log, witness, stranger] = [newSigner('log'), newSigner('witness'), newSigner('stranger')]
  const note = signNote(quote, [log, witness, stranger])
  t.same(openNote(note, [log.vkey, witness.vkey]), { text: quote, verifiedBy: ['log', 'witness'], unknown: ['stranger'] })
  t.same(openNote(note, [witness.vkey]), { text: quote, verifiedBy: ['witness'], unknown: ['log', 'stranger'] })
  t.equal(openNote(note, []), null)
  t.equal(openNote(note, [newSigner('log').vkey]), null, 'the same name is not the same key')
  t.equal(openNote(signNote(quote, []), [log.vkey]), null)
})

t.test('a key that is rotated is trusted beside the one before it, under the same name', async t => {
  const [before, after] = [newSigner('log'), newSigner('log')]
  for (const signers of [[before], [after], [before, after]]) t.same(openNote(signNote(quote, signers), [before.vkey, after.vkey])?.verifiedBy, ['log'])
})

t.test('text may hold empty lines, other notes and any letters', async t => {
  const signer = newSigner('log')
  for (const text of ['\n', 'a\n\nb\n', `${quote}\n${byPeter}`, `\n\n— log AAAA\n${quote}`, 'ünïcödé \u{1f600}\n', 'a\n\n\n']) {
    t.equal(openNote(signNote(text, [signer]), [signer.vkey])?.text, text)
  }
})

t.test('a note of which any character is changed is refused', async t => {
  const signer = newSigner('log')
  const note = signNote('example.com/audit\n7\n', [signer])
  const changed = Array.from(note, (character, at) => [
    note.slice(0, at) + note.slice(at + 1),
    note.slice(0, at) + (character === 'x' ? 'y' : 'x') + note.slice(at + 1),
    note.slice(0, at) + '\n' + note.slice(at)
  ]).flat().filter(other => other !== note)
  for (const other of changed) t.equal(openNote(other, [signer.vkey]), null, JSON.stringify(other))
  for (let end = 0; end < note.length; end++) t.equal(openNote(note.slice(0, end), [signer.vkey]), null)
})

t.test('a hostile note is refused', async t => {
  const signer = newSigner('log')
  const sound = signatureOf(quote, signer)
  const base64 = sound.trimEnd().split(' ')[2] ?? ''
  const bytes = Buffer.from(base64, 'base64')
  const line = (signature: Uint8Array): string => `— log ${Buffer.from(signature).toString('base64')}\n`
  const unknown = line(Buffer.alloc(68)).replace('log', 'other')
  t.ok(openNote(`${quote}\n${unknown}${sound}`, [signer.vkey]))
  const hostile = {
    nothing: '',
    'no signature': quote,
    'no empty line': `${quote}${sound}`,
    'no text': sound,
    'an empty line among signatures': `${quote}\n${sound}\n${sound}`,
    'an empty line at the end': `${quote}\n${sound}\n`,
    'text after the signatures': `${quote}\n${sound}more\n`,
    'a hyphen': `${quote}\n${sound.replace('—', '-')}`,
    'two spaces': `${quote}\n${sound.replace(' log', '  log')}`,
    'a tab': `${quote}\n${sound.replace(' log ', '\tlog ')}`,
    'no name': `${quote}\n${sound.replace(' log', ' ')}`,
    'a plus in a name': `${quote}\n${unknown.replace('other', 'oth+er')}${sound}`,
    'something behind': `${quote}\n${sound.replace('\n', ' x\n')}`,
    'a carriage return': `${quote}\n${sound.replace('\n', '\r\n')}`,
    'no padding': `${quote}\n${sound.replace('=', '')}`,
    'more padding': `${quote}\n${sound.replace('=', '==')}`,
    base64url: `${quote}\n${sound.replace(base64, bytes.toString('base64url'))}`,
    'bits that are left over': `${quote}\n${line(bytes).replace(/.=+\n$/, '/$&')}`,
    'a short unknown one': `${quote}\n${unknown.replace(/other .*/, 'other AAAA')}${sound}`,
    'a short signature': `${quote}\n${line(bytes.subarray(0, 67))}`,
    'a long signature': `${quote}\n${line(Buffer.concat([bytes, Buffer.of(0)]))}`,
    'a wrong one beside the right one': `${quote}\n${sound}${line(Buffer.concat([bytes.subarray(0, 4), Buffer.alloc(64)]))}`,
    'a wrong one before the right one': `${quote}\n${line(Buffer.concat([bytes.subarray(0, 4), Buffer.alloc(64)]))}${sound}`,
    'the signature of something else': `${quote}\n${signatureOf('something else\n', signer)}`,
    'too many signatures': `${quote}\n${unknown.repeat(100)}${sound}`,
    'a control character that was signed': `a\u0007\n\n${signatureOf('a\u0007\n', signer)}`,
    'a carriage return that was signed': `a\r\n\n${signatureOf('a\r\n', signer)}`,
    'text that is not well-formed': `\ud800\n\n${signatureOf('\ud800\n', signer)}`,
    'text that is too long': `${'x'.repeat(1_000_000)}\n\n${signatureOf(`${'x'.repeat(1_000_000)}\n`, signer)}`
  }
  for (const [what, note] of Object.entries(hostile)) t.equal(openNote(note, [signer.vkey]), null, what)
})

t.test('as many signatures as a note may have are looked at, and one that is there twice counts once', async t => {
  const signer = newSigner('log')
  const sound = signatureOf(quote, signer)
  const unknown = sound.replace('log', 'other')
  t.same(openNote(`${quote}\n${unknown.repeat(98)}${sound}${sound}`, [signer.vkey]), { text: quote, verifiedBy: ['log'], unknown: ['other'] })
})

t.test('what is no trusted key is told at once, not taken for none', async t => {
  const [name, id, base64] = peter.split('+') as [string, string, string]
  const key = Buffer.from(base64, 'base64')
  const other = (bytes: Uint8Array): string => `${name}+${id}+${Buffer.from(bytes).toString('base64')}`
  const none = [
    '', name, `${name}+${id}`, `+${id}+${base64}`, `Peter Neumann+${id}+${base64}`, `Peter+Neumann+${id}+${base64}`, `${name}+${id.toUpperCase()}+${base64}`, `${name}+c74f20a4+${base64}`, `${name}x+${id}+${base64}`,
    `${peter}=`, `${peter}\n`, ` ${peter}`, `${name}\u0000+${id}+${base64}`, `${name}+${id}+`, `${name}+${id}+*`, other(key.subarray(0, 32)), other(Buffer.concat([key, Buffer.of(0)])), other(Buffer.concat([Buffer.of(2), key.subarray(1)]))
  ]
  for (const vkey of none) {
    t.equal(parseVkey(vkey), null, vkey)
    t.throws(() => openNote(`${quote}\n${byPeter}`, [peter, vkey]), TypeError)
  }
  const parsed = parseVkey(peter)
  t.ok(parsed !== null && openNote(`${quote}\n${byPeter}`, [parsed]))
})

t.test('what would be no note is not signed', async t => {
  const { privateKey } = newSigner()
  const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey
  for (const text of ['', 'a', 'a\r\n', 'a\u0000\n', '\ud800\n']) t.throws(() => signNote(text, [{ name: 'log', privateKey }]), TypeError)
  for (const name of ['', 'a b', 'a+b', 'a\nb', 'a\u0000', 'a\u00a0b', 'a\u2028b']) {
    t.throws(() => signNote(quote, [{ name, privateKey }]), TypeError)
    t.throws(() => vkeyOf(name, privateKey), TypeError)
  }
  t.throws(() => signNote(quote, [{ name: 'log', privateKey: rsa }]), TypeError)
  t.throws(() => vkeyOf('log', rsa), TypeError)
})

// Checkpoints

t.test('a checkpoint is its origin, size and root, and what else stands there is handed on', async t => {
  const root = leafHash('root')
  const text = checkpointText({ origin: 'example.com/audit', size: 20852163, root })
  t.equal(text, `example.com/audit\n20852163\n${root.toString('base64')}\n`)
  t.same(parseCheckpoint(text), { origin: 'example.com/audit', size: 20852163, root, extensions: [] })
  t.same(parseCheckpoint(`${text}one\ntwo\n`)?.extensions, ['one', 'two'])
  t.equal(parseCheckpoint(checkpointText({ origin: 'o', size: 0, root }))?.size, 0)
  t.equal(parseCheckpoint(checkpointText({ origin: 'o', size: 2 ** 53 - 1, root }))?.size, 2 ** 53 - 1)
})

t.test('what is no checkpoint is not taken for one, nor made', async t => {
  const root = leafHash('root')
  const base64 = root.toString('base64')
  const none = [
    '', '\n', 'o\n', 'o\n1\n', `o\n1\n${base64}`, `\n1\n${base64}\n`, `o\n\n${base64}\n`, `o\n01\n${base64}\n`, `o\n-1\n${base64}\n`, `o\n+1\n${base64}\n`, `o\n1.0\n${base64}\n`, `o\n1e3\n${base64}\n`, `o\n0x1\n${base64}\n`, `o\n 1\n${base64}\n`, `o\n١\n${base64}\n`,
    `o\n9007199254740992\n${base64}\n`, 'o\n1\n\n', `o\n1\n${base64.slice(0, -1)}\n`, `o\n1\n${base64}=\n`, `o\n1\n${root.toString('base64url')}\n`, `o\n1\n${root.subarray(1).toString('base64')}\n`, `o\n1\n ${base64}\n`,
    `o\n1\n${base64}\n\n`, `o\n1\n${base64}\none\n\ntwo\n`, `o\n1\n${base64}\none`
  ]
  for (const text of none) t.equal(parseCheckpoint(text), null, JSON.stringify(text))
  for (const wrong of [{ origin: '' }, { origin: 'a\nb' }, { size: -1 }, { size: 0.5 }, { size: NaN }, { size: 2 ** 53 }, { root: root.subarray(1) }]) {
    t.throws(() => checkpointText({ origin: 'o', size: 1, root, ...wrong }), RangeError)
  }
})

// Receipts

async function receiptOf (signer: NoteSigner, { index = 5, size = 9, entry = (seq: number): string => JSON.stringify({ at: '2026-01-01T00:00:00.000Z', seq, type: 'session.end' }), origin = 'example.com/audit' } = {}): Promise<Receipt> {
  const leaves = Array.from({ length: size }, (_, seq) => leafHash(entry(seq)))
  const frontier = Frontier.from()
  for (const leaf of leaves) frontier.append(leaf)
  const { proof } = await inclusionProof(index, size, { tiles: async wanted => wanted.map(() => undefined), leafHashes: async (from, to) => leaves.slice(from, to) })
  const checkpoint = signNote(checkpointText({ origin, size, root: frontier.root() }), [signer])
  return { version: 1, entry: entry(index), index, size, proof: proof.map(hash => Buffer.from(hash).toString('base64')), checkpoint }
}

t.test('a receipt proves its entry by the key of the log alone', async t => {
  const signer = newSigner()
  const receipt = await receiptOf(signer)
  const again: unknown = JSON.parse(JSON.stringify(receipt))
  for (const options of [{}, { origin: 'example.com/audit' }]) {
    t.match(verifyReceipt(again, { vkeys: [newSigner().vkey, signer.vkey], ...options }), { ok: true, entry: { seq: 5, type: 'session.end' }, at: '2026-01-01T00:00:00.000Z', checkpoint: { origin: 'example.com/audit', size: 9 } })
  }
  t.ok(verifyReceipt(await receiptOf(signer, { index: 0, size: 1 }), { vkeys: [signer.vkey] }).ok)
})

t.test('a receipt of which any part is wrong proves nothing, and tells why', async t => {
  const signer = newSigner()
  const receipt = await receiptOf(signer)
  const other = await receiptOf(signer, { index: 4, size: 8 })
  const noise = (base64 = ''): string => `${base64.slice(0, -2)}${base64.at(-2) === 'B' ? 'C' : 'B'}=`
  const wrong: Record<string, Array<Record<string, unknown>>> = {
    'it is no receipt': [
      { version: 2 }, { version: '1' }, { version: undefined }, { entry: undefined }, { entry: {} }, { entry: `${receipt.entry}\ud800` }, { index: '5' }, { index: null }, { size: '9' }, { size: undefined }, { checkpoint: null }, { checkpoint: {} },
      { proof: undefined }, { proof: {} }, { proof: receipt.proof.join() }, { proof: [1] }, { proof: [null] }, { proof: Array.from({ length: 54 }, () => receipt.proof[0]) },
      { proof: ['', ...receipt.proof] }, { proof: [`${receipt.proof[0]}=`, ...receipt.proof.slice(1)] }, { proof: [` ${receipt.proof[0]}`, ...receipt.proof.slice(1)] }, { proof: [noise(receipt.proof[0]), ...receipt.proof.slice(1)] }
    ],
    'the checkpoint is not signed by a trusted key': [{ checkpoint: '' }, { checkpoint: receipt.checkpoint.replace('9', '8') }, { checkpoint: signNote(checkpointText({ origin: 'o', size: 9, root: leafHash('x') }), [newSigner()]) }],
    'what is signed is no checkpoint': [{ checkpoint: signNote(quote, [signer]) }],
    'it is of the log example.com/other': [{ checkpoint: (await receiptOf(signer, { origin: 'example.com/other' })).checkpoint }],
    'the checkpoint is of another size': [{ size: 8 }, { size: 10 }, { checkpoint: other.checkpoint }],
    'the entry is not in the log that the checkpoint signs': [
      { index: 4 }, { index: 6 }, { index: 9 }, { index: -1 }, { index: 0.5 }, { index: NaN }, { entry: `${receipt.entry} ` }, { entry: other.entry }, { entry: '' }, { proof: [] }, { proof: other.proof }, { proof: receipt.proof.slice(1) }, { proof: [...receipt.proof].reverse() },
      { proof: [...receipt.proof, ...receipt.proof.slice(0, 1)] }, { proof: receipt.proof.map((hash, index) => index === 0 ? leafHash('x').toString('base64') : hash) }
    ]
  }
  for (const [reason, changes] of Object.entries(wrong)) {
    for (const change of changes) t.same(verifyReceipt({ ...receipt, ...change }, { vkeys: [signer.vkey], origin: 'example.com/audit' }), { ok: false, reason }, JSON.stringify(change))
  }
  for (const value of [undefined, null, 0, 'x', [], {}, true]) t.same(verifyReceipt(value, { vkeys: [signer.vkey] }), { ok: false, reason: 'it is no receipt' })
  t.notOk(verifyReceipt(receipt, { vkeys: [newSigner().vkey] }).ok, 'another key of the same name')
  t.throws(() => verifyReceipt(receipt, { vkeys: ['no key'] }), TypeError)
})

t.test('what is in the log, but is no entry, or that of another place, has no receipt', async t => {
  const signer = newSigner()
  for (const entry of [() => 'no JSON', () => 'null', () => '5', () => '[]', () => '{}', (seq: number) => JSON.stringify({ at: 'x', seq: seq + 1 }), (seq: number) => JSON.stringify({ at: 'x', seq: String(seq) }), (seq: number) => JSON.stringify({ at: 5, seq })]) {
    t.same(verifyReceipt(await receiptOf(signer, { entry }), { vkeys: [signer.vkey] }), { ok: false, reason: 'the entry is none, or of another place' }, entry(5))
  }
})
