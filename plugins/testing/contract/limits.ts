import assert from 'node:assert/strict'
import type { SessionLimit } from '../../token-registry/index.ts'
import { idsOf, inParallel, type Rule } from './bench.ts'

const atMost = (max: number, onExceed: SessionLimit['onExceed'], where?: NonNullable<SessionLimit['where']>): SessionLimit =>
  ({ name: `${onExceed} ${max}`, max, onExceed, ...where && { where } })

export const limitRules: readonly Rule[] = [
  {
    name: 'a limit that refuses says which it is and how many there are, and stores nothing',
    check: async bench => {
      const limit = atMost(2, 'refuse')
      const [first, second] = [await bench.insert({}, [limit]), await bench.insert({}, [limit])]
      const record = bench.record()
      assert.deepEqual(await bench.insertAll([record], [limit]), { inserted: [], evicted: [], refused: [{ reason: 'limit', limit, count: 2, tenant: '', sub: 'alice', ids: [record.id] }] })
      await bench.end(first.id)
      const many = await bench.insertAll([bench.record(), bench.record()], [limit])
      assert.equal(many.refused[0]?.reason, 'limit', 'all or none')
      await bench.assertFinds({}, [second])
      await bench.insert({}, [limit])
    }
  },
  {
    name: 'a limit counts what one subject holds',
    check: async bench => {
      const limit = atMost(1, 'refuse')
      await bench.insert({ sub: 'alice' }, [limit])
      await bench.insert({ sub: 'bob' }, [limit])
      await bench.insert({ tenant: 'acme', sub: 'alice' }, [limit])
      const { inserted, refused } = await bench.insertAll([bench.record({ sub: 'alice' }), bench.record({ sub: 'carol' })], [limit])
      assert.deepEqual([inserted.map(({ sub }) => sub), refused.map(({ sub }) => sub)], [['carol'], ['alice']])
    }
  },
  {
    name: 'the oldest end to make room, and a rotation keeps its place',
    check: async bench => {
      const sessions = [await bench.insert(), await bench.insert(), await bench.insert()] as const
      await bench.rotate(sessions[0].id, 0)
      const oldest = await bench.store.get(sessions[0].id)

      const limit = atMost(3, 'end-oldest')
      const { inserted: [fourth], evicted } = await bench.insertAll([bench.record()], [limit])
      assert.deepEqual(evicted, [oldest])
      const { inserted: [fifth, sixth], evicted: two } = await bench.insertAll([bench.record(), bench.record()], [limit])
      assert.deepEqual(two.map(({ id }) => id), [sessions[1].id, sessions[2].id])
      assert.ok(fourth && fifth && sixth, 'there is room')
      await bench.assertFinds({}, [fourth, fifth, sixth])
      await bench.assertGone(...sessions)
    }
  },
  {
    name: 'what a limit ended has an ending that says so',
    needs: ['ending'],
    check: async bench => {
      const { id } = await bench.insert()
      await bench.insertAll([bench.record()], [atMost(1, 'end-oldest')], 'op')
      const ending = await bench.store.ending(id)
      assert.deepEqual({ ...ending }, { ...ending, id, tenant: '', sub: 'alice', reason: 'limit', by: null, op: 'op' })
    }
  },
  {
    name: 'the least recently used end to make room',
    needs: ['touch'],
    check: async bench => {
      const [first, second, third] = [await bench.insert(), await bench.insert(), await bench.insert()]
      await bench.advance(50)
      await bench.store.touch([{ id: first.id, at: bench.store.now() }])
      await bench.advance(50)
      await bench.rotate(second.id, 0)

      const limit = atMost(3, 'end-least-recently-used')
      const next = await bench.insertAll([bench.record()], [limit])
      assert.deepEqual(idsOf(next.evicted), [third.id])
      const after = await bench.insertAll([bench.record()], [limit])
      assert.deepEqual(idsOf(after.evicted), [first.id])
      await bench.assertLives(second)
    }
  },
  {
    name: 'a limit on a client or a device counts only its sessions',
    check: async bench => {
      const phone = await bench.insert({ meta: { deviceId: 'phone' }, client: 'app' })
      const web = await bench.insert({ meta: { deviceId: 'web', userAgent: 'phone' }, client: 'site' })
      const none = await bench.insert()

      const onePhone = atMost(1, 'end-oldest', { deviceId: 'phone' })
      assert.deepEqual((await bench.insertAll([bench.record({ meta: { deviceId: 'web' } })], [onePhone])).evicted, [])
      const second = await bench.insertAll([bench.record({ meta: { deviceId: 'phone' }, client: 'app' })], [onePhone])
      assert.deepEqual(idsOf(second.evicted), [phone.id])

      const oneApp = atMost(1, 'refuse', { client: 'app' })
      assert.equal((await bench.insertAll([bench.record({ client: 'app' })], [oneApp])).refused[0]?.reason, 'limit')
      await bench.insert({ client: 'site' }, [oneApp])
      const bothAtOnce = atMost(1, 'refuse', { client: 'app', deviceId: 'phone' })
      await bench.insert({ client: 'app', meta: { deviceId: 'tablet' } }, [bothAtOnce])
      assert.equal((await bench.insertAll([bench.record({ client: 'app', meta: { deviceId: 'phone' } })], [bothAtOnce])).refused.length, 1)
      await bench.assertLives(web, none)
    }
  },
  {
    name: 'several limits hold at once: whom one ends, the next does not count, and where one refuses, nobody ends',
    check: async bench => {
      const app = await bench.insert({ client: 'app' })
      await bench.insert({ client: 'site' })
      await bench.insert({ client: 'app' })
      const oneLess = [atMost(2, 'end-oldest', { client: 'app' }), atMost(3, 'end-oldest')]
      const { evicted, refused } = await bench.insertAll([bench.record({ client: 'app' })], oneLess)
      assert.deepEqual([idsOf(evicted), refused], [[app.id], []])

      // The first limit ends both sessions of the client that the second one would count.
      const cleared = await bench.insertAll([bench.record({ client: 'app' })], [atMost(1, 'end-oldest'), atMost(1, 'refuse', { client: 'app' })])
      assert.deepEqual([cleared.evicted.length, cleared.refused], [3, []])

      await bench.insert({ client: 'site' })
      const all = idsOf(await bench.findAll({}))
      const refusing = await bench.insertAll([bench.record({ client: 'site' })], [atMost(2, 'end-oldest'), atMost(0, 'refuse', { client: 'site' })])
      assert.deepEqual([refusing.inserted, refusing.evicted, refusing.refused.length], [[], [], 1])
      assert.deepEqual(idsOf(await bench.findAll({})), all)
    }
  },
  {
    name: 'more at once than a limit allows are refused, whatever would end',
    check: async bench => {
      const session = await bench.insert()
      for (const limit of [atMost(1, 'end-oldest'), atMost(1, 'end-least-recently-used')]) {
        assert.equal((await bench.insertAll([bench.record(), bench.record()], [limit])).refused[0]?.reason, 'limit')
      }
      assert.equal((await bench.insertAll([bench.record()], [atMost(0, 'end-oldest')])).refused[0]?.reason, 'limit')
      await bench.assertFinds({}, [session])
    }
  },
  {
    name: 'what has expired or ended counts in no limit',
    check: async bench => {
      const limit = atMost(1, 'refuse')
      await bench.insert({ ttl: 200 }, [limit])
      await bench.advance(210)
      const { id } = await bench.insert({}, [limit])
      await bench.end(id)
      await bench.insert({}, [limit])
    }
  },
  {
    name: 'one-time tokens count in no limit',
    check: async bench => {
      const limit = atMost(1, 'refuse')
      await bench.insert({ use: 'once' }, [limit])
      await bench.insert({ use: 'refresh' }, [limit])
      await bench.insert({ use: 'once' }, [limit])
      assert.equal((await bench.insertAll([bench.record()], [limit])).refused.length, 1)
      const evicting = await bench.insertAll([bench.record({ use: 'once' })], [atMost(0, 'end-oldest')])
      assert.deepEqual([evicting.inserted.length, evicting.evicted], [1, []])
    }
  },
  {
    name: 'a limit holds against many who sign in at the same time',
    check: async bench => {
      const refusing = await inParallel(50, async () => await bench.insertAll([bench.record({ sub: 'alice' })], [atMost(10, 'refuse')]))
      assert.equal(refusing.flatMap(({ inserted }) => inserted).length, 10)
      assert.equal(await bench.store.count({ sub: 'alice' }), 10)

      const evicting = await inParallel(50, async () => await bench.insertAll([bench.record({ sub: 'bob' })], [atMost(10, 'end-oldest')]))
      const evicted = new Set(evicting.flatMap(outcome => outcome.evicted).map(({ id }) => id))
      assert.equal(evicted.size, 40, 'each is told once')
      await bench.assertFinds({ sub: 'bob' }, evicting.flatMap(({ inserted }) => inserted).filter(({ id }) => !evicted.has(id)))
    }
  },
  {
    name: 'an insert that made room and is repeated gets its first answer, and ends nobody else',
    check: async bench => {
      const limit = atMost(1, 'end-oldest')
      const old = [await bench.insert({ sub: 'alice' }), await bench.insert({ sub: 'bob' })]
      const records = [bench.record({ sub: 'alice' }), bench.record({ sub: 'bob' })]
      const first = await bench.insertAll(records, [limit], 'op')
      assert.deepEqual(idsOf(first.evicted), idsOf(old))
      assert.deepEqual(await bench.insertAll(records, [limit], 'op'), first)
      await bench.assertFinds({}, records)
    }
  }
]
