import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Anchors } from '../../plugins/audit/anchors.ts'
import { Checkpoints } from '../../plugins/audit/checkpoints.ts'
import { fileAnchor, LedgerUnavailable, memoryLedger, webhookAnchor, type Anchor, type Head, type Ledger } from '../../plugins/audit/index.ts'
import { ed25519Of, Signer, signingKeyOf } from '../../plugins/audit/signing.ts'
import { checkpointText, leafHash, notesIn, openNote, parseCheckpoint, parseVkey } from '../../plugins/audit/verify/index.ts'
import { audited } from '../support/audited.ts'
import { newSecret } from '../support/build.ts'
import { deferred, soon } from '../support/deferred.ts'

const origin = 'example.com/audit'

function headOf (size: number): Head {
  // One leaf again and again, in a tree of a power of two: its frontier is the root alone.
  return { size, frontier: leafHash('leaf'), erasures: 0 }
}

// Signing

t.test('a checkpoint says what the log is, signed by each key', async t => {
  const keys = [0, 1].map(() => generateKeyPairSync('ed25519').privateKey)
  const signer = new Signer(origin, keys)
  const note = signer.sign(headOf(1))
  for (const vkey of signer.vkeys) t.match(openNote(note, [vkey]), { text: checkpointText({ origin, size: 1, root: leafHash('leaf') }), verifiedBy: [origin] })
  t.equal(signer.vkeys.length, 2)
  t.match(parseCheckpoint(openNote(note, signer.vkeys)?.text ?? ''), { origin, size: 1 })
  t.match(new Signer(origin, keys.slice(0, 1)).sign({ size: 0, frontier: new Uint8Array() }), /^example\.com\/audit\n0\n47DEQpj8HBSa\+/, 'of an empty log too')
})

t.test('a key is made of 32 bytes, the same of the same', async t => {
  // RFC 8032 §7.1
  const key = ed25519Of(Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex'))
  t.equal(createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(-32).toString('hex'), 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')
  const [vkey = ''] = new Signer(origin, [key]).vkeys
  t.equal(parseVkey(vkey)?.name, origin)
})

t.test('a key that cannot sign is refused, without a word of it', async t => {
  const pem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  t.equal(signingKeyOf(pem, 'signingKeys.0').asymmetricKeyType, 'ed25519')
  const others = [generateKeyPairSync('x25519').privateKey, generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey].map(key => key.export({ type: 'pkcs8', format: 'pem' }).toString())
  for (const wrong of ['', 'nonsense', pem.slice(0, 60), ...others]) t.throws(() => signingKeyOf(wrong, 'signingKeys.0'), { code: 'FST_AUDIT_OPTIONS', message: /^audit: signingKeys\.0 is no Ed25519 private key in PEM: make one with openssl/ })
})

// Anchors

/** Collects what it is sent, and fails or hangs for as long as it is told. */
function anchorRig (t: Test) {
  const state = { mode: 'well' as 'well' | 'fails' | 'throws' | 'hangs', sent: [] as number[], failures: [] as unknown[] }
  const called = [deferred(), deferred(), deferred(), deferred()]
  const held = deferred()
  let calls = 0
  const anchor: Anchor = ({ size }) => {
    state.sent.push(size)
    called[calls++]?.resolve()
    if (state.mode === 'throws') throw new Error('no')
    if (state.mode === 'fails') return Promise.reject(new Error('no'))
    if (state.mode === 'hangs') return held.promise
  }
  const anchors = new Anchors([anchor], error => { state.failures.push(error) })
  t.teardown(async () => {
    held.resolve()
    await anchors.close()
  })
  return { anchors, state, called: called.map(({ promise }) => promise), held }
}

t.test('of checkpoints that wait the latest is sent, and never an older one after it', async t => {
  const { anchors, state, called, held } = anchorRig(t)
  state.mode = 'hangs'
  for (const size of [1, 3, 2]) anchors.send({ size, note: '' })
  t.same(state.sent, [1])
  held.resolve()
  await soon(called[1] as Promise<void>)
  await anchors.close()
  t.same(state.sent, [1, 3])
  t.same(anchors.figures, { anchored: 2, failures: 0 })
})

t.test('what fails is tried again after a while, or a later one in its place', async t => {
  for (const mode of ['fails', 'throws'] as const) {
    const { anchors, state, called } = anchorRig(t)
    state.mode = mode
    anchors.send({ size: 1, note: '' })
    await called[0]
    state.mode = 'well'
    await soon(new Promise(setImmediate))
    anchors.send({ size: 2, note: '' })
    t.same(state.sent, [1])
    await soon(called[1] as Promise<void>)
    await anchors.close()
    t.same(state.sent, [1, 2])
    t.match(state.failures, [{ message: 'no' }])
    t.same(anchors.figures, { anchored: 1, failures: 1 })
  }
})

t.test('at the end what waits is sent, once', async t => {
  const waiting = anchorRig(t)
  waiting.state.mode = 'hangs'
  for (const size of [1, 2]) waiting.anchors.send({ size, note: '' })
  const closing = waiting.anchors.close()
  waiting.held.resolve()
  await soon(closing)
  t.same(waiting.state.sent, [1, 2], 'the last one too')

  const failing = anchorRig(t)
  failing.state.mode = 'fails'
  failing.anchors.send({ size: 1, note: '' })
  await failing.called[0]
  await soon(new Promise(setImmediate))
  await soon(failing.anchors.close())
  t.same(failing.state.sent, [1, 1])
})

t.test('an anchor that does not answer is given up, and tried again', async t => {
  const { anchors, state, called } = anchorRig(t)
  state.mode = 'hangs'
  const own = globalThis.setTimeout
  globalThis.setTimeout = ((work: () => void, ms?: number) => own(work, ms === 5000 ? 20 : ms)) as typeof setTimeout
  t.teardown(() => { globalThis.setTimeout = own })
  anchors.send({ size: 1, note: '' })
  await called[0]
  state.mode = 'well'
  await called[1] // soon() would be given up as well
  t.match(state.failures, [{ message: 'the anchor did not answer' }])
})

t.test('a file has one checkpoint after the other, for its owner alone', async t => {
  const directory = await mkdtemp(join(tmpdir(), 'anchor-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const path = join(directory, 'checkpoints')
  for (const note of ['one\n', 'two\n']) await fileAnchor(path)({ size: 1, note })
  t.equal(await readFile(path, 'utf8'), 'one\n\ntwo\n\n')
  const signer = new Signer(origin, [ed25519Of(randomBytes(32))])
  const notes = [1, 2, 4].map(size => signer.sign(headOf(size)))
  await writeFile(path, '')
  for (const [index, note] of notes.entries()) {
    await fileAnchor(path)({ size: index, note })
    if (index === 1) await truncate(path, (await stat(path)).size - 40) // as if it had died meanwhile
  }
  t.same(notesIn(await readFile(path, 'utf8')), [notes[0], notes[2]], 'those that are whole')
  t.same(notesIn(''), [])
  t.equal((await stat(path)).mode & 0o777, 0o600)
  await mkdir(join(directory, 'in the way'))
  await t.rejects(async () => await fileAnchor(join(directory, 'in the way'))({ size: 1, note: 'n' }), { code: 'EISDIR' })
})

async function listening (t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

t.test('a webhook is sent the checkpoint, and nothing but success is one', async t => {
  const requests: Array<{ method: string | undefined, type: string | undefined, key: unknown, body: string }> = []
  let answer: [number, Record<string, string>, string?] = [204, {}]
  const url = await listening(t, (request, response) => {
    let body = ''
    request.on('data', chunk => { body += String(chunk) }).on('end', () => {
      requests.push({ method: request.method, type: request.headers['content-type'], key: request.headers['x-key'], body })
      response.writeHead(answer[0], answer[1]).end(answer[2])
    })
  })
  const elsewhere = await listening(t, () => t.fail('it follows no redirect'))
  const anchor = webhookAnchor(url, { 'x-key': 'k' })
  const send = async () => await anchor({ size: 1, note: 'nöte\n' })
  await send()
  answer = [200, {}, 'a body that nobody reads']
  await send()
  t.strictSame(requests.at(-1), { method: 'POST', type: 'text/plain; charset=utf-8', key: 'k', body: 'nöte\n' })
  for (const status of [301, 302, 303, 307, 308]) {
    answer = [status, { location: elsewhere }]
    await t.rejects(send(), String(status))
  }
  for (const status of [304, 400, 404, 500, 503]) {
    answer = [status, {}]
    await t.rejects(send(), { message: `the anchor answered ${status}` })
  }
  await t.rejects(async () => await webhookAnchor('http://127.0.0.1:1/')({ size: 1, note: '' }))
})

t.test('a webhook goes by https, or to this machine', async t => {
  for (const url of ['https://example.com/', 'http://localhost:1/', 'http://127.0.0.1/', 'http://127.1.2.3:80/x', 'http://[::1]:1/']) t.equal(typeof webhookAnchor(url), 'function', url)
  for (const url of ['http://example.com/', 'http://127.0.0.1.example.com/', 'http://localhost.example.com', 'ftp://localhost/', 'file:///etc/passwd', 'nonsense', '']) t.throws(() => webhookAnchor(url), { code: 'FST_AUDIT_OPTIONS' }, url)
})

// Checkpoints

function checkpointsRig (t: Test, { interval = 1, ledger = memoryLedger() }: { interval?: number, ledger?: Ledger } = {}) {
  const anchored: number[] = []
  const failures: unknown[] = []
  const calls = [deferred(), deferred(), deferred()]
  const anchors = new Anchors([({ size }) => {
    calls[anchored.length]?.resolve()
    anchored.push(size)
  }], () => {})
  const signer = new Signer(origin, [ed25519Of(randomBytes(32))])
  const checkpoints = new Checkpoints({ ledger, signer, anchors, interval, check: async () => {}, failed: error => { failures.push(error) } })
  t.teardown(async () => {
    await checkpoints.close()
    await anchors.close()
  })
  return { ledger, checkpoints, anchored, failures, signer, made: calls.map(({ promise }) => promise) }
}

t.test('a log that has grown is signed after a while, what it is then', async t => {
  const { ledger, checkpoints, anchored, made, signer } = checkpointsRig(t)
  checkpoints.grown(headOf(1))
  checkpoints.grown(headOf(2))
  await soon(made[0] as Promise<void>)
  checkpoints.grown(headOf(4))
  await soon(made[1] as Promise<void>)
  t.same(anchored, [2, 4])
  const last = await ledger.lastCheckpoint()
  t.match(openNote(last?.note ?? '', signer.vkeys), { verifiedBy: [origin] })
  t.equal(last?.size, 4)
  await checkpoints.close()
  t.same(anchored, [2, 4], 'nothing is signed twice')
})

t.test('one that is asked for is there already, or made; of more than there is there is none', async t => {
  const ledger = memoryLedger()
  const { checkpoints } = checkpointsRig(t, { ledger, interval: 60_000 })
  await t.rejects(checkpoints.covering(1), { code: 'FST_AUDIT_RANGE' })
  await ledger.append(async () => ({ entries: [], tiles: [], head: headOf(2) }))
  await t.rejects(checkpoints.covering(3), { code: 'FST_AUDIT_RANGE', message: 'the log has 2 entries, fewer than 3' })
  const made = await checkpoints.covering(1)
  t.equal(made.size, 2)
  t.same(await checkpoints.covering(2), made)
  await ledger.append(async () => ({ entries: [], tiles: [], head: headOf(4) }))
  t.same(await checkpoints.covering(2), made)
  t.equal((await checkpoints.covering(4)).size, 4)
})

t.test('one that cannot be stored is told of, and made again, or a later one in its place', async t => {
  const ledger = memoryLedger()
  const failing = deferred()
  const store = ledger.addCheckpoint.bind(ledger)
  let fails = 2
  const stored: number[] = []
  ledger.addCheckpoint = async (size, note) => {
    stored.push(size)
    if (fails-- > 0) {
      if (fails === 0) checkpoints.grown(headOf(2))
      failing.resolve()
      throw new Error('no')
    }
    await store(size, note)
  }
  const { checkpoints, failures, made, anchored } = checkpointsRig(t, { ledger })
  checkpoints.grown(headOf(1))
  await soon(made[0] as Promise<void>)
  t.same(stored, [1, 1, 2])
  t.same(anchored, [2])
  t.match(failures, [{ message: 'no' }, { message: 'no' }])
})

t.test('at the end what is not signed yet is, after what is being signed; what fails then is left', async t => {
  const ledger = memoryLedger()
  const { checkpoints, failures } = checkpointsRig(t, { ledger })
  const [asked, answer] = [deferred(), deferred()]
  const store = ledger.addCheckpoint.bind(ledger)
  const sizes: number[] = []
  ledger.addCheckpoint = async (size, note) => {
    sizes.push(size)
    asked.resolve()
    await answer.promise
    if (size === 2) throw new Error('no')
    await store(size, note)
  }
  checkpoints.grown(headOf(1))
  await soon(asked.promise)
  checkpoints.grown(headOf(2))
  const closing = checkpoints.close()
  t.same(sizes, [1])
  answer.resolve()
  await soon(closing)
  t.same(sizes, [1, 2])
  t.match(failures, [{ message: 'no' }])
  t.equal((await ledger.lastCheckpoint())?.size, 1)
})

t.test('what is not what was signed before is signed no more, whatever the head of the log says', async t => {
  const [ledger, anchored] = [memoryLedger(), [] as number[]]
  const secret = newSecret()
  const open = async (): Promise<Awaited<ReturnType<typeof audited>>> => await audited(t, { ledger, checkpointInterval: 60_000, anchors: [({ size }) => { anchored.push(size) }] }, { secret })
  const { audit } = await open()
  const { head, tiles } = ledger
  const forked = { code: 'FST_AUDIT_FORKED', statusCode: 500, critical: true }
  const record = async (count: number) => { for (let i = 0; i < count; i++) await audit.record({ type: 'test' }) }
  const forge = async (size: number) => {
    ledger.head = async () => ({ size, frontier: Buffer.alloc(32 * size.toString(2).replaceAll('0', '').length, 'A'), erasures: 0 })
    await t.rejects(audit.checkpoint(), forked, `${size} entries`)
    ledger.head = head.bind(ledger)
  }
  await forge(1)
  await forge(1024)
  await record(3)
  await audit.checkpoint()
  await record(1)
  await forge(1024)
  await forge(5)
  ledger.head = async () => ({ ...await head.call(ledger), frontier: Buffer.alloc(7) })
  await t.rejects(audit.checkpoint(), forked)
  ledger.head = head.bind(ledger)
  ledger.tiles = async () => { throw new LedgerUnavailable('test') }
  await record(300)
  await t.rejects(audit.checkpoint(), { code: 'FST_AUDIT_UNAVAILABLE' })
  ledger.tiles = tiles.bind(ledger)
  await audit.checkpoint()
  t.same(anchored, [4, 305])
  t.match(await audit.verify(), { ok: true, signed: 305 })

  // A server that begins takes the last checkpoint there is for what was signed.
  const next = await open()
  await next.audit.checkpoint()
  t.match(await next.audit.verify(), { ok: true, signed: 306 })
})

t.test('keys of one\'s own sign, several side by side, and those that went before still count', async t => {
  const pem = () => String(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const ledger = memoryLedger()
  const [first, second, third] = [pem(), pem(), pem()]
  const before = await audited(t, { ledger, signingKeys: [first, second], origin: 'example.com/audit', masterKeys: [newSecret()] })
  const note = await before.audit.checkpoint()
  t.equal(note.split('\n— ').length, 3)
  for (const vkey of before.audit.vkeys) t.match(openNote(note, [vkey]), { verifiedBy: ['example.com/audit'] })
  const after = await audited(t, { ledger, signingKeys: [third], formerKeys: before.audit.vkeys.slice(1), origin: 'example.com/audit', masterKeys: [newSecret(), newSecret()] }).catch((error: unknown) => error)
  t.match(after, { code: 'FST_AUDIT_KEY' }, 'a master key that is missing is noticed at once')
  t.equal(await before.audit.rewrapKeys(), 0)
})

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
})
