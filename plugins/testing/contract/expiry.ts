import assert from 'node:assert/strict'
import type { Ending, SessionRecord } from '../../token-registry/index.ts'
import { because, eventually, type Rule } from './bench.ts'

export const expiryRules: readonly Rule[] = [
  {
    name: 'from its deadline on a session is gone for every call',
    check: async bench => {
      const { store } = bench
      const [session, refresh, once] = [await bench.insert({ ttl: 200 }), await bench.insert({ ttl: 200, use: 'refresh' }), await bench.insert({ ttl: 200, use: 'once' })]
      const later = await bench.insert({ ttl: 60_000 })
      await bench.assertLives(session, refresh, once)
      await bench.advance(200)
      await bench.assertGone(session, refresh, once)
      await bench.assertFinds({}, [later])
      assert.deepEqual(await bench.rotate(refresh.id, 0), { status: 'unknown' })
      assert.deepEqual(await bench.consume(once.id), { status: 'unknown' })
      assert.deepEqual(await store.end([session.id], because()), [])
      if (bench.has('update')) assert.equal(await store.update(session.id, { version: '2' }), null)
      if (bench.has('touch')) await store.touch([{ id: session.id, at: store.now() }])
      assert.equal(await store.endAll({ tenant: '', sub: 'alice' }, because()), 1)
      await bench.assertGone(session, later)
    }
  },
  {
    name: 'a rotation does not move the deadline',
    check: async bench => {
      const session = await bench.insert({ ttl: 600 })
      await bench.advance(200)
      const outcome = await bench.rotate(session.id, 0)
      assert.equal(outcome.status === 'rotated' && outcome.session.expiresAt, session.expiresAt)
      await bench.advance(400)
      await bench.assertGone(session)
    }
  },
  {
    name: 'a session that is not used for its idle timeout is gone, one that is used lives on',
    needs: ['touch'],
    check: async bench => {
      const { store } = bench
      const draft = { idleTimeout: 1000 }
      const [unused, used, rotated, short] = [await bench.insert(draft), await bench.insert(draft), await bench.insert(draft), await bench.insert({ ...draft, ttl: 900 })]
      await bench.advance(400)
      await store.touch([{ id: used.id, at: store.now() }, { id: short.id, at: store.now() }])
      await bench.rotate(rotated.id, 0)
      await bench.advance(650)
      await bench.assertGone(unused, short)
      await bench.assertFinds({}, [used, rotated])
      await bench.advance(400)
      await bench.assertGone(used, rotated)
    }
  },
  {
    name: 'an idle timeout that is changed counts from the change',
    needs: ['touch', 'update'],
    check: async bench => {
      const { store } = bench
      const session = await bench.insert()
      await bench.advance(600)
      const changed = await store.update(session.id, { idleTimeout: 500 })
      assert.ok(changed !== null && changed.lastUsedAt >= session.lastUsedAt + 600)
      await bench.assertLives(changed)
      await bench.advance(500)
      await bench.assertGone(changed)
    }
  },
  {
    name: 'a use is never noted backwards',
    needs: ['touch'],
    check: async bench => {
      const { store } = bench
      const session = await bench.insert({ idleTimeout: 60_000 })
      await bench.advance(20)
      const at = store.now()
      await store.touch([{ id: session.id, at }])
      await store.touch([{ id: session.id, at: at - 10 }, { id: session.id, at: session.issuedAt - 60_000 }])
      assert.deepEqual(await store.get(session.id), { ...session, lastUsedAt: at })
      await store.touch([])
    }
  },
  {
    name: 'a use revives nothing',
    needs: ['touch'],
    check: async bench => {
      const { store } = bench
      const [ended, idle, unknown] = [await bench.insert(), await bench.insert({ idleTimeout: 200 }), bench.record()]
      await bench.end(ended.id)
      await bench.advance(210)
      await store.touch([ended, idle, unknown].map(({ id }) => ({ id, at: store.now() })))
      await bench.assertGone(ended, idle, unknown)
      await bench.assertFinds({}, [])
    }
  },
  {
    name: 'an expiry that is noticed is told once, and explained',
    needs: ['onExpire', 'ending', 'touch'],
    check: async bench => {
      const { store } = bench
      const told: Array<{ session: SessionRecord, ending: Ending }> = []
      const stop = store.onExpire((session, ending) => told.push({ session, ending }))
      const expired = await bench.insert({ ttl: 200 })
      await bench.advance(210)
      await bench.assertGone(expired)
      await eventually(() => told.length > 0, 'the expiry is told')
      const ending = await store.ending(expired.id)
      assert.deepEqual({ ...ending }, { ...ending, id: expired.id, tenant: '', sub: 'alice', reason: 'expired', by: null, at: expired.expiresAt })
      assert.deepEqual(told, [{ session: expired, ending }])

      const idle = await bench.insert({ idleTimeout: 200, ttl: 300 })
      await bench.advance(310)
      await bench.assertGone(idle)
      const cause = await store.ending(idle.id)
      assert.deepEqual([cause?.reason, cause?.at], ['idle', idle.lastUsedAt + 200], 'the deadline that came first')

      stop()
      const count = told.length
      const late = await bench.insert({ ttl: 100 })
      await bench.advance(110)
      await bench.assertGone(late)
      assert.equal(told.length, count, 'nobody listens any more')
    }
  }
]
