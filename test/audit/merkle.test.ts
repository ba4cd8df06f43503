import { createHash, randomInt } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { consistencyProof, inclusionProof, rootAt, TILE, TreeAppender, type HashReader, type TreeReader } from '../../plugins/audit/tree/index.ts'
import { emptyRoot, Frontier, HASH, leafHash, nodeHash, verifyConsistency, verifyInclusion } from '../../plugins/audit/verify/index.ts'

const vectors = new URL('../../../shared/vectors/', import.meta.url)

function vectorsOf (name: string): unknown {
  return JSON.parse(readFileSync(new URL(`merkle-rfc6962-${name}.json`, vectors), 'utf8'))
}

function fromHex (hex: string): Buffer {
  return Buffer.from(hex, 'hex')
}

function fromBase64 (base64: string): Buffer {
  return Buffer.from(base64, 'base64')
}

function sha256 (...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

// As RFC 6962 §2.1 has it, word for word.

type Leaves = readonly Uint8Array[]

/** Of ranges of the leaves that are made in here: equal ranges are hashed once. */
class Naive {
  readonly leaves: Leaves
  readonly #roots = new Map<string, Buffer>()

  constructor (leaves: Leaves) {
    this.leaves = leaves
  }

  root (from = 0, to = this.leaves.length): Buffer {
    const key = `${from} ${to}`
    const known = this.#roots.get(key) ?? this.#hashed(from, to)
    this.#roots.set(key, known)
    return known
  }

  path (index: number, from: number, to: number): Buffer[] {
    if (to - from === 1) return []
    const k = from + split(to - from)
    return index < k ? [...this.path(index, from, k), this.root(k, to)] : [...this.path(index, k, to), this.root(from, k)]
  }

  proof (size: number, from: number, to: number, whole = true): Buffer[] {
    if (size === to) return whole ? [] : [this.root(from, to)]
    const k = from + split(to - from)
    return size <= k ? [...this.proof(size, from, k, whole), this.root(k, to)] : [...this.proof(size, k, to, false), this.root(from, k)]
  }

  #hashed (from: number, to: number): Buffer {
    if (to === from) return sha256()
    const [leaf] = this.leaves.slice(from, from + 1)
    if (to - from === 1 && leaf !== undefined) return Buffer.from(leaf)
    const k = from + split(to - from)
    return sha256(Buffer.of(1), this.root(from, k), this.root(k, to))
  }
}

function isSame (some: Leaves, others: Leaves): boolean {
  return some.length === others.length && Buffer.concat(some).equals(Buffer.concat(others))
}

function split (size: number): number {
  let k = 1
  while (2 * k < size) k *= 2
  return k
}

function leavesOf (count: number): Buffer[] {
  return Array.from({ length: count }, (_, index) => leafHash(`leaf ${index}`))
}

/** What a ledger keeps of a tree, and how often it was read. */
class Kept implements TreeReader, HashReader {
  leaves: Uint8Array[] = []
  readonly kept = new Map<string, Uint8Array>()
  appender: TreeAppender | null = null
  frontier: Uint8Array = Buffer.alloc(0)
  reads: string[] = []

  get size (): number {
    return this.leaves.length
  }

  /** As from anew, or on. */
  async append (hashes: Leaves, anew: boolean): Promise<void> {
    const before = anew || this.appender === null ? await TreeAppender.load({ size: this.size, frontier: this.frontier }, this) : this.appender
    const { appender, frontier, tiles } = before.append(hashes)
    this.leaves.push(...hashes)
    for (const { level, index, hashes: bytes } of tiles) this.kept.set(`${level} ${index}`, bytes)
    this.appender = appender
    this.frontier = frontier
  }

  async entries (from: number, to: number): Promise<Array<{ hash: Uint8Array }>> {
    this.reads.push('entries')
    return this.leaves.slice(from, to).map(hash => ({ hash }))
  }

  async leafHashes (from: number, to: number): Promise<Uint8Array[]> {
    this.reads.push('leaves')
    return this.leaves.slice(from, to)
  }

  async tiles (wanted: ReadonlyArray<{ level: number, index: number }>): Promise<Array<Uint8Array | undefined>> {
    this.reads.push('tiles')
    return wanted.map(({ level, index }) => this.kept.get(`${level} ${index}`))
  }
}

async function keptOf (leaves: Leaves): Promise<Kept> {
  const kept = new Kept()
  await kept.append(leaves, true)
  return kept
}

t.test('the example of RFC 6962 §2.1.3 in eight leaves: each root, proof of a leaf, and proof of a beginning', async t => {
  const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'].map(fromHex)
  const rootHashes = [
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
    '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328'
  ]
  const [a, b, c, d, e, f, g, h] = inputs.map(leafHash) as [Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer]
  const frontier = Frontier.from()
  t.same(frontier.root(), emptyRoot)
  for (const [index, leaf] of [a, b, c, d, e, f, g, h].entries()) {
    t.equal(frontier.root().toString('hex'), rootHashes[index])
    frontier.append(leaf)
  }
  t.equal(frontier.root().toString('hex'), rootHashes[8])

  // RFC 6962 §2.1.3, of seven leaves d0 to d6.
  const root7 = fromHex(rootHashes[7] ?? '')
  const [gh, ij] = [nodeHash(a, b), nodeHash(c, d)]
  const [k, l] = [nodeHash(gh, ij), nodeHash(nodeHash(e, f), g)]
  const kept = await keptOf([a, b, c, d, e, f, g])
  for (const [index, leaf, proof] of [[0, a, [b, ij, l]], [3, d, [c, gh, l]], [4, e, [f, g, k]], [6, g, [nodeHash(e, f), k]]] as const) {
    t.same(await inclusionProof(index, 7, kept), { leafHash: leaf, proof })
    t.ok(verifyInclusion({ index, size: 7, leafHash: leaf, proof, root: root7 }))
  }
  for (const [from, proof] of [[3, [c, d, gh, l]], [4, [l]], [6, [nodeHash(e, f), g, k]], [7, []]] as const) {
    t.same(await consistencyProof(from, 7, kept), proof)
    t.ok(verifyConsistency({ from, to: 7, proof, fromRoot: fromHex(rootHashes[from] ?? ''), toRoot: root7 }))
  }
})

if (existsSync(vectors)) {
  t.test('the vectors of transparency-dev/merkle: roots, hashes of leaves and nodes', t => {
    interface Hasher { desc: string, kind: string, inputUtf8: string, leftUtf8: string, rightUtf8: string, want: string }
    const { leafInputs, rootsBySize, nodeHashesByLevel, hasher } = vectorsOf('roots') as { leafInputs: string[], rootsBySize: string[], nodeHashesByLevel: string[][], hasher: Hasher[] }
    const leaves = leafInputs.map(input => leafHash(fromHex(input)))
    for (const [size, root] of rootsBySize.entries()) {
      const frontier = Frontier.from()
      for (const leaf of leaves.slice(0, size)) frontier.append(leaf)
      t.equal(frontier.root().toString('hex'), root, `root of ${size} leaves`)
    }
    let row = leaves
    for (const [level, hashes] of nodeHashesByLevel.entries()) {
      t.same(row.map(hash => hash.toString('hex')), hashes, `nodes of level ${level}`)
      row = row.flatMap((hash, index) => index % 2 === 0 && row[index + 1] !== undefined ? [nodeHash(hash, row[index + 1] ?? hash)] : [])
    }
    for (const { desc, kind, inputUtf8, leftUtf8, rightUtf8, want } of hasher) {
      if (kind === 'emptyRoot') t.equal(emptyRoot.toString('hex'), want, desc)
      if (kind === 'leaf') t.same([leafHash(inputUtf8), leafHash(Buffer.from(inputUtf8))].map(hash => hash.toString('hex')), [want, want], desc)
      // A node of what are no hashes: not of this tree, whose nodes are of 64 bytes.
      if (kind === 'node') t.equal(sha256(Buffer.of(1), Buffer.from(leftUtf8), Buffer.from(rightUtf8)).toString('hex'), want, desc)
    }
    t.end()
  })
}

if (existsSync(vectors)) {
  t.test('the vectors of transparency-dev/merkle: proofs of leaves', t => {
    interface Probe { leafIdx: number, treeSize: number, root: string, leafHash: string, proof: string[] | null, desc: string, wantErr: boolean, file: string }
    const { probes } = vectorsOf('inclusion') as { probes: Probe[] }
    for (const { leafIdx, treeSize, root, leafHash, proof, desc, wantErr, file } of probes) {
      const given = { index: leafIdx, size: treeSize, leafHash: fromBase64(leafHash), proof: (proof ?? []).map(fromBase64), root: fromBase64(root) }
      t.equal(verifyInclusion(given), !wantErr, `${file}: ${desc}`)
    }
    t.end()
  })
}

if (existsSync(vectors)) {
  t.test('the vectors of transparency-dev/merkle: proofs of beginnings', t => {
    interface Probe { size1: number, size2: number, root1: string, root2: string, proof: string[] | null, desc: string, wantErr: boolean, file: string }
    const { probes } = vectorsOf('consistency') as { probes: Probe[] }
    for (const { size1, size2, root1, root2, proof, desc, wantErr, file } of probes) {
      const given = { from: size1, to: size2, proof: (proof ?? []).map(fromBase64), fromRoot: fromBase64(root1), toRoot: fromBase64(root2) }
      // One has roots of 12 bytes, and is right but for that.
      t.equal(verifyConsistency(given), !wantErr && given.fromRoot.length === HASH, `${file}: ${desc}`)
    }
    t.end()
  })
}

t.test('a frontier tells its bytes, is made of them, and refuses those that are not its', async t => {
  const naive = new Naive(leavesOf(70))
  const frontier = Frontier.from()
  for (let size = 0; size < 70; size++) {
    const again = Frontier.from(size, frontier.toBytes())
    t.equal(again.size, size)
    t.same(again.root(), naive.root(0, size))
    const copy = frontier.copy()
    copy.append(leafHash('another'))
    t.same(frontier.root(), naive.root(0, size), 'what is done to a copy is not done to it')
    frontier.append(naive.leaves[size] ?? emptyRoot)
  }
  const bytes = frontier.toBytes()
  t.equal(bytes.length, 3 * HASH)
  const refused = [[70, bytes.subarray(1)], [70, Buffer.concat([bytes, emptyRoot])], [71, bytes], [-1, Buffer.alloc(0)], [0.5, emptyRoot], [NaN, Buffer.alloc(0)], [2 ** 53, emptyRoot]] as const
  for (const [size, wrong] of refused) t.throws(() => Frontier.from(size, wrong), RangeError)
  t.equal(Frontier.from(2 ** 53 - 1, Buffer.alloc(53 * HASH)).size, 2 ** 53 - 1)
})

t.test('what was passed in can be changed afterwards', async t => {
  const leaf = Buffer.from(leafHash('leaf'))
  const frontier = Frontier.from()
  frontier.append(leaf)
  const restored = Frontier.from(1, leaf)
  leaf.fill(0)
  t.same(frontier.root(), leafHash('leaf'))
  t.same(restored.root(), leafHash('leaf'))
})

t.test('what has not the length of a hash is refused, not hashed', async t => {
  for (const wrong of [Buffer.alloc(31), Buffer.alloc(33), Buffer.alloc(0)]) {
    t.throws(() => nodeHash(wrong, emptyRoot), RangeError)
    t.throws(() => nodeHash(emptyRoot, wrong), RangeError)
    t.throws(() => Frontier.from().append(wrong), RangeError)
  }
})

t.test('in trees of 1 to 300 leaves each leaf is proved, as the naive tree has it', async t => {
  const naive = new Naive(leavesOf(300))
  const kept = await keptOf(naive.leaves)
  let wrong = 0
  for (let size = 1; size <= 300; size++) {
    const root = naive.root(0, size)
    for (let index = size <= 40 || size > 250 ? 0 : randomInt(9); index < size; index += size <= 40 ? 1 : 1 + randomInt(16)) {
      const proved = await inclusionProof(index, size, kept)
      const given = { index, size, ...proved, root }
      const forged = [{ ...given, index: index + 1 }, { ...given, leafHash: emptyRoot }, { ...given, root: emptyRoot }, { ...given, proof: [...given.proof, emptyRoot] }, { ...given, proof: given.proof.slice(0, -1), root: given.proof.length === 0 ? emptyRoot : root }]
      if (!isSame([proved.leafHash, ...proved.proof], [...naive.leaves.slice(index, index + 1), ...naive.path(index, 0, size)]) || !verifyInclusion(given) || forged.some(verifyInclusion)) wrong++
    }
  }
  t.equal(wrong, 0)
})

t.test('trees of 1 to 300 leaves begin with each smaller one, as the naive tree has it', async t => {
  const naive = new Naive(leavesOf(300))
  const kept = await keptOf(naive.leaves)
  let wrong = 0
  for (let to = 1; to <= 300; to++) {
    for (let from = to <= 40 ? 1 : 1 + randomInt(9); from <= to; from += to <= 40 ? 1 : 1 + randomInt(16)) {
      const proof = await consistencyProof(from, to, kept)
      const given = { from, to, proof, fromRoot: naive.root(0, from), toRoot: naive.root(0, to) }
      const forged = [{ ...given, fromRoot: emptyRoot }, { ...given, toRoot: emptyRoot }, { ...given, from: from - 1 }, { ...given, to: from - 1 }, { ...given, proof: [...proof, emptyRoot] }, ...proof.length === 0 ? [] : [{ ...given, proof: proof.slice(1) }, { ...given, proof: proof.slice(0, -1) }]]
      if (!isSame(proof, naive.proof(from, 0, to)) || !verifyConsistency(given) || forged.some(verifyConsistency)) wrong++
    }
  }
  t.equal(wrong, 0)
})

t.test('a proof of which a bit is changed is refused', async t => {
  const naive = new Naive(leavesOf(300))
  const kept = await keptOf(naive.leaves)
  const flipped = (proof: Leaves, place: number): Uint8Array[] => {
    const at = randomInt(HASH)
    return proof.map((hash, index) => index === place ? Uint8Array.from(hash, (byte, i) => i === at ? byte ^ 1 << randomInt(8) : byte) : hash)
  }
  const { leafHash, proof } = await inclusionProof(77, 300, kept)
  for (const place of proof.keys()) t.notOk(verifyInclusion({ index: 77, size: 300, leafHash, proof: flipped(proof, place), root: naive.root() }))
  const consistency = await consistencyProof(77, 300, kept)
  for (const place of consistency.keys()) t.notOk(verifyConsistency({ from: 77, to: 300, proof: flipped(consistency, place), fromRoot: naive.root(0, 77), toRoot: naive.root() }))
})

t.test('a tree grows the same in batches of any size, loaded anew or not, and stores only what has grown', async t => {
  const naive = new Naive(leavesOf(3000))
  for (const anew of [true, false]) {
    const kept = new Kept()
    const whole = Frontier.from()
    while (kept.size < 3000) {
      const batch = naive.leaves.slice(kept.size, kept.size + ([0, 1, 2, 255, 256, 257][randomInt(7)] ?? randomInt(700)))
      await kept.append(batch, anew)
      for (const hash of batch) whole.append(hash)
      if (Buffer.compare(kept.frontier, whole.toBytes()) !== 0) t.fail(`the frontier of ${kept.size}`)
      if (Buffer.compare(whole.root(), naive.root(0, kept.size)) !== 0) t.fail(`the root of ${kept.size}`)
    }
    t.same([...kept.kept.keys()].sort(), [...Array.from({ length: 11 }, (_, index) => `0 ${index}`), '1 0'].sort())
    t.same(kept.kept.get('1 0'), Buffer.concat(Array.from({ length: 11 }, (_, index) => naive.root(index * TILE, (index + 1) * TILE))))
  }
})

t.test('around whole tiles the naive tree and the tiles agree, and little is read', async t => {
  const naive = new Naive(leavesOf(65_538))
  const kept = new Kept()
  for (const size of [1, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 65_279, 65_280, 65_281, 65_535, 65_536, 65_537, 65_538]) {
    kept.reads = []
    await kept.append(naive.leaves.slice(kept.size, size), true)
    t.equal(new Set(kept.reads).size, kept.reads.length, 'entries once and tiles once, at most')
    t.same(await rootAt(size, kept), naive.root(0, size))
    t.same(Frontier.from(size, kept.frontier).root(), naive.root(0, size), `the root of ${size}`)

    const root = naive.root(0, size)
    for (const index of new Set([0, 1, 254, 255, 256, 257, size >> 1, size - 2, size - 1].filter(index => index >= 0 && index < size))) {
      kept.reads = []
      const proved = await inclusionProof(index, size, kept)
      t.ok(isSame([proved.leafHash, ...proved.proof], [...naive.leaves.slice(index, index + 1), ...naive.path(index, 0, size)]), `leaf ${index} of ${size}`)
      t.ok(verifyInclusion({ index, size, ...proved, root }))
      t.match(kept.reads.join(' '), size % TILE === 0 ? /^tiles$/ : /^tiles( leaves)?$/, 'tiles in one call, and leaves in one at most')
    }
    for (const from of new Set([1, 2, 255, 256, 257, size >> 1, size - 1, size].filter(from => from > 0 && from <= size))) {
      kept.reads = []
      const proof = await consistencyProof(from, size, kept)
      t.ok(isSame(proof, naive.proof(from, 0, size)), `${from} of ${size}`)
      t.ok(verifyConsistency({ from, to: size, proof, fromRoot: naive.root(0, from), toRoot: root }))
      t.match(kept.reads.join(' '), from === size ? /^$/ : /^tiles( leaves)?$/)
    }
  }
  const atOnce = await keptOf(naive.leaves)
  t.same([...atOnce.kept.keys()].sort(), [...kept.kept.keys()].sort())
  t.equal(kept.kept.size, 256 + 1 + 1)
  for (const [place, hashes] of kept.kept) t.ok(isSame([hashes], [atOnce.kept.get(place) ?? emptyRoot]), place)
})

t.test('a smaller tree is proved from the tiles of a larger one', async t => {
  const naive = new Naive(leavesOf(1000))
  const kept = await keptOf(naive.leaves)
  for (const [index, size] of [[0, 1], [3, 300], [299, 300], [511, 512], [512, 513], [700, 999]] as const) {
    t.same((await inclusionProof(index, size, kept)).proof, naive.path(index, 0, size))
    t.same(await consistencyProof(index + 1, size, kept), naive.proof(index + 1, 0, size))
    t.same(await rootAt(size, kept), naive.root(0, size))
  }
  t.same(await rootAt(0, kept), emptyRoot)
})

t.test('what is no place in the tree has no proof', async t => {
  const kept = await keptOf(leavesOf(3))
  for (const [index, size] of [[3, 3], [-1, 3], [0.5, 3], [NaN, 3], [0, 0], [0, NaN], [0, 2 ** 53]] as const) await t.rejects(inclusionProof(index, size, kept), RangeError)
  for (const [from, to] of [[0, 3], [4, 3], [-1, 3], [0.5, 3], [1, NaN], [1, 2 ** 53]] as const) await t.rejects(consistencyProof(from, to, kept), RangeError)
  for (const size of [-1, 0.5, NaN, 2 ** 53]) await t.rejects(rootAt(size, kept), RangeError)
})

t.test('where hashes are missing nothing is proved', async t => {
  for (const missing of ['0 0', '0 1', '1 0']) {
    const kept = await keptOf(leavesOf(700))
    kept.kept.delete(missing)
    if (missing === '0 0') kept.leafHashes = async () => []
    if (missing === '0 1') kept.kept.set('0 1', Buffer.alloc(200 * HASH))
    await t.rejects(inclusionProof(missing === '0 1' ? 511 : 3, 700, kept), TypeError)
  }
  const kept = await keptOf(leavesOf(700))
  kept.kept.delete('1 0')
  await t.rejects(rootAt(700, kept), TypeError)
})

t.test('to a tree that is not that of the head, or not whole, nothing is appended', async t => {
  const leaves = leavesOf(700)
  const { size, frontier } = await keptOf(leaves)
  const spoilt: Array<(kept: Kept) => void> = [
    kept => kept.leaves.pop(),
    kept => { kept.leaves[699] = emptyRoot },
    kept => { kept.leaves[699] = emptyRoot.subarray(1) },
    kept => { kept.leaves = [] },
    kept => kept.kept.delete('1 0'),
    kept => kept.kept.set('1 0', Buffer.alloc(2 * HASH)),
    kept => kept.kept.set('1 0', kept.kept.get('1 0')?.subarray(HASH) ?? emptyRoot)
  ]
  for (const spoil of spoilt) {
    const kept = await keptOf(leaves)
    t.equal((await TreeAppender.load({ size, frontier }, kept)).size, 700)
    spoil(kept)
    await t.rejects(TreeAppender.load({ size, frontier }, kept))
  }
  const kept = await keptOf(leaves)
  await t.rejects(TreeAppender.load({ size: 699, frontier }, kept), TypeError)
  await t.rejects(TreeAppender.load({ size, frontier: frontier.subarray(HASH) }, kept), TypeError)
  await t.rejects(TreeAppender.load({ size: 256, frontier: emptyRoot }, new Kept()), TypeError)
})

t.test('a tree is loaded by one query at a time, as a connection takes them', async t => {
  const kept = await keptOf(leavesOf(700))
  let busy = false
  const alone = async <T>(read: Promise<T>): Promise<T> => {
    t.notOk(busy)
    busy = true
    await new Promise(setImmediate)
    busy = false
    return await read
  }
  const loaded = await TreeAppender.load(kept, { entries: async (from, to) => await alone(kept.entries(from, to)), tiles: async wanted => await alone(kept.tiles(wanted)) })
  t.equal(loaded.size, 700)
})

t.test('an appender never changes: what failed to be stored is appended anew', async t => {
  const leaves = leavesOf(600)
  const { appender } = (await TreeAppender.load({ size: 0, frontier: Buffer.alloc(0) }, new Kept())).append(leaves.slice(0, 300))
  const [one, two] = [appender.append(leaves.slice(300)), appender.append(leaves.slice(300))]
  t.same(one.tiles, two.tiles)
  t.same(one.frontier, two.frontier)
  t.equal(appender.size, 300)
})

t.test('a tree of as many leaves as can be counted is proved: of equal leaves, so that it need not be made', async t => {
  const heights = [leafHash('the same')]
  for (let height = 1; height < 54; height++) heights.push(nodeHash(heights[height - 1] ?? emptyRoot, heights[height - 1] ?? emptyRoot))
  const reader: HashReader = {
    tiles: async wanted => wanted.map(({ level }) => level === 0 ? undefined : Buffer.concat(Array.from({ length: TILE }, () => heights[8 * level] ?? emptyRoot))),
    leafHashes: async (from, to) => Array.from({ length: to - from }, () => heights[0] ?? emptyRoot)
  }
  const rootOf = (size: number): Buffer => Frontier.from(size, Buffer.concat(heights.filter((_, height) => Math.floor(size / 2 ** height) % 2 === 1).reverse())).root()
  for (const size of [2 ** 31 + 1, 2 ** 32 + 3, 2 ** 48 + 1, 2 ** 49 + 1, 2 ** 52 + 1, 2 ** 53 - 2, 2 ** 53 - 1]) {
    for (const from of [1, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 1, 2 ** 48 - 1, 2 ** 48, 2 ** 48 + 1, 2 ** 49 + 1, 2 ** 52 + 1, size - 1, size].filter(from => from <= size)) {
      t.ok(verifyInclusion({ index: from - 1, size, ...await inclusionProof(from - 1, size, reader), root: rootOf(size) }), `leaf ${from - 1} of ${size}`)
      t.ok(verifyConsistency({ from, to: size, proof: await consistencyProof(from, size, reader), fromRoot: rootOf(from), toRoot: rootOf(size) }), `${from} of ${size}`)
    }
  }
})

t.test('whatever is passed in as a proof is refused, and throws nothing', async t => {
  const [a, b] = [leafHash('a'), leafHash('b')]
  const root = nodeHash(a, b)
  const included = { index: 0, size: 2, leafHash: a, proof: [b], root }
  const consistent = { from: 1, to: 2, proof: [b], fromRoot: a, toRoot: root }
  t.ok(verifyInclusion(included))
  t.ok(verifyConsistency(consistent))
  for (const value of [undefined, null, 'x', '2', -1, 0.5, NaN, Infinity, 2 ** 53, 1n, [], {}, Buffer.alloc(31), Buffer.alloc(33), [b, b], [undefined], [Buffer.alloc(31)], [[...b]], { length: 1, 0: b }]) {
    for (const key of Object.keys(included)) t.notOk(verifyInclusion({ ...included, [key]: value as never }), key)
    for (const key of Object.keys(consistent)) t.notOk(verifyConsistency({ ...consistent, [key]: value as never }), key)
  }
  t.notOk(verifyConsistency({ ...consistent, from: 2, proof: [b], fromRoot: root }), 'a proof that a tree begins with itself is empty')
  t.notOk(verifyConsistency({ from: 3, to: 4, proof: [], fromRoot: a, toRoot: a }))
})
