import assert from 'node:assert/strict'
import type { SessionRecord } from '../../token-registry/index.ts'
import { hostileStrings } from '../strings.ts'
import { because, idsOf, inParallel, type Rule } from './bench.ts'

const alice = { tenant: '', sub: 'alice' }

export const endRules: readonly Rule[] = [
  {
    name: 'ending tells what it ended, as it last was, and each once',
    check: async bench => {
      const [first, second, other] = [await bench.insert(), await bench.insert({ sub: 'bob', use: 'once' }), await bench.insert()]
      await bench.rotate(first.id, 0)
      const last = await bench.store.get(first.id)
      const ended = await bench.end(first.id, bench.record().id, second.id, first.id)
      assert.deepEqual(ended, [last, second])
      await bench.assertGone(first, second)
      assert.deepEqual(await bench.end(first.id, second.id), [])
      assert.deepEqual(await bench.end(), [])
      await bench.assertFinds({}, [other])
    }
  },
  {
    name: 'an ending that is repeated gets its first answer',
    check: async bench => {
      const sessions = await bench.insertMany(3)
      const cause = because()
      const first = await bench.store.end(sessions.map(({ id }) => id), cause)
      assert.equal(first.length, 3)
      assert.deepEqual(await bench.store.end(sessions.map(({ id }) => id), cause), first)
    }
  },
  {
    name: 'of 100 that end a session at the same time one is told',
    check: async bench => {
      const { id } = await bench.insert()
      const answers = await inParallel(100, async () => await bench.end(id))
      assert.deepEqual(answers.flat().map(session => session.id), [id])
    }
  },
  {
    name: 'how a session ended is kept, and the first ending stands',
    needs: ['ending'],
    check: async bench => {
      const { store } = bench
      const { id } = await bench.insert({ tenant: 'acme' })
      assert.equal(await store.ending(id), null)
      assert.equal(await store.ending(bench.record().id), null)
      await store.end([id], { reason: 'password_changed', by: 'bob', op: 'op' })
      await store.end([id], because())
      const ending = await store.ending(id)
      assert.ok(ending !== null && Math.abs(ending.at - store.now()) < 1000, 'it ended now')
      assert.deepEqual(ending, { id, tenant: 'acme', sub: 'alice', reason: 'password_changed', by: 'bob', op: 'op', at: ending.at })

      for (const text of hostileStrings) {
        const session = await bench.insert({ sub: text })
        await store.end([session.id], { reason: text, by: text, op: text })
        const ended = await store.ending(session.id)
        assert.deepEqual({ ...ended }, { ...ended, sub: text, reason: text, by: text, op: text })
      }
    }
  }
]

export const endAllRules: readonly Rule[] = [
  {
    name: 'all sessions of a subject end at once, but those to be kept',
    check: async bench => {
      const sessions = await bench.insertMany(7)
      const [kept1, kept2, ...doomed] = sessions
      const others = [await bench.insert({ sub: 'bob' }), await bench.insert({ tenant: 'acme' })]
      assert.ok(kept1 && kept2, 'seven were inserted')
      const told: SessionRecord[] = []
      const ended = await bench.store.endAll({ ...alice, except: [kept1.id, kept2.id, 'no id', bench.record().id] }, because(), slice => told.push(...slice))
      assert.equal(ended, 5)
      assert.deepEqual(idsOf(told), idsOf(doomed))
      await bench.assertGone(...doomed)
      await bench.assertFinds({}, [kept1, kept2, ...others])

      assert.equal(await bench.store.endAll(alice, because()), 2, 'nobody has to be told')
      assert.equal(await bench.store.endAll(alice, because()), 0)
      assert.equal(await bench.store.endAll({ tenant: '', sub: 'nobody' }, because(), slice => told.push(...slice)), 0)
      assert.equal(told.length, 5)
      await bench.insert()
    }
  },
  {
    name: 'what endAll ended has an ending that says so',
    needs: ['ending'],
    check: async bench => {
      const { id } = await bench.insert()
      await bench.store.endAll(alice, { reason: 'disabled', by: 'admin', op: 'op' })
      const ending = await bench.store.ending(id)
      assert.deepEqual({ ...ending }, { ...ending, id, ...alice, reason: 'disabled', by: 'admin', op: 'op' })
    }
  },
  {
    name: 'endAll ends one-time tokens too, tells them, and does not count them',
    needs: ['endAll'],
    check: async bench => {
      const [session, once, consumed] = [await bench.insert(), await bench.insert({ use: 'once' }), await bench.insertConsumed()]
      const told: SessionRecord[] = []
      assert.equal(await bench.store.endAll(alice, because(), slice => told.push(...slice)), 1)
      assert.deepEqual(idsOf(told), idsOf([session, once, consumed]))
      await bench.assertGone(session, once, consumed)
    }
  },
  {
    name: 'endAll that is repeated gets its first answer, and ends nothing that was issued since',
    needs: ['endAll'],
    check: async bench => {
      await bench.insertMany(3)
      await bench.insert({ use: 'once' })
      const cause = because()
      const answers = []
      for (let repeated = 0; repeated < 2; repeated++) {
        const told: SessionRecord[] = []
        const count = await bench.store.endAll(alice, cause, slice => told.push(...slice))
        answers.push({ count, told: idsOf(told) })
        await bench.insert()
      }
      assert.equal(answers[0]?.count, 3)
      assert.deepEqual(answers[1], answers[0])
      assert.equal(await bench.store.count(alice), 2)
    }
  },
  {
    name: 'a thousand sessions end together',
    check: async bench => {
      await bench.insertMany(1200)
      const told: SessionRecord[] = []
      assert.equal(await bench.store.endAll(alice, because(), slice => told.push(...slice)), 1200)
      assert.equal(new Set(told.map(({ id }) => id)).size, 1200)
      await bench.assertFinds({}, [])
    }
  },
  {
    name: 'endAll ends all that was there before, and of what is issued meanwhile nothing is lost: it lives, or is told',
    check: async bench => {
      const before = await bench.insertMany(100)
      const told: SessionRecord[] = []
      const ending = bench.store.endAll(alice, because(), slice => told.push(...slice))
      const meanwhile = await inParallel(100, async () => await bench.insert())
      const count = await ending
      const after = await bench.insert()

      const toldIds = new Set(told.map(({ id }) => id))
      assert.equal(told.length, toldIds.size)
      assert.equal(count, toldIds.size)
      for (const { id } of before) assert.ok(toldIds.has(id), 'what was there before is told')
      await bench.assertFinds(alice, [...meanwhile.filter(({ id }) => !toldIds.has(id)), after])
      await bench.assertGone(...told)
    }
  },
  {
    name: 'sessions that are ended one by one and all together at the same time are told once',
    check: async bench => {
      const sessions = await bench.insertMany(50)
      const told: SessionRecord[] = []
      const tell = (slice: SessionRecord[]): void => { told.push(...slice) }
      const [count1, count2, ...singles] = await Promise.all([
        bench.store.endAll(alice, because(), tell),
        bench.store.endAll(alice, because(), tell),
        ...sessions.map(async ({ id }) => await bench.end(id))
      ])
      assert.equal(told.length, count1 + count2)
      assert.deepEqual(idsOf([...told, ...singles.flat()]), idsOf(sessions))
    }
  }
]
