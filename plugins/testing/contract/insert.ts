import assert from 'node:assert/strict'
import { because, idsOf, inParallel, type Rule } from './bench.ts'

export const insertRules: readonly Rule[] = [
  {
    name: 'records come back in the order given, those of several subjects too',
    check: async bench => {
      const records = ['alice', 'bob', 'alice', 'carol', 'bob'].map(sub => bench.record({ sub }))
      const { inserted } = await bench.insertAll(records)
      assert.deepEqual(inserted.map(({ id }) => id), records.map(({ id }) => id))
      assert.deepEqual(await bench.insertAll([]), { inserted: [], evicted: [], refused: [] })
    }
  },
  {
    name: 'an id is taken once, whoever lives by it',
    check: async bench => {
      const first = await bench.insert({ sub: 'alice', meta: { deviceId: 'first' } })
      for (const sub of ['alice', 'bob']) {
        const { inserted, evicted, refused } = await bench.insertAll([bench.record({ id: first.id, sub, meta: { deviceId: 'second' } })])
        assert.deepEqual({ inserted, evicted, refused }, { inserted: [], evicted: [], refused: [{ reason: 'exists', id: first.id, tenant: '', sub, ids: [first.id] }] })
      }
      assert.deepEqual(await bench.store.get(first.id), first)
      await bench.assertFinds({}, [first])
    }
  },
  {
    name: 'the id of a session that has ended is not taken again while its ending is kept',
    needs: ['ending'],
    check: async bench => {
      const first = await bench.insert()
      await bench.end(first.id)
      const { refused } = await bench.insertAll([bench.record({ id: first.id })])
      assert.equal(refused[0]?.reason, 'exists')
      await bench.assertGone(first)
    }
  },
  {
    name: 'of many that take one id at the same time one gets it',
    check: async bench => {
      const { id } = bench.record()
      const outcomes = await inParallel(100, async index => await bench.insertAll([bench.record({ id, meta: { deviceId: String(index) } })]))
      const winners = outcomes.flatMap(({ inserted }) => inserted)
      assert.equal(winners.length, 1)
      assert.deepEqual(await bench.store.get(id), winners[0])
    }
  },
  {
    name: 'a subject\'s records are stored all or none, and the others\' all the same',
    check: async bench => {
      const taken = await bench.insert({ sub: 'alice' })
      const [new1, again, bobs, new2] = [bench.record({ sub: 'alice' }), bench.record({ id: taken.id, sub: 'alice' }), bench.record({ sub: 'bob' }), bench.record({ sub: 'alice' })]
      const { inserted, refused } = await bench.insertAll([new1, again, bobs, new2])
      assert.deepEqual(idsOf(inserted), [bobs.id])
      assert.deepEqual(refused, [{ reason: 'exists', id: taken.id, tenant: '', sub: 'alice', ids: [new1.id, taken.id, new2.id] }])
      await bench.assertFinds({}, [taken, bobs])
    }
  },
  {
    name: 'an id that stands twice in one insert is refused, for one subject or for two',
    check: async bench => {
      const { id } = bench.record()
      const { inserted, refused } = await bench.insertAll([bench.record({ id }), bench.record({ id })])
      assert.deepEqual({ inserted, reasons: refused.map(({ reason }) => reason) }, { inserted: [], reasons: ['exists'] })
      await bench.assertFinds({}, [])

      const both = await bench.insertAll([bench.record({ id, sub: 'alice' }), bench.record({ id, sub: 'bob' })])
      assert.deepEqual([both.inserted.length, both.refused.length], [1, 1])
      assert.deepEqual(await bench.store.get(id), both.inserted[0])
      assert.notEqual(both.refused[0]?.sub, both.inserted[0]?.sub)
    }
  },
  {
    name: 'an insert that is repeated gets its first answer',
    check: async bench => {
      const records = ['alice', 'bob', 'alice'].map(sub => bench.record({ sub }))
      const first = await bench.insertAll(records, [], 'op')
      assert.deepEqual(await bench.insertAll(records, [], 'op'), first)
      await bench.assertFinds({}, records)
    }
  },
  {
    name: 'a repeated insert revives nothing that has ended since',
    check: async bench => {
      const [kept, ended] = [bench.record(), bench.record()]
      const first = await bench.insertAll([kept, ended], [], 'op')
      await bench.store.end([ended.id], because())
      const again = await bench.insertAll([kept, ended], [], 'op')
      assert.deepEqual(again, first)
      await bench.assertFinds({}, [kept])
      await bench.assertGone(ended)
    }
  }
]
