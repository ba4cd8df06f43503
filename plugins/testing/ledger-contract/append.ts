import assert from 'node:assert/strict'
import { assertEntries, assertHead, entryOf, frontierOf, hex, keyOf, range, seqsOf, stepOf, type Rule } from './bench.ts'
import type { Append } from './ledger.ts'

export const appendRules: readonly Rule[] = [
  {
    name: 'an empty ledger has nothing',
    check: async ({ ledger }) => {
      assert.equal(typeof ledger.name, 'string')
      assertHead(await ledger.head(), 0)
      assert.deepEqual(await ledger.entries(0, 1000), [])
      assert.deepEqual(await ledger.find({}, { limit: 10, order: 'newest' }), [])
      assert.deepEqual(await ledger.unresolved(0, 10, Number.MAX_SAFE_INTEGER), [])
      assert.deepEqual(await ledger.tiles([]), [])
      assert.deepEqual(await ledger.tiles([{ level: 0, index: 0 }]), [undefined])
      assert.deepEqual(await ledger.addKeys([]), [])
      assert.deepEqual(await ledger.keysByFinder(['nobody']), [])
      assert.deepEqual(await ledger.keysByOwner(['nobody']), [])
      assert.deepEqual(await ledger.keysAfter('', 10), [])
      await ledger.rewrapKeys([keyOf('nobody')])
      await ledger.keep([])
      assert.deepEqual(await ledger.kept([0]), new Map())
      assert.equal(await ledger.lastCheckpoint(), null)
      assert.deepEqual(await ledger.checkpointsAfter(-1, 10), [])
    }
  },
  {
    name: 'a plan is told the head, and what it says is stored and returned',
    check: async ({ ledger }) => {
      const said: Append[] = []
      for (const count of [1, 2, 300]) {
        const before = said.at(-1)?.head.size ?? 0
        const returned = await ledger.append(async ({ head }) => {
          assertHead(head, before)
          const step = stepOf(head, range(0, count).map(() => ({})), { tiles: [{ level: 0, index: before, hashes: frontierOf(1) }] })
          said.push(step)
          return step
        })
        assert.deepEqual(returned, said.at(-1))
        assertHead(await ledger.head(), before + count)
        assert.deepEqual((await ledger.tiles([{ level: 0, index: before }])).map(bytes => bytes && hex(bytes)), [hex(frontierOf(1))])
      }
      assertEntries(await ledger.entries(0, 303), said.flatMap(({ entries }) => entries))
    }
  },
  {
    name: 'a plan that says null stores nothing',
    check: async bench => {
      assert.equal(await bench.ledger.append(async () => null), null)
      assertHead(await bench.ledger.head(), 0)
      await bench.add([{}])
      assert.equal(await bench.ledger.append(async () => null), null)
      assertHead(await bench.ledger.head(), 1)
    }
  },
  {
    name: 'a plan that throws stores nothing, what it throws is thrown, and others go on',
    check: async bench => {
      const { ledger } = bench
      await ledger.addKeys([keyOf('alice')])
      await bench.add([{}])
      const error = new RangeError('the plan failed')
      const failing = ledger.append(async turn => {
        stepOf(turn.head, [{}], { destroyed: [keyOf('alice').owner] })
        await turn.living([keyOf('alice').owner])
        throw error
      })
      const [after] = await Promise.all([bench.add([{}]), assert.rejects(failing, thrown => thrown === error)])
      assert.deepEqual(seqsOf(after), [1])
      assertHead(await ledger.head(), 2)
      assert.equal((await ledger.keysByOwner([keyOf('alice').owner])).length, 1)
    }
  },
  {
    name: 'a step without entries stores the rest',
    check: async bench => {
      const { ledger } = bench
      await bench.add([{}, {}])
      await ledger.addKeys([keyOf('alice')])
      assert.deepEqual(await bench.add([], { destroyed: [keyOf('alice').owner], pruned: 1, tiles: [{ level: 3, index: 1, hashes: frontierOf(1) }] }), [])
      assertHead(await ledger.head(), 2, 1)
      assert.deepEqual(await ledger.keysAfter('', 10), [])
      assert.deepEqual(await bench.find({}), [1])
      assert.equal((await ledger.tiles([{ level: 3, index: 1 }]))[0]?.length, 32)
    }
  },
  {
    name: 'a turn reads what steps before it stored',
    check: async bench => {
      const { ledger } = bench
      const hashes = frontierOf(7)
      const entries = await bench.add(range(0, 5).map(() => ({})), { tiles: [{ level: 1, index: 0, hashes }] })
      await ledger.addKeys([keyOf('alice'), keyOf('bob')])
      await bench.add([], { destroyed: [keyOf('bob').owner] })
      await ledger.append(async ({ entries: read, tiles, living }) => {
        assertEntries(await read(0, 5), entries)
        assertEntries(await read(3, 5), entries.slice(3))
        assertEntries(await read(1, 3), entries.slice(1, 3))
        assert.deepEqual(await read(5, 9), [])
        assert.deepEqual(await read(9, 12), [])
        assert.deepEqual((await tiles([{ level: 1, index: 1 }, { level: 1, index: 0 }])).map(bytes => bytes && hex(bytes)), [undefined, hex(hashes)])
        assert.deepEqual(await living(['nobody', 'owner of bob', 'owner of alice']), new Set(['owner of alice']))
        assert.deepEqual(await living([]), new Set())
        return null
      })
      await bench.add([], { pruned: 2 })
      await ledger.append(async ({ entries: read }) => {
        assertEntries(await read(0, 100), entries.slice(2))
        return null
      })
    }
  },
  {
    name: 'what is given and what is returned is not what is stored',
    check: async bench => {
      const { ledger } = bench
      const tile = { level: 0, index: 0, hashes: frontierOf(3) }
      const [given] = await bench.add([{ tenant: 'acme' }], { tiles: [tile] })
      assert.ok(given !== undefined)
      const stored = { ...given, hash: given.hash.slice() }
      given.tenant = 'other'
      given.hash.fill(0)
      tile.hashes.fill(0)
      for (let round = 0; round < 2; round++) {
        const [entry] = await ledger.entries(0, 1)
        assert.ok(entry !== undefined)
        assertEntries([entry], [stored])
        const [hashes] = await ledger.tiles([tile])
        assert.ok(hashes !== undefined)
        assert.equal(hex(hashes), hex(frontierOf(3)))
        const head = await ledger.head()
        assertHead(head, 1)
        Object.assign(entry, entryOf(9))
        entry.hash.fill(0)
        hashes.fill(0)
        head.frontier.fill(0)
        head.size = 9
      }
      await ledger.append(async turn => {
        const [entry] = await turn.entries(0, 1)
        const [hashes] = await turn.tiles([tile])
        for (const bytes of [entry?.hash, hashes, turn.head.frontier]) bytes?.fill(0)
        return null
      })
      assert.deepEqual((await ledger.tiles([tile])).map(bytes => bytes && hex(bytes)), [hex(frontierOf(3))])
      assertEntries(await ledger.entries(0, 1), [stored])
      assertHead(await ledger.head(), 1)
    }
  }
]
