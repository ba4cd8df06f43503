import assert from 'node:assert/strict'
import { hostileStrings } from '../strings.ts'
import { inParallel } from '../contract/bench.ts'
import { assertHead, keyOf, range, stepOf, type Rule } from './bench.ts'
import type { Ledger, StoredKey } from './ledger.ts'

export const keyRules: readonly Rule[] = [
  {
    name: 'the first key of a finder stays, and is what all are told',
    check: async ({ ledger }) => {
      const [alice, bob, carol] = [keyOf('alice'), keyOf('bob'), keyOf('carol')]
      const other: StoredKey = { owner: 'another', finder: bob.finder, wrapped: 'another' }
      assert.deepEqual(await ledger.addKeys([bob, alice]), [bob, alice])
      assert.deepEqual(await ledger.addKeys([carol, other, alice]), [carol, bob, alice], 'in the order given')
      assert.deepEqual(await ledger.keysByFinder([carol.finder, 'nobody', bob.finder]), [carol, bob])
      assert.deepEqual(await ledger.keysByOwner(['another']), [])
      assert.deepEqual(await ledger.keysByOwner([bob.owner]), [bob])
      assert.deepEqual(byOwner(await ledger.keysByOwner([alice.owner, 'nobody', carol.owner])), [alice, carol])
    }
  },
  {
    name: 'of keys that instances make at once for the same, one stays',
    check: async bench => {
      const ledgers = await bench.several(3)
      const names = range(0, 20).map(String)
      const told = await inParallel(30, async index => {
        const keys = names.map(name => ({ ...keyOf(name), owner: `${index} ${name}` }))
        return await ledgers[index % ledgers.length]?.addKeys(index % 2 === 0 ? keys : keys.reverse())
      })
      const left = await bench.ledger.keysByFinder(names.map(name => keyOf(name).finder))
      assert.equal(left.length, 20)
      for (const [index, keys] of told.entries()) assert.deepEqual(keys, index % 2 === 0 ? left : left.toReversed())
      assert.deepEqual(await allOf(bench.ledger, 7), byOwner(left))
    }
  },
  {
    name: 'keys are kept as they are',
    check: async ({ ledger }) => {
      // What decodes text may take U+FEFF at its beginning for no part of it: PGlite does.
      const texts = hostileStrings.filter(text => !text.startsWith('\ufeff')).map(text => ({ owner: text, finder: text, wrapped: text }))
      assert.deepEqual(await ledger.addKeys(texts), texts)
      for (const key of texts) assert.deepEqual(await ledger.keysByOwner([key.owner]), [key])
      assert.deepEqual(byOwner(await allOf(ledger, 10)), byOwner(texts))
    }
  },
  {
    name: 'keys that are destroyed are gone, with the step that says so',
    check: async bench => {
      const { ledger } = bench
      const [alice, bob, carol] = [keyOf('alice'), keyOf('bob'), keyOf('carol')]
      await ledger.addKeys([alice, bob, carol])
      await bench.add([{}], { destroyed: [alice.owner, carol.owner] })
      assertHead(await ledger.head(), 1, 2)
      assert.deepEqual(await ledger.keysByFinder([alice.finder, bob.finder, carol.finder]), [bob])
      assert.deepEqual(await ledger.keysByOwner([alice.owner, bob.owner]), [bob])
      assert.deepEqual(await ledger.keysAfter('', 10), [bob])
      await ledger.append(async ({ head, living }) => {
        assertHead(head, 1, 2)
        assert.deepEqual(await living([alice.owner, bob.owner]), new Set([bob.owner]))
        return null
      })
      await bench.add([{}], { destroyed: ['nobody', alice.owner] })
      assert.deepEqual(await ledger.keysAfter('', 10), [bob])

      const again = { ...alice, owner: 'another' }
      assert.deepEqual(await ledger.addKeys([again]), [again], 'a new key is another')
      assert.deepEqual(await ledger.keysByOwner([alice.owner]), [])
      assert.deepEqual(await ledger.keysByFinder([alice.finder]), [again])
    }
  },
  {
    name: 'of destructions at once, of three instances, the head counts all',
    check: async bench => {
      const ledgers = await bench.several(3)
      const keys = range(0, 30).map(index => keyOf(String(index)))
      await bench.ledger.addKeys(keys)
      await inParallel(30, async index => await ledgers[index % ledgers.length]?.append(async ({ head }) => stepOf(head, [{}], { destroyed: [`owner of ${index}`] })))
      assertHead(await bench.ledger.head(), 30, 30)
      assert.deepEqual(await bench.ledger.keysAfter('', 10), [])
    }
  },
  {
    name: 'all keys are read a page at a time',
    check: async ({ ledger }) => {
      const keys = range(0, 25).map(index => ({ ...keyOf(String(index)), owner: `owner ${String(index * 7 % 25).padStart(2, '0')}` }))
      await ledger.addKeys(keys)
      const sorted = byOwner(keys)
      for (const limit of [1, 10, 25, 100]) assert.deepEqual(await allOf(ledger, limit), sorted)
      assert.deepEqual(await ledger.keysAfter('owner 23', 10), sorted.slice(24))
      assert.deepEqual(await ledger.keysAfter('owner 24', 10), [])
    }
  },
  {
    name: 'a key that is wrapped anew is the same, and one that is gone stays gone',
    check: async bench => {
      const { ledger } = bench
      const [alice, bob] = [keyOf('alice'), keyOf('bob')]
      await ledger.addKeys([alice, bob])
      await ledger.rewrapKeys([{ ...alice, wrapped: 'new.alice' }])
      assert.deepEqual(await ledger.keysByFinder([alice.finder, bob.finder]), [{ ...alice, wrapped: 'new.alice' }, bob])
      assert.deepEqual(await ledger.keysAfter('', 10, 'new.'), [bob])
      assert.deepEqual(await ledger.keysAfter(bob.owner, 10, 'new.'), [])
      await bench.add([{}], { destroyed: [alice.owner] })
      await ledger.rewrapKeys([alice, { ...bob, wrapped: 'new.bob' }])
      assert.deepEqual(await ledger.keysAfter('', 10), [{ ...bob, wrapped: 'new.bob' }])
    }
  },
  {
    name: 'keys that are given and returned are not those that are stored',
    check: async ({ ledger }) => {
      const [alice] = [keyOf('alice')]
      const [given] = [{ ...alice }]
      for (const read of [
        async () => await ledger.addKeys([given]),
        async () => await ledger.keysByFinder([alice.finder]),
        async () => await ledger.keysByOwner([alice.owner]),
        async () => await ledger.keysAfter('', 1)
      ]) {
        const [returned] = await read()
        assert.deepEqual(returned, alice)
        Object.assign(returned, { wrapped: 'altered' })
        given.wrapped = 'altered'
      }
      assert.deepEqual(await ledger.keysByOwner([alice.owner]), [alice])
    }
  }
]

/** Every key, page by page. */
async function allOf (ledger: Ledger, limit: number): Promise<StoredKey[]> {
  const all: StoredKey[] = []
  for (let page = await ledger.keysAfter('', limit); page.length > 0; page = await ledger.keysAfter(String(all.at(-1)?.owner), limit)) {
    assert.ok(page.length <= limit, 'a page holds no more than was asked for')
    all.push(...page)
  }
  return all
}

function byOwner (keys: readonly StoredKey[]): StoredKey[] {
  return [...keys].sort((a, b) => a.owner < b.owner ? -1 : 1)
}
