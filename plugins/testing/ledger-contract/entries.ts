import assert from 'node:assert/strict'
import { hostileStrings } from '../strings.ts'
import { assertEntries, assertHead, range, seqsOf, type Draft, type Rule } from './bench.ts'

/** What the log makes of names has no control characters. (What decodes text may take U+FEFF at its beginning for no part of it: PGlite does.) */
const names = hostileStrings.filter(text => !/\p{Cc}|^\ufeff/u.test(text))

const leaves = [
  '{}', '{"a":"\u2028\u2029\u0085"}', '{"a":"\\u0000"}', '{"a":"\\\\","b":"\\"","c":"\'"}', '{"a":"\u{1f600}\u{10ffff}"}', '{"a":1e21,"b":-0,"a":"twice"}', '{ "a" : 1.0 }',
  '{"a":"\\n\\t\\r"}', '{"a":"\ufeff\u00e9 e\u0301"}', '"null"', 'null', '\\N', '{}{}', '{"a":"%s $1 ? \\\\x41 {1,2}"}', '{"a":"\u007f\u0080"}', `{"a":"${'x'.repeat(1_000_000)}"}`,
  `{"a":"${'\u{1f600}'.repeat(100_000)}"}`, ...names.map(text => JSON.stringify({ text }))
]

export const entryRules: readonly Rule[] = [
  {
    name: 'leaves are kept verbatim',
    check: async bench => {
      const stored = await bench.add(leaves.map(leaf => ({ leaf })))
      assertEntries(await bench.ledger.entries(0, 1000), stored)
      for (const leaf of leaves) {
        const [alone] = await bench.add([{ leaf }])
        assert.equal((await bench.ledger.find({}, { limit: 1, order: 'newest' }))[0]?.leaf, alone?.leaf)
      }
    }
  },
  {
    name: 'names are kept as they are, and none means another',
    check: async bench => {
      const fields = ['type', 'outcome', 'tenant', 'sub', 'client', 'targetKind', 'targetId', 'op'] as const
      const drafts = names.map((text): Draft => ({ ...Object.fromEntries(fields.map(field => [field, text])), subject: text }))
      assertEntries(await bench.ledger.entries(0, 1000), [])
      const stored = await bench.add(drafts)
      assertEntries(await bench.ledger.entries(0, 1000), stored)
      for (const [seq, text] of names.entries()) {
        for (const field of fields) assert.deepEqual(await bench.find({ [field]: text }), [seq], `${field} ${JSON.stringify(text)}`)
        assert.deepEqual(await bench.find({ person: text }), [seq])
      }
    }
  },
  {
    name: 'an empty name is a name, and null is none',
    check: async bench => {
      const nullable = ['sub', 'client', 'targetKind', 'targetId', 'subject', 'op'] as const
      const filled = (value: '' | null): Draft => Object.fromEntries(nullable.map(field => [field, value]))
      const stored = await bench.add([filled(null), filled(''), filled(null)])
      assertEntries(await bench.ledger.entries(0, 3), stored)
      for (const field of ['sub', 'client', 'targetKind', 'targetId', 'op'] as const) assert.deepEqual(await bench.find({ [field]: '' }), [1], field)
    }
  },
  {
    name: 'entries are read by place',
    check: async bench => {
      const stored = [...await bench.add(range(0, 1000).map(() => ({}))), ...await bench.add(range(0, 500).map(() => ({})))]
      for (const [from, to] of [[0, 1000], [999, 1001], [500, 1500], [1400, 2400], [0, 1], [7, 7], [9, 3], [1500, 2500], [0, 0]] as const) {
        assertEntries(await bench.ledger.entries(from, to), stored.slice(from, Math.max(from, to)))
      }
    }
  },
  {
    name: 'times may be any, and in any order',
    check: async bench => {
      const times = [8.64e15, 0, -1, -8.64e15, 1_700_000_000_000]
      const stored = await bench.add(times.map(at => ({ at })))
      assertEntries(await bench.ledger.entries(0, 10), stored)
      assert.deepEqual(await bench.find({ since: 0 }), [0, 1, 4])
      assert.deepEqual(await bench.find({ until: 0 }), [2, 3])
      assert.deepEqual(await bench.find({ since: -8.64e15, until: 8.64e15 }), [1, 2, 3, 4])
    }
  },
  {
    name: 'a page goes on after any place, of an entry or not',
    check: async bench => {
      await bench.add(range(0, 6).map(seq => ({ type: seq % 2 === 0 ? 'even' : 'odd' })))
      await bench.add([], { pruned: 2 })
      const finds = async (after: number): Promise<number[][]> => [await bench.find({ type: 'even' }, { after }), await bench.find({ type: 'even' }, { order: 'newest', after })]
      assert.deepEqual(await finds(3), [[4], [2]])
      assert.deepEqual(await finds(2), [[4], []])
      for (const after of [0, -1, -Number.MAX_SAFE_INTEGER]) assert.deepEqual(await finds(after), [[2, 4], []])
      for (const after of [6, Number.MAX_SAFE_INTEGER]) assert.deepEqual(await finds(after), [[], [4, 2]])
    }
  },
  {
    name: 'what is pruned is gone, and what was kept of it; everything else stays',
    check: async bench => {
      const { ledger } = bench
      const hashes = new Uint8Array(32).fill(7)
      const stored = await bench.add(range(0, 10).map(() => ({ sub: 'alice' })), { tiles: [{ level: 0, index: 0, hashes }] })
      await ledger.keep(range(0, 10).map(seq => ({ seq, kept: String(seq) })))
      const [saying] = await bench.add([{ type: 'audit.prune' }], { pruned: 6 })
      assert.ok(saying !== undefined)
      const left = [...stored.slice(6), saying]
      assertHead(await ledger.head(), 11)
      assertEntries(await ledger.entries(0, 1000), left)
      assertEntries(await ledger.entries(4, 8), stored.slice(6, 8))
      assertEntries(await ledger.find({}, { limit: 100, order: 'oldest' }), left)
      assertEntries(await ledger.find({ person: 'alice' }, { limit: 100, order: 'newest' }), stored.slice(6).reverse())
      assert.deepEqual(await ledger.kept(range(0, 11)), new Map(range(6, 10).map(seq => [seq, String(seq)])))
      assert.equal((await ledger.tiles([{ level: 0, index: 0 }]))[0]?.[0], 7)
      await bench.add([{}], { pruned: 3 })
      assertEntries(await ledger.entries(0, 11), left)
    }
  },
  {
    name: 'what is kept beside an entry is the last that was said, and only beside one that is there',
    check: async bench => {
      const { ledger } = bench
      const stored = await bench.add(range(0, 4).map(() => ({})))
      await ledger.keep([{ seq: 1, kept: 'first' }, { seq: 2, kept: '{"a":"\u2028\\u0000\u{1f600}"}' }, { seq: 9, kept: 'nothing is there' }])
      await ledger.keep([{ seq: 1, kept: '' }])
      assert.deepEqual(await ledger.kept([0, 1, 2, 3, 9]), new Map([[1, ''], [2, '{"a":"\u2028\\u0000\u{1f600}"}']]))
      assert.deepEqual(await ledger.kept([]), new Map())
      assertEntries(await ledger.entries(0, 4), stored)
      assert.deepEqual(seqsOf(await ledger.entries(0, 4)), [0, 1, 2, 3])
    }
  }
]
