import assert from 'node:assert/strict'
import { hostileStrings } from '../strings.ts'
import { because, inParallel, type Rule } from './bench.ts'

export const markRules: readonly Rule[] = [
  {
    name: 'a mark is set once, and stands until its time',
    needs: ['mark'],
    check: async bench => {
      const { store } = bench
      assert.equal(await store.marked('denylist', 'jti'), false)
      assert.equal(await store.mark('denylist', 'jti', store.now() + 200), true)
      assert.equal(await store.marked('denylist', 'jti'), true)
      assert.equal(await store.mark('denylist', 'jti', store.now() + 60_000), false, 'it stood, and stays as it was')
      assert.equal(await store.mark('denylist', 'other', store.now() + 60_000), true)
      await bench.advance(200)
      assert.equal(await store.marked('denylist', 'jti'), false)
      assert.equal(await store.marked('denylist', 'other'), true)
      assert.equal(await store.mark('denylist', 'jti', store.now() + 60_000), true, 'a lease can be taken again')
      assert.equal(await store.marked('denylist', 'jti'), true)
    }
  },
  {
    name: 'a mark whose time is past is not set',
    check: async bench => {
      const { store } = bench
      assert.equal(await store.mark('denylist', 'jti', store.now() - 1), true)
      assert.equal(await store.mark('denylist', 'jti', store.now()), true)
      assert.equal(await store.marked('denylist', 'jti'), false)
      await store.mark('denylist', 'jti', store.now() + 60_000)
      assert.equal(await store.mark('denylist', 'jti', store.now() - 1), false, 'it stands')
    }
  },
  {
    name: 'of 100 that set a mark at the same time one does',
    check: async bench => {
      const until = bench.store.now() + 60_000
      const set = await inParallel(100, async () => await bench.store.mark('lease', 'sweep', until))
      assert.equal(set.filter(first => first).length, 1)
    }
  },
  {
    name: 'marks of different purposes and keys never meet',
    check: async bench => {
      const { store } = bench
      const until = store.now() + 60_000
      const marks = [['a', 'bc'], ['ab', 'c'], ['', 'abc'], ['a', ':bc'], ['a:', 'bc'], ['1:a', 'bc'], ['a', 'b'], ['a', 'B'], ['a', 'bc '], ['A', 'bc']]
      for (const text of hostileStrings) marks.push([text, 'key'], ['purpose', text])
      for (const [purpose = '', key = ''] of marks) {
        assert.equal(await store.marked(purpose, key), false)
        assert.equal(await store.mark(purpose, key, until), true, `${JSON.stringify(purpose)} ${JSON.stringify(key)}`)
      }
      for (const [purpose = '', key = ''] of marks) assert.equal(await store.marked(purpose, key), true)
    }
  },
  {
    name: 'marks are no sessions, and sessions end without them',
    check: async bench => {
      const { store } = bench
      await store.mark('denylist', 'jti', store.now() + 60_000)
      await bench.insert()
      assert.equal(await store.count({}), 1)
      for (const sub of ['alice', 'denylist', 'jti', 'mark denylist']) await store.endAll({ tenant: '', sub }, because())
      assert.equal(await store.marked('denylist', 'jti'), true)
    }
  },
  {
    name: 'what was issued since the store keeps marks is not taken for marked',
    check: async bench => {
      const { store } = bench
      await bench.advance(5)
      const issuedAt = store.now()
      assert.equal(await store.marked('denylist', 'jti', issuedAt), false)
      await store.mark('denylist', 'jti', issuedAt + 60_000)
      assert.equal(await store.marked('denylist', 'jti', issuedAt), true)
    }
  }
]
