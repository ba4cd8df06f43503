import assert from 'node:assert/strict'
import { assertStatus, inParallel, type Rule } from './bench.ts'

export const rotationRules: readonly Rule[] = [
  {
    name: 'the current token advances its session',
    check: async bench => {
      const session = await bench.insert({ client: 'app' })
      await bench.advance(5)
      const outcome = await bench.rotate(session.id, 0, { kid: 9 }, 'op')
      assertStatus(outcome, 'rotated')
      const { rotatedAt } = outcome.session
      assert.ok(rotatedAt !== null && rotatedAt > session.issuedAt, 'it was rotated after it was issued')
      assert.deepEqual(outcome, { status: 'rotated', recovered: false, session: { ...session, generation: 1, kid: 9, rotatedAt, lastUsedAt: rotatedAt, op: 'op' } })
      assert.deepEqual(await bench.store.get(session.id), outcome.session)
      for (let generation = 1; generation < 10; generation++) assert.equal((await bench.rotate(session.id, generation)).status, 'rotated')
      assert.equal((await bench.store.get(session.id))?.generation, 10)
    }
  },
  {
    name: 'the token before gets the same successor while the window is open',
    check: async bench => {
      const { id } = await bench.insert()
      const rotated = await bench.rotate(id, 0, { kid: 9 })
      assertStatus(rotated, 'rotated')
      // Another secret signs by now: the successor stays what it was.
      assert.deepEqual(await bench.rotate(id, 0, { kid: 7 }), { status: 'repeated', session: rotated.session })
      assert.deepEqual(await bench.store.get(id), rotated.session)
    }
  },
  {
    name: 'the token before is reuse from the end of the window on, and ends its session alone',
    check: async bench => {
      const [session, other] = [await bench.insert(), await bench.insert()]
      await bench.rotate(session.id, 0)
      await bench.advance(200)
      const last = await bench.store.get(session.id)
      const outcome = await bench.rotate(session.id, 0, { reuseWindow: 200, by: 'thief' }, 'op')
      assertStatus(outcome, 'reused')
      assert.deepEqual(outcome.ended, [last])
      assert.deepEqual(outcome.ending, { id: session.id, tenant: '', sub: 'alice', reason: 'reuse_recent', by: 'thief', op: 'op', at: outcome.ending.at })
      if (bench.has('ending')) assert.deepEqual(await bench.store.ending(session.id), outcome.ending)
      await bench.assertGone(session)
      await bench.assertLives(other)
      assert.deepEqual(await bench.rotate(session.id, 1), { status: 'unknown' })
    }
  },
  {
    name: 'a window of 0 is never open',
    check: async bench => {
      const { id } = await bench.insert()
      await bench.rotate(id, 0)
      assert.equal((await bench.rotate(id, 0, { reuseWindow: 0 })).status, 'reused')
    }
  },
  {
    name: 'a token from before the one before is reuse, also while the window is open',
    check: async bench => {
      const { id } = await bench.insert()
      await bench.rotate(id, 0)
      await bench.rotate(id, 1)
      const outcome = await bench.rotate(id, 0)
      assertStatus(outcome, 'reused')
      assert.equal(outcome.ending.reason, 'reuse_stale')
      await bench.assertGone({ id })
    }
  },
  {
    name: 'a token newer than the record proves a rotation that the store has lost',
    check: async bench => {
      const { id } = await bench.insert()
      const outcome = await bench.rotate(id, 3)
      assertStatus(outcome, 'rotated')
      assert.equal(outcome.session.generation, 4)
      assert.equal((await bench.rotate(id, 3)).status, 'repeated')
      assert.equal((await bench.rotate(id, 4)).status, 'rotated')
    }
  },
  {
    name: 'another client or key is refused before generations are compared, and ends nothing',
    check: async bench => {
      const session = await bench.insert({ client: 'app', binding: 'key' })
      const refusals = [
        [{ client: 'other', binding: 'key' }, 'client'], [{ client: null, binding: 'key' }, 'client'], [{ client: 'other', binding: 'other' }, 'client'],
        [{ client: 'app', binding: 'other' }, 'binding'], [{ client: 'app', binding: null }, 'binding'], [{ binding: null }, 'binding']
      ] as const
      for (const [proof, by] of refusals) assert.deepEqual(await bench.rotate(session.id, 0, proof), { status: 'refused', by })
      assert.deepEqual(await bench.store.get(session.id), session)

      assert.equal((await bench.rotate(session.id, 0, { binding: 'key' })).status, 'rotated', 'a client that is left out is not compared')
      assert.equal((await bench.rotate(session.id, 1, { client: 'app', binding: 'key' })).status, 'rotated')
      for (const [proof, by] of refusals) {
        for (const generation of [0, 1, 2, 7]) assert.deepEqual(await bench.rotate(session.id, generation, { ...proof, reuseWindow: 0 }), { status: 'refused', by })
      }
      await bench.assertLives(session)

      const unbound = await bench.insert()
      assert.deepEqual(await bench.rotate(unbound.id, 0, { binding: 'key' }), { status: 'refused', by: 'binding' })
      assert.deepEqual(await bench.rotate(unbound.id, 0, { client: 'app' }), { status: 'refused', by: 'client' })
      assert.equal((await bench.rotate(unbound.id, 0, { client: null })).status, 'rotated')
    }
  },
  {
    name: 'what is not there, or is of another use, is unknown, and nothing ends',
    check: async bench => {
      const [session, refresh, once, ended] = [await bench.insert(), await bench.insert({ use: 'refresh' }), await bench.insert({ use: 'once' }), await bench.insert()]
      await bench.end(ended.id)
      assert.deepEqual(await bench.rotate(bench.record().id, 0), { status: 'unknown' })
      assert.deepEqual(await bench.rotate(ended.id, 0), { status: 'unknown' })
      assert.deepEqual(await bench.consume(session.id), { status: 'unknown' })
      assert.deepEqual(await bench.consume(refresh.id), { status: 'unknown' })
      assert.deepEqual(await bench.rotate(once.id, 0), { status: 'unknown' })
      for (const record of [session, refresh, once]) assert.deepEqual(await bench.store.get(record.id), record)
    }
  },
  {
    name: 'a rotation that is repeated gets its first answer, however late',
    check: async bench => {
      const { id } = await bench.insert()
      const first = await bench.rotate(id, 0, { reuseWindow: 50 }, 'op')
      assert.equal(first.status, 'rotated')
      await bench.advance(100)
      assert.deepEqual(await bench.rotate(id, 0, { reuseWindow: 50 }, 'op'), first)
      assert.deepEqual(await bench.rotate(id, 0, { reuseWindow: 0 }, 'op'), first)
      assert.equal((await bench.rotate(id, 0, { reuseWindow: 50 }, 'another')).status, 'reused')
    }
  },
  {
    name: 'a rotation that is repeated gets its first answer, also when the session has ended since',
    check: async bench => {
      const { id } = await bench.insert()
      const first = await bench.rotate(id, 0, {}, 'op')
      await bench.end(id)
      assert.deepEqual(await bench.rotate(id, 0, {}, 'op'), first)
      await bench.assertGone({ id })
    }
  },
  {
    name: 'reuse that is repeated gets its first answer, and is told to nobody else',
    check: async bench => {
      const { id } = await bench.insert()
      await bench.rotate(id, 0)
      const first = await bench.rotate(id, 0, { reuseWindow: 0 }, 'op')
      assert.equal(first.status, 'reused')
      assert.deepEqual(await bench.rotate(id, 0, { reuseWindow: 0 }, 'op'), first)
      assert.deepEqual(await bench.rotate(id, 0, { reuseWindow: 0 }, 'another'), { status: 'unknown' })
    }
  },
  {
    name: '100 rotations of one token at the same time are one rotation',
    check: async bench => {
      const { id } = await bench.insert()
      const outcomes = await inParallel(100, async index => await bench.rotate(id, 0, { kid: index }))
      const statuses = outcomes.map(({ status }) => status)
      assert.equal(statuses.filter(status => status === 'rotated').length, 1)
      assert.equal(statuses.filter(status => status === 'repeated').length, 99)
      const session = await bench.store.get(id)
      assert.equal(session?.generation, 1)
      for (const outcome of outcomes) assert.deepEqual('session' in outcome && outcome.session, session)
    }
  },
  {
    name: 'with a window of 0, of 100 rotations at the same time one succeeds and one ends the session',
    check: async bench => {
      const { id } = await bench.insert()
      const outcomes = await inParallel(100, async () => await bench.rotate(id, 0, { reuseWindow: 0 }))
      const statuses = outcomes.map(({ status }) => status).sort()
      assert.deepEqual(statuses, ['reused', 'rotated', ...Array.from({ length: 98 }, () => 'unknown')])
      await bench.assertGone({ id })
    }
  }
]
