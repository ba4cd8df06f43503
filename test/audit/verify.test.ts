import { generateKeyPairSync, randomInt } from 'node:crypto'
import t from 'tap'
import { checkpointText, emptyRoot, Frontier, leafHash, lineOf, recordsOf, signNote, verifyLog, vkeyOf, type LogRecord, type LogVerdict, type NoteSigner, type VerifyLogOptions } from '../../plugins/audit/verify/index.ts'

const TILE = 256
const origin = 'example.com/audit'
const { signer, vkey } = newSigner()

type Leaves = readonly string[]

function newSigner (): { signer: NoteSigner, vkey: string } {
  const { privateKey } = generateKeyPairSync('ed25519')
  return { signer: { name: origin, privateKey }, vkey: vkeyOf(origin, privateKey) }
}

function leafOf (seq: number, more: Record<string, unknown> = {}): string {
  return JSON.stringify({ at: '2026-01-01T00:00:00.000Z', data: null, id: `id of ${seq}`, outcome: 'success', seq, type: 'session.start', ...more })
}

function leavesOf (size: number, others: Record<number, string> = {}): string[] {
  return Array.from({ length: size }, (_, seq) => others[seq] ?? leafOf(seq))
}

function rootOf (leaves: Leaves): Buffer {
  const frontier = Frontier.from()
  for (const leaf of leaves) frontier.append(leafHash(leaf))
  return frontier.root()
}

/** Of the first of some leaves. */
function checkpointOf (leaves: Leaves, size = leaves.length, by = signer, of = origin): string {
  return signNote(checkpointText({ origin: of, size, root: rootOf(leaves.slice(0, size)) }), [by])
}

interface Shape {
  /** Whether hashes of each tile are there. */
  hashes?: boolean
  /** Sizes. */
  checkpoints?: readonly number[]
  /** Entries before it have only their hashes. */
  from?: number
  /** What was recorded, of which hashes and checkpoints are. */
  recorded?: Leaves
}

/** As a ledger has it: entries lie in order, each one where it lies. */
function recordsFor (leaves: Leaves, { hashes = true, checkpoints = [], from = 0, recorded = leaves }: Shape = {}): LogRecord[] {
  const records: LogRecord[] = []
  for (let start = 0; start < Math.max(leaves.length, recorded.length); start += TILE) {
    records.push(...leaves.slice(start, start + TILE).flatMap((leaf, index): LogRecord[] => start + index < from ? [] : [{ kind: 'entry', seq: start + index, leaf }]))
    if (hashes) records.push({ kind: 'hashes', from: start, hashes: Buffer.concat(recorded.slice(start, start + TILE).map(leaf => leafHash(leaf))) })
    records.push(...checkpoints.filter(size => size > start && size <= start + TILE).map((size): LogRecord => ({ kind: 'checkpoint', note: checkpointOf(recorded, size) })))
  }
  return records
}

async function * each<T> (values: Iterable<T>): AsyncGenerator<T> {
  yield * values
}

async function verified (records: Iterable<LogRecord>, options: Partial<VerifyLogOptions> = {}): Promise<LogVerdict> {
  return await verifyLog(each(records), { vkeys: [vkey], origin, ...options })
}

/** The same, written as lines and read again. */
async function throughLines (records: Iterable<LogRecord>, options: Partial<VerifyLogOptions> = {}): Promise<LogVerdict> {
  return await verifyLog(recordsOf(each([...records].map(lineOf))), { vkeys: [vkey], origin, ...options })
}

async function shortly (verdict: Promise<LogVerdict>): Promise<string> {
  const told = await verdict
  return told.ok ? `ok ${told.size}` : `${told.what} ${told.index}`
}

// What is sound

t.test('a sound log of any size agrees with its checkpoints, with hashes and without, as records and as lines', async t => {
  for (const size of [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000]) {
    const leaves = leavesOf(size)
    const checkpoints = [...new Set([1, 2, 200, 256, 257, 300, 512, size])].filter(at => at > 0 && at <= size)
    for (const hashes of [true, false]) {
      const records = recordsFor(leaves, { hashes, checkpoints })
      const sound = { ok: true, size, root: rootOf(leaves).toString('base64'), signed: Math.max(0, ...checkpoints), checkpoints: checkpoints.length, pruned: 0 }
      t.same(await verified(records), sound)
      t.same(await throughLines(records), sound)
    }
  }
})

t.test('checkpoints may stand anywhere: all before the entries, all after them, among them, in any order, more than once', async t => {
  const leaves = leavesOf(600)
  for (const hashes of [true, false]) {
    const entries = recordsFor(leaves, { hashes })
    const checkpoints = [600, 0, 1, 300, 256, 255, 300].map((size): LogRecord => ({ kind: 'checkpoint', note: checkpointOf(leaves, size) }))
    t.match(await verified([...checkpoints, ...entries]), { ok: true, checkpoints: 7 })
    t.match(await verified([...entries, ...checkpoints]), { ok: true, checkpoints: 7 })
    for (let round = 0; round < 20; round++) {
      const records = [...entries]
      for (const checkpoint of checkpoints) records.splice(randomInt(records.length + 1), 0, checkpoint)
      t.match(await verified(records), { ok: true, size: 600, checkpoints: 7 })
    }
  }
})

t.test('a checkpoint that comes some hundred thousand entries late is told so', async t => {
  const size = 1024 * TILE + 600
  const early = leavesOf(300)
  async function * records (): AsyncGenerator<LogRecord> {
    for (let seq = 0; seq < size; seq++) yield { kind: 'entry', seq, leaf: early[seq] ?? `{"seq":${seq}}` }
    for (const at of [0, 300]) yield { kind: 'checkpoint', note: checkpointOf(early, at) }
  }
  t.same(await verifyLog(records(), { vkeys: [vkey] }), { ok: false, index: 300, what: 'unreadable', message: 'the checkpoint of size 300 comes more than 262144 entries late: give it as one that was kept elsewhere' })
})

t.test('who waits is told of progress, up to the end', async t => {
  const seen: number[] = []
  await verified(recordsFor(leavesOf(5000)), { onProgress: seq => seen.push(seq) })
  t.ok(seen.length > 3)
  t.same(seen, [...seen].sort((a, b) => a - b))
  t.equal(seen.at(-1), 5000)
})

t.test('others get their turn meanwhile', async t => {
  let turns = 0
  const turn = setInterval(() => turns++, 0)
  await verified(recordsFor(leavesOf(20_000), { hashes: false }))
  clearInterval(turn)
  t.ok(turns > 1)
})

// What is altered

interface Case {
  leaves: Leaves
  /** What is told where hashes are there, and where they are not. */
  hashed: string
  bare: string
}

const three = leavesOf(3 * TILE)
const forged = leafOf(9999, { type: 'forged' })

function without (at: number, count = 1): Leaves {
  return three.toSpliced(at, count)
}

function swap (a: number, b: number): Leaves {
  return three.with(a, three[b] ?? '').with(b, three[a] ?? '')
}

const cases: Record<string, Case> = {
  'an entry is edited': { leaves: three.with(300, leafOf(300, { type: 'session.end' })), hashed: 'edited 300', bare: 'edited 256' },
  'the first entry is edited': { leaves: three.with(0, leafOf(0, { type: 'session.end' })), hashed: 'edited 0', bare: 'edited 0' },
  'the last entry is edited': { leaves: three.with(767, leafOf(767, { type: 'session.end' })), hashed: 'edited 767', bare: 'edited 512' },
  'white space is put into an entry': { leaves: three.with(300, `${three[300]} `), hashed: 'edited 300', bare: 'edited 256' },
  'an entry says another place': { leaves: three.with(300, forged), hashed: 'swapped 300', bare: 'swapped 300' },
  'an entry is no JSON': { leaves: three.with(300, 'nothing'), hashed: 'edited 300', bare: 'unreadable 300' },
  'an entry is deleted, and those after it moved': { leaves: without(300), hashed: 'deleted 300', bare: 'deleted 300' },
  'the first entry is deleted, and those after it moved': { leaves: without(0), hashed: 'deleted 0', bare: 'deleted 0' },
  'the last entry of a tile is deleted, and those after it moved': { leaves: without(511), hashed: 'deleted 511', bare: 'deleted 511' },
  'a tile is deleted, and those after it moved': { leaves: without(256, 256), hashed: 'deleted 256', bare: 'deleted 256' },
  'two are swapped': { leaves: swap(300, 301), hashed: 'swapped 300', bare: 'swapped 300' },
  'two that are far from one another are swapped': { leaves: swap(300, 400), hashed: 'swapped 300', bare: 'swapped 300' },
  'two of different tiles are swapped': { leaves: swap(100, 700), hashed: 'swapped 100', bare: 'swapped 100' },
  'the last two of a tile are swapped': { leaves: swap(510, 511), hashed: 'swapped 510', bare: 'swapped 510' },
  'the last of a tile and the first of the next are swapped': { leaves: swap(511, 512), hashed: 'swapped 511', bare: 'swapped 511' },
  'the last two of the log are swapped': { leaves: swap(766, 767), hashed: 'swapped 766', bare: 'swapped 766' },
  'one is put in, and those after it moved': { leaves: three.toSpliced(300, 0, leafOf(300, { type: 'forged' })), hashed: 'inserted 300', bare: 'inserted 301' },
  'an older one is put in again, and those after it moved': { leaves: three.toSpliced(300, 0, leafOf(100)), hashed: 'inserted 300', bare: 'inserted 300' },
  'one is put in as the first, and those after it moved': { leaves: three.toSpliced(0, 0, leafOf(0, { type: 'forged' })), hashed: 'inserted 0', bare: 'inserted 1' },
  'entries at the end are dropped': { leaves: three.slice(0, 700), hashed: 'deleted 700', bare: 'truncated 700' },
  'all entries are dropped': { leaves: [], hashed: 'deleted 0', bare: 'truncated 0' }
}

t.test('a log that was altered is told so, how and where: by the hashes that were stored of it, or by what entries say and checkpoints', async t => {
  for (const [what, { leaves, hashed, bare }] of Object.entries(cases)) {
    const checkpoints = [256, 512, 768]
    t.equal(await shortly(verified(recordsFor(leaves, { recorded: three, checkpoints }))), hashed, `${what}: with hashes`)
    t.equal(await shortly(verified(recordsFor(leaves, { recorded: three, checkpoints, hashes: false }))), bare, `${what}: without`)
  }
})

t.test('rows that are missing, and rows that are there twice, are told where they are', async t => {
  const checkpoints = [256, 512, 768]
  const isAt = (record: LogRecord, ...seqs: readonly number[]): boolean => record.kind === 'entry' && seqs.includes(record.seq)
  for (const hashes of [true, false]) {
    const records = recordsFor(three, { checkpoints, hashes })
    const indexOf = (seq: number): number => records.findIndex(record => isAt(record, seq))
    for (const seq of [0, 1, 255, 256, 300, 511, 512, 766]) t.equal(await shortly(verified(records.filter(record => !isAt(record, seq)))), `deleted ${seq}`, `${seq} is missing`)
    t.equal(await shortly(verified(records.filter(record => !isAt(record, 767)))), hashes ? 'deleted 767' : 'truncated 767')
    t.equal(await shortly(verified(records.filter(record => !isAt(record, 5, 6, 7)))), 'deleted 5')
    t.equal(await shortly(verified(records.filter(record => !(record.kind === 'entry' && record.seq >= 256 && record.seq < 512)))), 'deleted 256', 'a whole tile is missing')

    for (const seq of [0, 254, 255, 300, 511, 767]) {
      const again: LogRecord = { kind: 'entry', seq, leaf: leafOf(seq, { type: 'forged' }) }
      t.equal(await shortly(verified(records.toSpliced(indexOf(seq) + 1, 0, again))), `inserted ${seq}`, `${seq} is there twice, the forged one after it`)
      t.equal(await shortly(verified(records.toSpliced(indexOf(seq), 0, again))), `inserted ${seq}`, `${seq} is there twice, the forged one before it`)
    }
    const [a, b] = [indexOf(300), indexOf(301)]
    t.equal(await shortly(verified(records.with(a, records[b] as LogRecord).with(b, records[a] as LogRecord))), 'swapped 300', 'two lie in the wrong order')
  }
})

t.test('lines that are changed, missing, there twice or in the wrong order are told where they are', async t => {
  const changes: Record<string, { lines: (lines: string[]) => string[], hashed: string, bare: string }> = {
    nothing: { lines: lines => lines, hashed: 'ok 768', bare: 'ok 768' },
    'empty lines': { lines: lines => ['', ...lines.flatMap(line => [line, ''])], hashed: 'ok 768', bare: 'ok 768' },
    edited: { lines: lines => lines.map(line => line.replace('id of 300', 'id of 30O')), hashed: 'edited 300', bare: 'edited 256' },
    missing: { lines: lines => lines.filter(line => !line.includes('"id of 300"')), hashed: 'deleted 300', bare: 'deleted 300' },
    twice: { lines: lines => lines.flatMap(line => line.includes('"id of 300"') ? [line, line] : [line]), hashed: 'inserted 300', bare: 'inserted 300' },
    renumbered: { lines: lines => lines.filter(line => !line.includes('"id of 300"')).map(line => line.replace(/"seq":(\d+)/, (_, seq) => `"seq":${Number(seq) > 300 ? Number(seq) - 1 : seq}`)), hashed: 'edited 300', bare: 'edited 256' },
    unreadable: { lines: lines => lines.map(line => line.includes('"id of 300"') ? line.slice(0, -1) : line), hashed: 'edited 300', bare: 'unreadable 300' },
    'cut off': { lines: lines => lines.slice(0, lines.findIndex(line => line.includes('"id of 700"'))), hashed: 'ok 700', bare: 'ok 700' },
    'what is no hashes': { lines: lines => [...lines, '{"hashes":{"from":-1,"sha256":""}}'], hashed: 'unreadable 768', bare: 'unreadable 768' },
    'hashes that are not whole': { lines: lines => [...lines, '{"hashes":{"from":768,"sha256":"AAAA"}}'], hashed: 'unreadable null', bare: 'unreadable null' },
    'what is no checkpoint': { lines: lines => [...lines, '{"checkpoint":"nothing"}'], hashed: 'unreadable null', bare: 'unreadable null' },
    'a header that is not the first line': { lines: lines => [...lines, '{"log":"example.com/audit"}'], hashed: 'unreadable 768', bare: 'unreadable 768' },
    null: { lines: lines => [...lines, 'null'], hashed: 'unreadable 768', bare: 'unreadable 768' },
    'a list': { lines: lines => [...lines, '[]'], hashed: 'unreadable 768', bare: 'unreadable 768' },
    'a seq that is none': { lines: lines => [...lines, '{"seq":-1}'], hashed: 'unreadable 768', bare: 'unreadable 768' },
    'a seq that is too large': { lines: lines => [...lines, '{"seq":1e999}'], hashed: 'unreadable 768', bare: 'unreadable 768' }
  }
  for (const [what, { lines, hashed, bare }] of Object.entries(changes)) {
    for (const [hashes, expected] of [[true, hashed], [false, bare]] as const) {
      const whole = ['{"log":"example.com/audit","version":1}', ...recordsFor(three, { hashes, checkpoints: [256, 512] }).map(lineOf)]
      t.equal(await shortly(verifyLog(recordsOf(each(lines(whole))), { vkeys: [vkey], origin })), expected, `${what}, ${hashes ? 'with' : 'without'} hashes`)
    }
  }
})

t.test('what is written as lines is read as it was', async t => {
  const records = [...recordsFor(leavesOf(300), { checkpoints: [100, 256], from: 256 }), ...recordsFor(['nothing'], { hashes: false }).map(record => ({ ...record, seq: 300 }))]
  const read: LogRecord[] = []
  for await (const record of recordsOf(each(records.map(lineOf)))) read.push(record)
  t.same(read.map(record => record.kind === 'entry' ? { kind: record.kind, seq: record.seq, leaf: record.leaf } : record), records)
  for (const record of read) if (record.kind === 'entry' && record.leaf !== 'nothing') t.same(record.value, JSON.parse(record.leaf))
})

// Who altered it

t.test('a log that was written anew, with its hashes, shows by checkpoints alone', async t => {
  const leaves = three.with(300, leafOf(300, { type: 'forged' }))
  const checkpoints = (recorded: Leaves, ...sizes: number[]): LogRecord[] => sizes.map(size => ({ kind: 'checkpoint', note: checkpointOf(recorded, size) }))
  t.equal(await shortly(verified([...recordsFor(leaves), ...checkpoints(three, 200, 256, 768)])), 'forked 256')
  t.equal(await shortly(verified([...checkpoints(three, 768), ...recordsFor(leaves), ...checkpoints(three, 256)])), 'forked 0')
  t.equal(await shortly(verified(recordsFor(leaves), { outside: [checkpointOf(three, 256), checkpointOf(three, 768)] })), 'forked 256')
  t.equal(await shortly(verified(recordsFor(leaves, { hashes: false }), { outside: [checkpointOf(three, 768)] })), 'forked 0')
  t.equal(await shortly(verified(recordsFor(leaves))), 'ok 768', 'without any nothing shows')
  t.equal(await shortly(verified(recordsFor(leaves, { checkpoints: [768] }))), 'ok 768', 'nor where the key was there too')
  t.equal(await shortly(verified(recordsFor(leaves, { checkpoints: [768] }), { outside: [checkpointOf(three, 700)] })), 'forked 0')
})

t.test('checkpoints that contradict one another are told so, wherever they stand', async t => {
  const other = three.with(300, forged)
  const [sound, false_] = [[700, three], [700, other]].map(([size, leaves]): LogRecord => ({ kind: 'checkpoint', note: checkpointOf(leaves as Leaves, Number(size)) })) as [LogRecord, LogRecord]
  const entries = recordsFor(three)
  for (const records of [[sound, false_, ...entries], [false_, sound, ...entries], [sound, ...entries, false_], [...entries, sound, false_]]) {
    const verdict = await verified(records)
    t.match(verdict, { ok: false, what: 'forked', message: /^checkpoints contradict one another at size 700/ })
  }
  t.match(await verified([...entries, sound], { outside: [checkpointOf(other, 700)] }), { ok: false, what: 'forked' })
  t.equal(await shortly(verified([...entries, sound], { outside: [checkpointOf(three, 700)] })), 'ok 768')
})

t.test('a log that ends before what was signed is truncated', async t => {
  const short = three.slice(0, 700)
  for (const hashes of [true, false]) {
    const records = recordsFor(short, { hashes })
    t.equal(await shortly(verified(records)), 'ok 700', 'which does not show by itself')
    const verdict = await verified(records, { outside: [checkpointOf(three, 768), checkpointOf(three, 750), checkpointOf(three, 700)] })
    t.same(verdict, { ok: false, what: 'truncated', index: 700, message: 'the log has 700 entries, where 750 were signed' })
    t.equal(await shortly(verified([...records, { kind: 'checkpoint', note: checkpointOf(three) }])), 'truncated 700')
    t.equal(await shortly(verified([], { outside: [checkpointOf(three)] })), 'truncated 0')
  }
})

t.test('a checkpoint by a key that is not trusted is told, with where the last one by a trusted key was', async t => {
  const other = newSigner()
  const resigned: LogRecord = { kind: 'checkpoint', note: checkpointOf(three, 600, other.signer) }
  const records = recordsFor(three, { checkpoints: [256, 512] })
  t.equal(await shortly(verified([...records, resigned])), 're-signed 512')
  t.equal(await shortly(verified([resigned, ...records])), 're-signed 0')
  t.equal(await shortly(verified(records, { outside: [checkpointOf(three, 600, other.signer)] })), 're-signed 0')
  t.equal(await shortly(verified([...records, resigned], { vkeys: [other.vkey, vkey] })), 'ok 768', 'as after a rotation')
  const touched = checkpointOf(three, 600).replace('\n600\n', '\n599\n')
  t.equal(await shortly(verified([...records, { kind: 'checkpoint', note: touched }])), 're-signed 512')
})

t.test('the log of somebody else is told apart', async t => {
  const note = checkpointOf(three, 600, signer, 'example.com/other')
  const verdict = await verified([...recordsFor(three), { kind: 'checkpoint', note }])
  t.same(verdict, { ok: false, what: 'forked', index: null, message: 'the checkpoint in the log is of another log, example.com/other' })
  t.equal(await shortly(verified(recordsFor(three), { outside: [note] })), 'forked null')
  t.match(await verifyLog(each([...recordsFor(three), { kind: 'checkpoint' as const, note }]), { vkeys: [vkey] }), { ok: true, checkpoints: 1 }, 'where nobody says which it has to be')
})

t.test('what is no checkpoint, entry or hashes is unreadable', async t => {
  const records = recordsFor(three)
  for (const note of ['', 'nothing', signNote('nothing\n', [signer]), checkpointText({ origin, size: 1, root: emptyRoot })]) {
    t.equal(await shortly(verified([...records, { kind: 'checkpoint', note }])), 'unreadable null')
    t.equal(await shortly(verified(records, { outside: [note] })), 'unreadable null')
  }
  for (const leaf of ['', '{', 'null', '5', '[]', '{}', '{"seq":"768"}', '{"seq":768.5}', '{"seq":-1}', '{"seq":null}', '{"seq":768,"x":"\ud800"}', '['.repeat(100_000)]) {
    t.equal(await shortly(verified([...records, { kind: 'entry', seq: 768, leaf }])), 'unreadable 768', leaf.slice(0, 40))
  }
  for (const [from, bytes] of [[768, 33], [768, 31], [-1, 32], [0.5, 32], [NaN, 32]] as const) t.equal(await shortly(verified([...records, { kind: 'hashes', from, hashes: Buffer.alloc(bytes) }])), 'unreadable null')
  t.equal(await shortly(verified([...records, { kind: 'hashes', from: 768, hashes: Buffer.alloc(0) }])), 'ok 768')
  t.equal(await shortly(verified([...records, { kind: 'hashes', from: 800, hashes: Buffer.alloc(32) }])), 'deleted 768')
})

t.test('what cannot be read from where it lies is not taken for what is wrong with the log', async t => {
  async function * broken (): AsyncGenerator<LogRecord> {
    yield * recordsFor(leavesOf(3))
    throw new Error('disk')
  }
  await t.rejects(verifyLog(broken(), { vkeys: [vkey] }), new Error('disk'))
  await t.rejects(verifyLog(each(recordsFor(three)), { vkeys: ['no key'] }), TypeError)
})

// What was pruned

function prune (seq: number, before: unknown, more: Record<string, unknown> = {}): string {
  return leafOf(seq, { type: 'audit.prune', data: { before }, ...more })
}

t.test('contents that were pruned may be missing where an entry says so', async t => {
  const leaves = leavesOf(1000, { 900: prune(900, 512) })
  for (const verify of [verified, throughLines]) {
    t.match(await verify(recordsFor(leaves, { from: 512, checkpoints: [1, 256, 300, 600, 1000] })), { ok: true, size: 1000, root: rootOf(leaves).toString('base64'), checkpoints: 5, pruned: 512 })
    t.match(await verify(recordsFor(leaves, { from: 256 })), { ok: true, pruned: 256 })
    t.match(await verify(recordsFor(leaves)), { ok: true, pruned: 0 })
  }
  const twice = leavesOf(1000, { 400: prune(400, 256), 900: prune(900, 512), 950: prune(950, 256) })
  t.match(await verified(recordsFor(twice, { from: 512 })), { ok: true, pruned: 512 })
})

t.test('contents that are missing are deleted where no entry says that they were pruned', async t => {
  const sayings = {
    nothing: leafOf(900),
    'fewer of them': prune(900, 256),
    'that it failed': prune(900, 512, { outcome: 'failure' }),
    'that something else was done': prune(900, 512, { type: 'audit.start' }),
    'no number': prune(900, '512'),
    'less than nothing': prune(900, -1),
    'more than there was': prune(900, 901),
    'no data': leafOf(900, { type: 'audit.prune', data: null }),
    'no place': leafOf(900, { type: 'audit.prune' })
  }
  for (const [what, leaf] of Object.entries(sayings)) {
    const leaves = leavesOf(1000, { 900: leaf })
    t.equal(await shortly(verified(recordsFor(leaves, { from: 512 }))), what === 'fewer of them' ? 'deleted 256' : 'deleted 0', what)
  }
  const leaves = leavesOf(1000, { 900: prune(900, 512) })
  t.equal(await shortly(verified(recordsFor(leaves, { from: 513 }))), 'deleted 512', 'one more')
  t.equal(await shortly(verified(recordsFor(leaves, { from: 1000 }))), 'deleted 0', 'with that entry')
  t.equal(await shortly(verified(recordsFor(leaves, { from: 512 }).filter(record => record.kind !== 'entry' || record.seq < 600 || record.seq > 700))), 'deleted 600')
})

t.test('hashes of what was pruned are compared with checkpoints', async t => {
  const leaves = leavesOf(1000, { 900: prune(900, 512) })
  const altered = leaves.with(300, forged)
  t.equal(await shortly(verified(recordsFor(leaves, { from: 512, recorded: altered, checkpoints: [1000] }).map(record => record.kind === 'checkpoint' ? { ...record, note: checkpointOf(leaves) } : record))), 'forked 0')
})

// What is not looked at

t.test('contents before a place need not be there, and their hashes have to', async t => {
  for (const since of [1, 255, 256, 300, 512, 767, 768, 5000]) {
    t.match(await verified(recordsFor(three, { from: since, checkpoints: [100, 256, 700] }), { since }), { ok: true, size: 768, checkpoints: 3, pruned: 0 }, `since ${since}`)
    t.match(await verified(recordsFor(three, { checkpoints: [100, 256, 700] }), { since }), { ok: true, size: 768, checkpoints: 3, pruned: 0 }, 'and may be')
  }
  t.equal(await shortly(verified(recordsFor(three, { from: 300, hashes: false }), { since: 300 })), 'deleted 0')
  t.equal(await shortly(verified(recordsFor(three, { from: 301 }), { since: 300 })), 'deleted 0')
  t.equal(await shortly(verified(recordsFor(three.with(400, forged), { from: 300, recorded: three }), { since: 300 })), 'swapped 400')
  t.equal(await shortly(verified(recordsFor(three.with(400, leafOf(400, { type: 'forged' })), { from: 300, recorded: three }), { since: 300 })), 'edited 400')
})

t.test('where contents were pruned up to after that place, an entry has to say so', async t => {
  const leaves = leavesOf(1000, { 900: prune(900, 512) })
  t.match(await verified(recordsFor(leaves, { from: 512 }), { since: 100 }), { ok: true, pruned: 512 })
  t.match(await verified(recordsFor(leaves, { from: 950 }), { since: 950 }), { ok: true, pruned: 0 })
  t.equal(await shortly(verified(recordsFor(leaves, { from: 768 }), { since: 100 })), 'deleted 512')
})

// What is made to be in the way

t.test('a log that is out of order everywhere is not kept whole', async t => {
  const hostile: Record<string, Iterable<LogRecord>> = {
    'one place': leavesOf(5000).map((leaf): LogRecord => ({ kind: 'entry', seq: 0, leaf })),
    backwards: leavesOf(5000).map((leaf, seq): LogRecord => ({ kind: 'entry', seq, leaf })).reverse(),
    'the same entry': leavesOf(5000).map((): LogRecord => ({ kind: 'entry', seq: 0, leaf: leafOf(0) }))
  }
  for (const [what, records] of Object.entries(hostile)) t.match(await verified(records), { ok: false }, what)
})

t.test('hashes that come far too late, or again, are looked at as far as is remembered', async t => {
  const leaves = leavesOf(600)
  const all = (recorded: Leaves): LogRecord => ({ kind: 'hashes', from: 0, hashes: Buffer.concat(recorded.map(leaf => leafHash(leaf))) })
  const bare = recordsFor(leaves, { hashes: false })
  t.equal(await shortly(verified([...bare, all(leaves), all(leaves)])), 'ok 600')
  t.equal(await shortly(verified([...bare, all(leaves.with(300, forged))])), 'edited 300')
  t.equal(await shortly(verified([...bare, all(leavesOf(601))])), 'deleted 600')
  t.equal(await shortly(verified([all(leaves), ...bare])), 'inserted 600', 'before their entries they are taken for pruned ones')
})

t.test('hashes of entries that are forgotten are told so', async t => {
  const size = 1025 * TILE
  const hashes = Buffer.concat(Array.from({ length: TILE }, () => leafHash('any')))
  const records = Array.from({ length: size / TILE }, (_, index): LogRecord => ({ kind: 'hashes', from: index * TILE, hashes }))
  const again = (from: number): LogRecord => ({ kind: 'hashes', from, hashes })
  t.match(await verified([...records, again(TILE)], { since: size }), { ok: true, size })
  t.same(await verified([...records, again(0)], { since: size }), { ok: false, what: 'unreadable', index: 0, message: 'hashes of 0 come too late' })
})

t.test('whatever is done to a log by chance is told, no later than where it was done', async t => {
  for (let round = 0; round < 50; round++) {
    const size = 2 + randomInt(700)
    const leaves = leavesOf(size)
    const place = randomInt(size - 1)
    const other = place + 1 + randomInt(Math.min(size - place - 1, 300))
    const hashes = randomInt(2) === 0
    const altered: Record<string, Leaves> = {
      edit: leaves.with(place, leafOf(place, { type: `forged ${round}` })),
      replace: leaves.with(place, leafOf(other)),
      garble: leaves.with(place, `${leaves[place]}x`),
      delete: leaves.toSpliced(place, 1 + randomInt(300)),
      insert: leaves.toSpliced(place, 0, leafOf([place, other][randomInt(2)] ?? 0, { type: 'forged' })),
      swap: leaves.with(place, leaves[other] ?? '').with(other, leaves[place] ?? ''),
      turn: [...leaves.slice(0, place), ...leaves.slice(place).reverse()],
      cut: leaves.slice(0, place)
    }
    const checkpoints = [...new Set([1 + randomInt(size), size])].sort((a, b) => a - b)
    for (const [what, entries] of Object.entries(altered)) {
      const records = recordsFor(entries, { recorded: leaves, hashes, checkpoints })
      for (const verify of [verified, throughLines]) {
        const verdict = await verify(records)
        // A line lies where it says that it does; before all that come after it, hashes alone are taken for what was pruned.
        const last = verify === verified ? place : { insert: other, turn: size }[what] ?? place
        if (verdict.ok || verdict.index === null || verdict.index > last + 1) t.fail(`${what} at ${place} of ${size}, and ${other}, ${hashes ? 'with' : 'without'} hashes`, { verdict })
      }
    }
  }
})
