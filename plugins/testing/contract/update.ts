import assert from 'node:assert/strict'
import type { SessionPatch } from '../../token-registry/index.ts'
import { inParallel, type Rule } from './bench.ts'

const conflict = { code: 'FST_SESSION_CONFLICT' }

export const updateRules: readonly Rule[] = [
  {
    name: 'an update replaces each part as a whole, leaves the rest, and counts',
    needs: ['update'],
    check: async bench => {
      const { store } = bench
      let expected = await bench.insert({ scope: ['read'], meta: { deviceId: 'phone', userAgent: 'a' }, version: '1' })
      const patches: SessionPatch[] = [{ meta: { deviceId: 'tablet' } }, { scope: ['write', 'read'] }, { scope: [] }, { version: '2' }, { meta: {}, version: '3' }, {}]
      if (bench.has('touch')) patches.push({ idleTimeout: 60_000 }, { idleTimeout: null })
      for (const patch of patches) {
        const updated = await store.update(expected.id, patch)
        // Another idle timeout counts from now.
        assert.ok(updated !== null && updated.lastUsedAt >= expected.lastUsedAt)
        const { lastUsedAt } = patch.idleTimeout === undefined ? expected : updated
        expected = { ...expected, ...patch, lastUsedAt, revision: expected.revision + 1 }
        assert.deepEqual(updated, expected)
        assert.deepEqual(await store.get(expected.id), expected)
      }
      assert.equal((await bench.rotate(expected.id, 0)).status, 'rotated')
    }
  },
  {
    name: 'an update of a revision that is past is refused',
    needs: ['update'],
    check: async bench => {
      const { store } = bench
      const { id } = await bench.insert()
      assert.equal((await store.update(id, { version: '1' }, 0))?.revision, 1)
      await assert.rejects(store.update(id, { version: '2' }, 0), conflict)
      await assert.rejects(store.update(id, { version: '2' }, 2), conflict)
      const session = await store.update(id, { version: '2' }, 1)
      assert.deepEqual([session?.revision, session?.version], [2, '2'])
      await assert.rejects(store.update(id, { version: '1' }, 0), conflict)
    }
  },
  {
    name: 'an update of a revision that is repeated gets its first answer',
    needs: ['update'],
    check: async bench => {
      const { store } = bench
      const { id } = await bench.insert()
      const patch = { meta: { deviceId: 'phone', ...{ list: [1, { a: 'b' }] } }, scope: ['read', 'write'], version: '2' }
      const first = await store.update(id, patch, 0)
      assert.deepEqual(await store.update(id, patch, 0), first)
      assert.deepEqual(await store.get(id), first)
    }
  },
  {
    name: 'of 100 updates of one revision at the same time one succeeds',
    needs: ['update'],
    check: async bench => {
      const { store } = bench
      const { id } = await bench.insert()
      const outcomes = await inParallel(100, async index => await store.update(id, { version: String(index) }, 0).catch((error: unknown) => {
        assert.deepEqual({ ...conflict, ...error as object }, { ...error as object, ...conflict })
        return null
      }))
      const winners = outcomes.filter(outcome => outcome !== null)
      assert.equal(winners.length, 1)
      assert.deepEqual(await store.get(id), winners[0])
    }
  },
  {
    name: 'what does not live is not updated',
    needs: ['update'],
    check: async bench => {
      const { store } = bench
      const { id } = await bench.insert()
      await bench.end(id)
      assert.equal(await store.update(id, { version: '2' }), null)
      assert.equal(await store.update(id, { version: '2' }, 0), null)
      assert.equal(await store.update(bench.record().id, { version: '2' }), null)
      await bench.assertFinds({}, [])
    }
  },
  {
    name: 'queries follow what was updated',
    needs: ['update'],
    check: async bench => {
      const { store } = bench
      const session = await bench.insert({ meta: { deviceId: 'phone', ipAddress: '192.0.2.1' } })
      await store.update(session.id, { meta: { deviceId: 'tablet' } })
      await bench.assertFinds({ deviceId: 'phone' }, [])
      await bench.assertFinds({ ipAddress: '192.0.2.1' }, [])
      await bench.assertFinds({ deviceId: 'tablet' }, [session])
    }
  }
]
