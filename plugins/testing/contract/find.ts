import assert from 'node:assert/strict'
import type { SessionRecord } from '../../token-registry/index.ts'
import { hostileStrings } from '../strings.ts'
import { because, idsOf, type Rule } from './bench.ts'

const alice = { tenant: '', sub: 'alice' }

export const findRules: readonly Rule[] = [
  {
    name: 'paging finds each session exactly once, a subject\'s newest first',
    check: async bench => {
      const sessions: SessionRecord[] = []
      for (let i = 0; i < 25; i++) sessions.push(await bench.insert({ sub: i % 2 === 0 ? 'alice' : 'bob' }))
      const alices = sessions.filter(({ sub }) => sub === 'alice').map(({ id }) => id).reverse()
      for (const limit of [1, 4, 13, 500]) {
        assert.deepEqual((await bench.findAll(alice, limit)).map(({ id }) => id), alices, `pages of ${limit}`)
        for (const query of [{}, { tenant: '' }]) assert.deepEqual(idsOf(await bench.findAll(query, limit)), idsOf(sessions), `pages of ${limit}`)
      }
      assert.deepEqual(await bench.store.find({ tenant: '', sub: 'nobody' }, { limit: 10 }), { sessions: [], cursor: null })
    }
  },
  {
    name: 'what lives throughout the paging is found exactly once, whatever begins and ends meanwhile',
    check: async bench => {
      for (const query of [alice, {}]) {
        const sessions: SessionRecord[] = []
        for (let i = 0; i < 40; i++) sessions.push(await bench.insert())
        const ended = new Set<string>()
        const found: string[] = []
        let cursor: string | null = null
        for (let i = 0; i < 40; i += 3) {
          const page: { sessions: SessionRecord[], cursor: string | null } = await bench.store.find(query, { limit: 5, cursor })
          for (const { id } of page.sessions) {
            assert.ok(!ended.has(id), 'what has ended is not found')
            found.push(id)
          }
          cursor = page.cursor
          if (cursor === null) break
          await bench.insert()
          for (const session of sessions.slice(i, i + 2)) {
            ended.add(session.id)
            await bench.end(session.id)
          }
        }
        assert.equal(cursor, null)
        assert.equal(new Set(found).size, found.length, 'nothing is found twice')
        for (const { id } of sessions) if (!ended.has(id)) assert.ok(found.includes(id), 'nothing is missed')
        await bench.store.endAll(alice, because())
      }
    }
  },
  {
    name: 'a cursor that no page gave is refused',
    check: async bench => {
      await bench.insert()
      const cursors = ['', ' ', '*', '{}', '-1', '\'; --', '../x', '\0', '\ud800', '\u{1f600}', '=', 'a'.repeat(10_000), 'no cursor']
      for (const cursor of cursors) {
        for (const query of [alice, {}]) await assert.rejects(bench.store.find(query, { limit: 10, cursor }), { code: 'FST_TOKEN_VALIDATION' }, JSON.stringify(cursor.slice(0, 20)))
      }
    }
  },
  {
    name: 'a query narrows by subject, client, device and address, and by all of them at once',
    check: async bench => {
      const one = await bench.insert({ client: 'app', meta: { deviceId: 'phone', ipAddress: '192.0.2.1' } })
      const two = await bench.insert({ client: 'site', meta: { deviceId: '192.0.2.1', ipAddress: '2001:db8::1', userAgent: 'phone' } })
      const three = await bench.insert({ sub: 'bob', client: 'app', meta: { deviceId: 'phone', userAgent: 'site' } })
      const four = await bench.insert({ tenant: 'acme', sub: 'alice', meta: { deviceId: 'phones', ipAddress: '192.0.2.1' } })
      const cases = [
        [{}, [one, two, three, four]],
        [{ sub: 'alice' }, [one, two, four]],
        [{ tenant: '' }, [one, two, three]],
        [{ tenant: 'acme' }, [four]],
        [alice, [one, two]],
        [{ client: 'app' }, [one, three]],
        [{ ...alice, client: 'app' }, [one]],
        [{ deviceId: 'phone' }, [one, three]],
        [{ sub: 'alice', deviceId: 'phone' }, [one]],
        [{ ipAddress: '192.0.2.1' }, [one, four]],
        [{ ipAddress: '2001:db8::1' }, [two]],
        [{ tenant: '', sub: 'bob', client: 'app', deviceId: 'phone' }, [three]],
        [{ client: 'site', deviceId: 'phone' }, []],
        [{ tenant: 'acme', client: 'app' }, []],
        [{ client: 'ap' }, []],
        [{ deviceId: 'PHONE' }, []]
      ] as const
      for (const [query, expected] of cases) await bench.assertFinds(query, expected)
      for (const text of hostileStrings) {
        if (text !== 'alice') for (const query of [{ ...alice, client: text }, { deviceId: text }, { ipAddress: text }, { tenant: text }, { sub: text }]) await bench.assertFinds(query, [])
      }
    }
  },
  {
    name: 'a query narrows by the time of issue, from one time on, until before another',
    check: async bench => {
      const first = await bench.insert()
      await bench.advance(20)
      const second = await bench.insert()
      await bench.advance(20)
      const third = await bench.insert({ sub: 'bob' })
      const cases = [
        [{ issuedAfter: second.issuedAt }, [second, third]],
        [{ issuedBefore: second.issuedAt }, [first]],
        [{ issuedAfter: first.issuedAt, issuedBefore: third.issuedAt }, [first, second]],
        [{ ...alice, issuedAfter: second.issuedAt }, [second]],
        [{ issuedAfter: second.issuedAt + 1, issuedBefore: third.issuedAt }, []],
        [{ issuedAfter: 0, issuedBefore: Number.MAX_SAFE_INTEGER }, [first, second, third]]
      ] as const
      for (const [query, expected] of cases) await bench.assertFinds(query, expected)
    }
  }
]
