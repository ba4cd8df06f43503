import assert from 'node:assert/strict'
import { assertEntries, range, seqsOf, START, type Draft, type Rule } from './bench.ts'
import type { EntryQuery, StoredEntry } from './ledger.ts'

const drafts: readonly Draft[] = [
  { type: 'session.start', sub: 'alice', targetKind: 'session', targetId: 's1', subject: 'alice', op: 'op1' },
  { type: 'session.end', sub: 'admin', client: 'web', targetKind: 'session', targetId: 's1', subject: 'alice', op: 'op2' },
  { type: 'session.start', sub: 'alice', tenant: 'acme', client: 'web', targetKind: 'session', targetId: 's2', subject: 'alice', op: 'op3' },
  { type: 'login', outcome: 'failure', targetKind: 'subject', targetId: 'alice', subject: 'alice' },
  { type: 'login', outcome: 'denied', tenant: 'acme', sub: 'bob', targetKind: 'device', targetId: 's1' },
  { type: 'intent', sub: 'alice', subject: 'bob', op: 'op1' },
  { type: 'audit.read' }
]

const queries: ReadonlyArray<readonly [EntryQuery, readonly number[]]> = [
  [{}, [0, 1, 2, 3, 4, 5, 6]],
  [{ tenant: '' }, [0, 1, 3, 5, 6]],
  [{ tenant: 'acme' }, [2, 4]],
  [{ tenant: 'Acme' }, []],
  [{ type: 'session.start' }, [0, 2]],
  [{ type: 'session' }, []],
  [{ type: 'intent' }, [5]],
  [{ type: 'login' }, [3, 4]],
  [{ outcome: 'success' }, [0, 1, 2, 5, 6]],
  [{ outcome: 'denied' }, [4]],
  [{ client: 'web' }, [1, 2]],
  [{ sub: 'alice' }, [0, 2, 5]],
  [{ person: 'alice' }, [0, 1, 2, 3, 5]],
  [{ person: 'bob' }, [4, 5]],
  [{ person: 'admin' }, [1]],
  [{ person: 's1' }, []],
  [{ targetKind: 'session' }, [0, 1, 2]],
  [{ targetId: 's1' }, [0, 1, 4]],
  [{ targetKind: 'session', targetId: 's1' }, [0, 1]],
  [{ op: 'op1' }, [0, 5]],
  [{ since: START + 3000 }, [3, 4, 5, 6]],
  [{ until: START + 3000 }, [0, 1, 2]],
  [{ since: START + 1000, until: START + 2001 }, [1, 2]],
  [{ since: START + 2000, until: START + 2000 }, []],
  [{ tenant: 'acme', type: 'session.start', outcome: 'success', client: 'web', sub: 'alice', person: 'alice', targetKind: 'session', targetId: 's2', op: 'op3', since: START, until: START + 9000 }, [2]],
  [{ tenant: 'acme', person: 'alice', type: 'login' }, []],
  [{ tenant: '\' or 1 = 1 --' }, []],
  [{ person: '%' }, []],
  [{ op: '' }, []]
]

export const findRules: readonly Rule[] = [
  {
    name: 'a query finds what meets all of it, in either order, whole',
    check: async bench => {
      const { ledger } = bench
      const stored = await bench.add(drafts)
      for (const [query, seqs] of queries) {
        const expected = stored.filter(({ seq }) => seqs.includes(seq))
        assert.deepEqual(await bench.find(query), seqs, JSON.stringify(query))
        assertEntries(await ledger.find(query, { limit: 1000, order: 'oldest' }), expected)
        assertEntries(await ledger.find(query, { limit: 1000, order: 'newest' }), expected.toReversed())
      }
    }
  },
  {
    name: 'what is found comes in pages, each after the last of the one before',
    check: async bench => {
      await bench.add(range(0, 25).map(seq => ({ sub: seq % 2 === 0 ? 'alice' : 'bob' })))
      for (const order of ['oldest', 'newest'] as const) {
        const all = order === 'oldest' ? range(0, 25) : range(0, 25).reverse()
        for (const query of [{}, { sub: 'alice' }, { person: 'bob', since: START + 3000 }] satisfies EntryQuery[]) {
          const expected = await bench.find(query, { order })
          assert.deepEqual(expected, all.filter(seq => expected.includes(seq)))
          for (const limit of [1, 4, 25]) {
            const found: number[] = []
            for (let page = await bench.find(query, { order, limit }); page.length > 0; page = await bench.find(query, { order, limit, after: Number(found.at(-1)) })) {
              assert.ok(page.length <= limit, 'a page holds no more than was asked for')
              found.push(...page)
            }
            assert.deepEqual(found, expected)
          }
        }
      }
      assert.deepEqual(await bench.find({}, { order: 'newest', after: 0 }), [])
      assert.deepEqual(await bench.find({}, { order: 'oldest', after: 24 }), [])
      assert.deepEqual(await bench.find({}, { order: 'newest', after: 99, limit: 1 }), [24])
    }
  },
  {
    name: 'pages that are being read are not moved by what is appended',
    check: async bench => {
      await bench.add(range(0, 6).map(() => ({})))
      assert.deepEqual(await bench.find({}, { order: 'newest', limit: 3 }), [5, 4, 3])
      await bench.add([{}, {}])
      assert.deepEqual(await bench.find({}, { order: 'newest', limit: 3, after: 3 }), [2, 1, 0])
    }
  },
  {
    name: 'unresolved are operations that were meant, and of which nothing else is told',
    check: async bench => {
      const { ledger } = bench
      const unresolved = async (before: number, from = 0, to = 100): Promise<number[]> => seqsOf(await ledger.unresolved(from, to, before))
      const stored = await bench.add([
        { type: 'intent', op: 'resolved' },
        { type: 'intent', op: 'open' },
        { type: 'session.start', op: 'resolved' },
        { type: 'login' },
        { type: 'intent', op: 'late', at: START + 60_000 },
        { type: 'intent', op: 'failed' },
        { type: 'session.end', outcome: 'failure', op: 'failed' },
        { type: 'intent', op: 'Open', at: START },
        { type: 'intent' },
        { type: 'intent', op: '' }
      ])
      assertEntries(await ledger.unresolved(0, 100, START + 60_001), [1, 4, 7, 8, 9].map(seq => stored[seq] as StoredEntry)) // there are ten
      assert.deepEqual(await unresolved(START + 60_000), [1, 7, 8, 9], 'before a time, exclusive')
      assert.deepEqual(await unresolved(START + 60_001, 2, 8), [4, 7], 'of a stretch')
      assert.deepEqual(await unresolved(START), [])
      await bench.add([{ type: 'session.rotate', op: 'open', at: START - 1000 }])
      assert.deepEqual(await unresolved(START + 60_001), [4, 7, 8, 9])
      await bench.add([{ type: 'intent', op: 'late' }])
      assert.deepEqual(await unresolved(START + 60_001), [4, 7, 8, 9, 11], 'what is meant again is not done')
    }
  }
]
