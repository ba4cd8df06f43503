import assert from 'node:assert/strict'
import { assertStatus, because, idsOf, inParallel, type Rule } from './bench.ts'

/** One-time tokens, and what came of them. */
export const originRules: readonly Rule[] = [
  {
    name: 'the first to present a one-time token wins, the second is told apart as reuse',
    check: async bench => {
      const token = await bench.insert({ use: 'once' })
      const first = await bench.consume(token.id, {}, 'op')
      assertStatus(first, 'rotated')
      assert.equal(first.session.generation, 1)
      assert.deepEqual(await bench.store.get(token.id), first.session, 'it stays until it expires')
      assert.deepEqual(await bench.consume(token.id, {}, 'op'), first, 'a repetition gets the first answer')

      const second = await bench.consume(token.id, { by: 'thief' })
      assertStatus(second, 'reused')
      assert.deepEqual([second.ended, second.ending.reason, second.ending.by], [[first.session], 'reuse_recent', 'thief'])
      assert.deepEqual(await bench.consume(token.id), { status: 'unknown' })
      await bench.assertGone(token)
    }
  },
  {
    name: 'of 100 that present a one-time token at the same time one wins',
    check: async bench => {
      const { id } = await bench.insert({ use: 'once' })
      const outcomes = await inParallel(100, async () => await bench.consume(id))
      const statuses = outcomes.map(({ status }) => status).sort()
      assert.deepEqual(statuses, ['reused', 'rotated', ...Array.from({ length: 98 }, () => 'unknown')])
    }
  },
  {
    name: 'another client or key does not consume',
    check: async bench => {
      const { id } = await bench.insert({ use: 'once', client: 'app', binding: 'key' })
      assert.deepEqual(await bench.consume(id, { client: 'other', binding: 'key' }), { status: 'refused', by: 'client' })
      assert.deepEqual(await bench.consume(id, { client: 'app' }), { status: 'refused', by: 'binding' })
      assert.equal((await bench.consume(id, { client: 'app', binding: 'key' })).status, 'rotated')
      assert.deepEqual(await bench.consume(id, { client: 'other', binding: 'key' }), { status: 'refused', by: 'client' })
      await bench.assertLives({ id })
    }
  },
  {
    name: 'reuse ends what came of the token, and nothing else',
    check: async bench => {
      const [token, other] = [await bench.insertConsumed(), await bench.insertConsumed()]
      const came = [await bench.insert({ origin: token.id }), await bench.insert({ origin: token.id, use: 'refresh' })]
      const spared = [await bench.insert({ origin: other.id }), await bench.insert()]

      const outcome = await bench.consume(token.id, {}, 'op')
      assertStatus(outcome, 'reused')
      assert.equal(outcome.ended[0]?.id, token.id, 'the token itself first')
      assert.deepEqual(idsOf(outcome.ended), idsOf([token, ...came]))
      await bench.assertGone(token, ...came)
      await bench.assertLives(other, ...spared)
      for (const { id } of bench.has('ending') ? came : []) {
        assert.deepEqual(await bench.store.ending(id), { ...outcome.ending, id })
      }
      const again = await bench.consume(token.id, {}, 'op')
      assert.deepEqual(again.status === 'reused' && idsOf(again.ended), idsOf(outcome.ended), 'a repetition gets the first answer')
    }
  },
  {
    name: 'nothing comes of a token that was not consumed, was reused, ended or expired, or is none of the subject\'s',
    check: async bench => {
      const reused = await bench.insertConsumed()
      await bench.consume(reused.id)
      const ended = await bench.insertConsumed()
      await bench.store.end([ended.id], because())
      const expired = await bench.insertConsumed({ ttl: 200 })
      await bench.advance(210)
      const session = await bench.insert()
      await bench.rotate(session.id, 0)
      const origins = [await bench.insert({ use: 'once' }), bench.record(), reused, ended, expired, session, await bench.insertConsumed({ sub: 'bob' }), await bench.insertConsumed({ tenant: 'acme' })]

      for (const origin of origins) {
        const [record, beside] = [bench.record({ origin: origin.id }), bench.record()]
        const { inserted, refused } = await bench.insertAll([beside, record])
        assert.deepEqual({ inserted, refused }, { inserted: [], refused: [{ reason: 'origin', id: origin.id, tenant: '', sub: 'alice', ids: [beside.id, record.id] }] })
      }
      await bench.assertFinds({}, [session])
    }
  },
  {
    name: 'an insert for a token that is repeated gets its first answer, also when the token has expired',
    check: async bench => {
      const token = await bench.insertConsumed({ ttl: 200 })
      const record = bench.record({ origin: token.id })
      const first = await bench.insertAll([record], [], 'op')
      assert.equal(first.inserted[0]?.origin, token.id)
      await bench.advance(210)
      assert.deepEqual(await bench.insertAll([record], [], 'op'), first)
    }
  },
  {
    name: 'a reuse and an insert at the same time leave no session of the reused token',
    check: async bench => {
      const outcomes = await inParallel(20, async () => {
        const token = await bench.insertConsumed()
        const record = bench.record({ origin: token.id })
        await Promise.all([bench.insertAll([record]), bench.consume(token.id), bench.insertAll([bench.record({ origin: token.id })])])
        return record
      })
      await bench.assertGone(...outcomes)
      await bench.assertFinds({}, [])
    }
  },
  {
    name: 'one-time tokens are not listed and not counted',
    check: async bench => {
      const session = await bench.insert({ client: 'app' })
      await bench.insert({ use: 'once', client: 'app' })
      await bench.insertConsumed({ client: 'app' })
      for (const query of [{}, { sub: 'alice' }, { tenant: '', sub: 'alice' }, { tenant: '' }, { client: 'app' }]) await bench.assertFinds(query, [session])
    }
  }
]
