import assert from 'node:assert/strict'
import type { SessionLimit, SessionRecord } from '../../token-registry/index.ts'
import { evictedOf, idsOf, inParallel, type Rule } from './bench.ts'

const atMost = (max: number, onExceed: SessionLimit['onExceed'], more: Partial<SessionLimit> = {}): SessionLimit => ({ name: `${onExceed} ${max}`, max, onExceed, ...more })

/** What a limit of `atMost` says of one that it ended for another. */
function endedFor (session: SessionRecord | undefined, limit: SessionLimit, successor: SessionRecord): object {
  const { meta: { deviceId: device } } = successor
  return { id: session?.id, tenant: '', sub: session?.sub, reason: 'limit', by: null, detail: { limit: limit.name, session: successor.id, ...device !== undefined && { device } } }
}

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
      assert.deepEqual(evictedOf({ evicted }), [oldest])
      const { inserted: [fifth, sixth], evicted: two } = await bench.insertAll([bench.record(), bench.record()], [limit])
      assert.deepEqual(evictedOf({ evicted: two }).map(({ id }) => id), [sessions[1].id, sessions[2].id])
      assert.ok(fourth && fifth && sixth, 'there is room')
      await bench.assertFinds({}, [fourth, fifth, sixth])
      await bench.assertGone(...sessions)
    }
  },
  {
    name: 'what a limit ended has an ending that says so',
    needs: ['ending'],
    check: async bench => {
      for (const successor of [bench.record(), bench.record({ meta: { deviceId: 'phone "2"' } })]) {
        const session = await bench.insert({ sub: 'alice' })
        const limit = atMost(1, 'end-oldest')
        const { evicted: [evicted] } = await bench.insertAll([successor], [limit], `op of ${successor.id}`)
        const ending = await bench.store.ending(session.id)
        assert.deepEqual(ending, { ...endedFor(session, limit, successor), op: `op of ${successor.id}`, at: ending?.at })
        assert.deepEqual(evicted, { session, ending })
        await bench.end(successor.id)
      }
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
      assert.deepEqual(idsOf(evictedOf(next)), [third.id])
      const after = await bench.insertAll([bench.record()], [limit])
      assert.deepEqual(idsOf(evictedOf(after)), [first.id])
      await bench.assertLives(second)
    }
  },
  {
    name: 'last uses that come with an insert count in it, and are kept',
    needs: ['touch'],
    check: async bench => {
      const [first, second, third] = [await bench.insert(), await bench.insert({ idleTimeout: 60_000 }), await bench.insert({ sub: 'bob' })]
      await bench.advance(20)
      const at = bench.store.now()
      const uses = [{ id: first.id, at }, { id: second.id, at: at - 10 }, { id: third.id, at }, { id: 'x'.repeat(24), at }, { id: 'no id', at }]
      const record = { ...bench.record(), op: 'op' }
      const { evicted } = await bench.store.insert([record], { limits: [atMost(2, 'end-least-recently-used')], uses, op: 'op' })
      assert.deepEqual(evictedOf({ evicted }).map(({ id }) => id), [second.id])
      assert.equal((await bench.store.get(first.id))?.lastUsedAt, at)

      await bench.advance(20)
      const within = await bench.store.insert([], { limits: [atMost(1, 'refuse')], uses: [{ id: first.id, at: bench.store.now() }], subject: { tenant: '', sub: 'alice' }, op: 'within' })
      assert.deepEqual(evictedOf(within).map(({ id }) => id), [record.id])
    }
  },
  {
    name: 'a limit on a group counts only its sessions',
    check: async bench => {
      const phone = await bench.insert({ groups: ['phone', 'app'] })
      const web = await bench.insert({ groups: ['web'] })
      const none = await bench.insert()

      const onePhone = atMost(1, 'end-oldest', { group: 'phone' })
      assert.deepEqual((await bench.insertAll([bench.record({ groups: ['web', 'site'] }), bench.record()], [onePhone])).evicted, [])
      const second = await bench.insertAll([bench.record({ groups: ['app', 'phone'] })], [onePhone])
      assert.deepEqual(idsOf(evictedOf(second)), [phone.id])

      const oneApp = atMost(1, 'refuse', { group: 'app' })
      const { refused: [refusal] } = await bench.insertAll([bench.record({ groups: ['app'] })], [oneApp])
      assert.deepEqual(refusal?.reason === 'limit' && [refusal.limit, refusal.count], [oneApp, 1])
      await bench.insert({ groups: ['phone'] }, [oneApp])
      await bench.insert({ sub: 'bob', groups: ['app'] }, [oneApp])
      await bench.assertLives(web, none)
    }
  },
  {
    name: 'what ended, expired or was rotated counts in groups as it counts in all',
    check: async bench => {
      const limit = atMost(1, 'refuse', { group: 'g' })
      const ended = await bench.insert({ groups: ['g'] }, [limit])
      await bench.end(ended.id)
      await bench.insert({ groups: ['g'], ttl: 200 }, [limit])
      await bench.advance(210)
      const rotated = await bench.insert({ groups: ['g'] }, [limit])
      await bench.rotate(rotated.id, 0)
      assert.equal((await bench.insertAll([bench.record({ groups: ['g'] })], [limit])).refused.length, 1)
      await bench.insert({ groups: ['g'], use: 'once' }, [limit])
    }
  },
  {
    name: 'what is used does not expire in a group, and what is idle does',
    needs: ['touch'],
    check: async bench => {
      const limit = atMost(2, 'refuse', { group: 'g' })
      const [used, idle] = [await bench.insert({ groups: ['g'], idleTimeout: 1000 }), await bench.insert({ groups: ['g'], idleTimeout: 1000 })]
      await bench.advance(700)
      await bench.store.touch([{ id: used.id, at: bench.store.now() }])
      await bench.advance(310)
      await bench.insert({ groups: ['g'] }, [limit])
      assert.equal((await bench.insertAll([bench.record({ groups: ['g'] })], [limit])).refused.length, 1)
      await bench.assertGone(idle)
      await bench.assertLives(used)
    }
  },
  {
    name: 'what endAll ends counts in no group, and what it keeps does',
    needs: ['endAll'],
    check: async bench => {
      const limit = atMost(2, 'refuse', { group: 'g' })
      const kept = await bench.insert({ groups: ['g'] })
      await bench.insert({ groups: ['g'] })
      await bench.store.endAll({ tenant: '', sub: 'alice', except: [kept.id] }, { reason: 'revoked', by: null, op: 'op' })
      await bench.insert({ groups: ['g'] }, [limit])
      assert.equal((await bench.insertAll([bench.record({ groups: ['g'] })], [limit])).refused.length, 1)
    }
  },
  {
    name: 'a shorter idle timeout counts at once, also among many',
    needs: ['touch', 'update'],
    check: async bench => {
      const draft = { tenant: 'acme', groups: ['g'] }
      const limits = [atMost(70, 'refuse'), atMost(70, 'refuse', { group: 'g' })]
      const [first] = await bench.insertMany(70, draft)
      for (const limit of limits) assert.equal((await bench.insertAll([bench.record(draft)], [limit])).refused.length, 1)
      await bench.store.update(String(first?.id), { idleTimeout: 1000 })
      await bench.advance(1010)
      assert.deepEqual((await bench.insertAll([bench.record(draft)], limits)).refused, [])
    }
  },
  {
    name: 'groups can be changed, and limits follow',
    needs: ['update'],
    check: async bench => {
      const [a, b] = [await bench.insert({ groups: ['a'] }), await bench.insert()]
      assert.deepEqual((await bench.store.update(a.id, { groups: [] }))?.groups, [])
      assert.deepEqual((await bench.store.update(b.id, { groups: ['a', 'b'] }))?.groups, ['a', 'b'])
      assert.deepEqual((await bench.store.get(b.id))?.groups, ['a', 'b'])
      const { evicted } = await bench.insertAll([bench.record({ groups: ['a'] })], [atMost(1, 'end-oldest', { group: 'a' })])
      assert.deepEqual(idsOf(evictedOf({ evicted })), [b.id])
      // The older one comes back in its place.
      const c = await bench.insert({ groups: ['b'] })
      await bench.store.update(a.id, { groups: ['b'] })
      const next = await bench.insertAll([bench.record({ groups: ['b'] })], [atMost(2, 'end-oldest', { group: 'b' })])
      assert.deepEqual(idsOf(evictedOf(next)), [a.id])
      await bench.assertLives(c)
    }
  },
  {
    name: 'several limits hold at once: whom one ends, the next does not count, and where one refuses, nobody ends',
    check: async bench => {
      const app = await bench.insert({ groups: ['app'] })
      await bench.insert({ groups: ['site'] })
      await bench.insert({ groups: ['app'] })
      const oneLess = [atMost(2, 'end-oldest', { group: 'app' }), atMost(3, 'end-oldest')]
      const { evicted, refused } = await bench.insertAll([bench.record({ groups: ['app'] })], oneLess)
      assert.deepEqual([idsOf(evictedOf({ evicted })), refused], [[app.id], []])

      // The first limit ends both sessions of the group that the second one would count.
      const cleared = await bench.insertAll([bench.record({ groups: ['app'] })], [atMost(1, 'end-oldest'), atMost(1, 'refuse', { group: 'app' })])
      assert.deepEqual([cleared.evicted.length, cleared.refused], [3, []])

      await bench.insert({ groups: ['site'] })
      const all = idsOf(await bench.findAll({}))
      const refusing = await bench.insertAll([bench.record({ groups: ['site'] })], [atMost(2, 'end-oldest'), atMost(0, 'refuse', { group: 'site' })])
      assert.deepEqual([refusing.inserted, refusing.evicted, refusing.refused.length], [[], [], 1])
      assert.deepEqual(idsOf(await bench.findAll({})), all)
    }
  },
  {
    name: 'a limit that would refuse replaces what is named, the oldest first, and no more than it must',
    check: async bench => {
      const limit = atMost(3, 'refuse', { replaces: 'phone' })
      const first = await bench.insert({ groups: ['phone'] })
      const [second, other] = [await bench.insert({ groups: ['phone'] }), await bench.insert({ groups: ['web'] })]
      const successor = bench.record({ groups: ['phone'], meta: { deviceId: 'p' } })
      const { evicted } = await bench.insertAll([successor], [limit], 'op')
      assert.deepEqual(evicted.map(({ session: { id }, ending: { reason, detail } }) => ({ id, reason, detail })),
        [{ id: first.id, reason: 'replaced', detail: { limit: limit.name, session: successor.id, device: 'p' } }])
      await bench.assertLives(second, other, successor)

      const many = await bench.insertAll([bench.record({ groups: ['web'] }), bench.record({ groups: ['web'] })], [{ ...limit, replaces: 'web' }])
      assert.equal(many.refused[0]?.reason, 'limit', 'one does not make room for two')
      assert.deepEqual(many.evicted, [])
      const lowered = await bench.insertAll([bench.record({ groups: ['phone'] })], [atMost(1, 'refuse', { replaces: 'phone' })])
      assert.deepEqual([idsOf(evictedOf(lowered)), lowered.refused], [[second.id], []], 'though there are too many: there are no more than before')
      // It makes no room in a group that it does not count in.
      const elsewhere = await bench.insertAll([bench.record({ groups: ['phone'] })], [atMost(2, 'refuse', { group: 'phone', replaces: 'web' })])
      assert.equal(elsewhere.refused.length, 1)
      await bench.assertLives(other)
    }
  },
  {
    name: 'sessions that are named end in the step that stores: before limits count, only the subject\'s, and only where it stores',
    check: async bench => {
      const [first, second] = [await bench.insert(), await bench.insert()]
      const stranger = await bench.insert({ sub: 'bob' })
      const token = await bench.insert({ use: 'once' })
      const endOthers = [second.id, stranger.id, token.id, 'x'.repeat(24), second.id]
      const record = { ...bench.record({ meta: { deviceId: 'd' } }), op: 'op' }
      const refused = await bench.store.insert([bench.record()], { limits: [atMost(1, 'refuse')], endOthers: [second.id], op: 'refused' })
      assert.deepEqual([refused.evicted, refused.refused.length], [[], 1])

      const options = { limits: [atMost(2, 'refuse')], endOthers, op: 'op' }
      const outcome = await bench.store.insert([record], options)
      assert.deepEqual(outcome.evicted.map(({ session, ending: { at, ...ending } }) => [session, ending]),
        [[second, { id: second.id, tenant: '', sub: 'alice', reason: 'replaced', by: null, op: 'op', detail: { session: record.id, device: 'd' } }]])
      await bench.assertLives(first, stranger, token, record)
      await bench.assertGone(second)
      assert.deepEqual(await bench.store.insert([record], options), outcome, 'a repetition gets the first answer')
      await bench.store.insert([{ ...bench.record(), op: 'alone' }], { endOthers: [first.id], op: 'alone' })
      await bench.assertGone(first)
    }
  },
  {
    name: 'a subject is brought within the limits without a new session, and what would be refused ends by last use',
    needs: ['touch'],
    check: async bench => {
      const [first, second, third] = [await bench.insert({ groups: ['g'] }), await bench.insert(), await bench.insert()]
      // A store may know last uses to the millisecond alone.
      await bench.advance(5)
      const fourth = await bench.insert({ groups: ['g'] })
      const stranger = await bench.insert({ sub: 'bob' })
      await bench.advance(50)
      await bench.store.touch([{ id: first.id, at: bench.store.now() }, { id: second.id, at: bench.store.now() }])
      const subject = { tenant: '', sub: 'alice' }
      const within = async (limits: SessionLimit[], op: string) => await bench.store.insert([], { limits, subject, op })
      assert.deepEqual(await within([atMost(4, 'refuse')], 'none'), { inserted: [], evicted: [], refused: [] })
      const limits = [atMost(1, 'end-oldest', { group: 'g' }), atMost(2, 'refuse')]
      const outcome = await within(limits, 'op')
      assert.deepEqual(outcome.evicted.map(({ session: { id }, ending: { reason, op, detail } }) => ({ id, reason, op, detail })), [
        { id: first.id, reason: 'limit', op: 'op', detail: { limit: limits[0]?.name } },
        { id: third.id, reason: 'limit', op: 'op', detail: { limit: limits[1]?.name } }
      ])
      assert.deepEqual(await within(limits, 'op'), outcome, 'a repetition gets the first answer')
      await bench.assertLives(second, fourth, stranger)
      assert.equal((await within([atMost(0, 'end-least-recently-used')], 'all')).evicted.length, 2)
      assert.deepEqual(await bench.store.insert([], { subject, op: 'without limits' }), { inserted: [], evicted: [], refused: [] })
      assert.deepEqual(await bench.store.insert([], { limits: [atMost(0, 'refuse')], op: 'nobody' }), { inserted: [], evicted: [], refused: [] })
    }
  },
  {
    name: 'a limit of a tenant counts all of its subjects, and only those that it is about',
    check: async bench => {
      const limit = atMost(3, 'refuse', { group: 't-1', across: 'tenant' })
      const draft = { tenant: 'acme', groups: ['t-1'] }
      const [a, b, c] = [await bench.insert({ ...draft, sub: 'a' }, [limit]), await bench.insert({ ...draft, sub: 'b' }, [limit]), await bench.insert({ ...draft, sub: 'c' }, [limit])]
      const refused = async () => (await bench.insertAll([bench.record({ ...draft, sub: 'd' })], [limit])).refused.map(refusal => refusal.reason === 'limit' && [refusal.limit, refusal.count])
      assert.deepEqual(await refused(), [[limit, 3]])
      await bench.insert({ ...draft, tenant: 'other', sub: 'a' }, [limit])
      await bench.insert({ ...draft, groups: [], sub: 'e' }, [limit])
      await bench.insert({ ...draft, use: 'once', sub: 'e' }, [limit])
      await bench.insert({ ...draft, groups: ['t-2'], sub: 'e' }, [atMost(1, 'refuse', { group: 't-2', across: 'tenant' })])
      await bench.end(a.id)
      await bench.until(async () => (await refused()).length === 0, 'the place is free again')
      assert.deepEqual(await refused(), [[limit, 3]])
      await bench.assertLives(b, c)
    }
  },
  {
    name: 'what a limit of a subject refuses takes no place of the tenant',
    check: async bench => {
      const limits = [atMost(2, 'refuse', { group: 't-1', across: 'tenant' }), atMost(1, 'refuse')]
      await bench.insert({ groups: ['t-1'] }, limits)
      for (let i = 0; i < 3; i++) {
        const { refused: [refusal] } = await bench.insertAll([bench.record({ groups: ['t-1'] })], limits)
        assert.equal(refusal?.reason === 'limit' && refusal.limit.name, limits[1]?.name)
        // What was taken for it is given back in the background.
        await bench.until(async () => {
          const { inserted: [session] } = await bench.insertAll([bench.record({ sub: 'bob', groups: ['t-1'] })], limits)
          if (session !== undefined) await bench.end(session.id)
          return session !== undefined
        }, 'its place is free')
      }
    }
  },
  {
    name: 'a full tenant lets in who ends one that it counts in the same step: as a device does, by a limit or by name; and nobody else',
    check: async bench => {
      const limit = atMost(3, 'refuse', { group: 't-1', across: 'tenant' })
      const draft = { tenant: 'acme', groups: ['t-1'] }
      const uncounted = await bench.insert({ tenant: 'acme', groups: ['own'] })
      const [first, second] = [await bench.insert({ ...draft, groups: ['t-1', 'own'] }, [limit]), await bench.insert(draft, [limit])]
      const stranger = await bench.insert({ ...draft, sub: 'bob' }, [limit])
      let operations = 0
      const signIn = async (limits: SessionLimit[], endOthers: string[] = [], sub = 'alice') => {
        const op = `op ${operations++}`
        return await bench.store.insert([{ ...bench.record({ ...draft, sub }), op }], { limits, endOthers, op })
      }
      const refused = async (...given: Parameters<typeof signIn>) => {
        const { refused, inserted, evicted } = await signIn(...given)
        assert.deepEqual([refused.map(one => one.reason === 'limit' && [one.limit.name, one.count]), inserted, evicted], [[[limit.name, 3]], [], []])
      }
      const letIn = async (ended: SessionRecord[], ...given: Parameters<typeof signIn>) => {
        const { inserted: [session], evicted } = await signIn(...given)
        assert.ok(session !== undefined)
        assert.deepEqual(evicted.map(({ session: { id }, ending: { detail } }) => [id, detail?.session]), ended.map(({ id }) => [id, session.id]))
        await refused([limit], [], 'carol')
        return session
      }
      await refused([limit])
      await refused([limit], [stranger.id, uncounted.id])
      await refused([{ ...limit, replaces: 'none' }])
      await refused([atMost(3, 'end-oldest'), limit])

      const third = await letIn([first], [{ ...limit, replaces: 'own' }])
      await refused([{ ...limit, replaces: 'own' }])
      const two = await bench.insertAll([bench.record(draft), bench.record(draft)], [{ ...limit, max: 4 }, atMost(2, 'end-oldest')])
      assert.equal(two.refused.length, 1, 'several at once have places of their own')
      const fourth = await letIn([uncounted, second], [limit, atMost(2, 'end-oldest')])
      const fifth = await letIn([third], [{ ...limit, max: 1 }], [third.id])
      await bench.assertLives(fourth, fifth, stranger)
      assert.equal(await bench.store.count({ tenant: 'acme' }), 3)
      await bench.end(fifth.id)
      await bench.until(async () => (await signIn([limit], [], 'dave')).inserted.length === 1, 'its place is free')
      await refused([limit])
    }
  },
  {
    name: 'what expired frees its place of the tenant',
    check: async bench => {
      const limit = atMost(1, 'refuse', { group: 't-1', across: 'tenant' })
      await bench.insert({ groups: ['t-1'], ttl: 300 }, [limit])
      assert.equal((await bench.insertAll([bench.record({ sub: 'bob', groups: ['t-1'] })], [limit])).refused.length, 1)
      await bench.advance(310)
      await bench.store.get('x'.repeat(24))
      await bench.until(async () => (await bench.insertAll([bench.record({ sub: 'bob', groups: ['t-1'] })], [limit])).inserted.length === 1, 'the place is free')
    }
  },
  {
    name: 'a limit of a tenant holds against many who sign in at the same time',
    check: async bench => {
      const limit = atMost(10, 'refuse', { group: 't-1', across: 'tenant' })
      const outcomes = await inParallel(50, async index => await bench.insertAll([bench.record({ sub: `user ${index}`, groups: ['t-1'] })], [limit]))
      assert.equal(outcomes.flatMap(({ inserted }) => inserted).length, 10)
      assert.equal(await bench.store.count({ tenant: '' }), 10)
    }
  },
  {
    name: 'among many sessions the limits end the same as among few',
    needs: ['touch'],
    check: async bench => {
      const sessions: SessionRecord[] = []
      for (let i = 0; i < 5; i++) {
        sessions.push(...await bench.insertMany(60, { groups: i % 2 === 0 ? ['even'] : [] }))
        await bench.advance(5)
      }
      const at = bench.store.now()
      // All but every tenth, in no order.
      await bench.store.touch(sessions.flatMap(({ id }, i) => i % 10 === 0 ? [] : [{ id, at: at + (i * 7) % 13 }]))
      await bench.end(...sessions.slice(0, 2).map(({ id }) => id))

      const left = sessions.slice(2)
      const ends = async (limit: SessionLimit, expected: Array<SessionRecord | undefined>, groups: string[] = []) => {
        const { evicted } = await bench.insertAll([bench.record({ groups })], [limit])
        assert.deepEqual(evictedOf({ evicted }).map(({ id }) => id), expected.map(session => session?.id), limit.name)
        for (const { session: { id } } of evicted) left.splice(left.findIndex(session => session.id === id), 1)
      }
      const even = (i: number) => Math.floor(i / 60) % 2 === 0
      await ends(atMost(298, 'end-oldest'), [sessions[2]])
      await ends(atMost(298, 'end-oldest'), [sessions[3]])
      await ends(atMost(298, 'end-least-recently-used'), [sessions[10]])
      await bench.store.touch([{ id: (sessions[20] as SessionRecord).id, at: at + 50 }])
      await ends(atMost(297, 'end-least-recently-used'), [sessions[30], sessions[40]])
      const group = { group: 'even' }
      const count = left.filter(session => even(sessions.indexOf(session))).length
      await ends(atMost(count, 'end-oldest', group), [sessions[4]], ['even'])
      await ends(atMost(count, 'end-least-recently-used', group), [sessions[50]], ['even'])
      await ends(atMost(count - 1, 'end-least-recently-used', group), [sessions[120], sessions[130]], ['even'])
      assert.equal((await bench.insertAll([bench.record({ groups: ['even'] })], [atMost(count - 1, 'refuse', group)])).refused.length, 1)
    }
  },
  {
    name: 'of many sessions those that have expired count no more',
    check: async bench => {
      const limit = atMost(2, 'refuse', { group: 'g' })
      await bench.insertMany(100, { groups: ['g'], ttl: 500 })
      const lasting = await bench.insert({ groups: ['g'] })
      assert.equal((await bench.insertAll([bench.record({ groups: ['g'] })], [limit])).refused.length, 1)
      await bench.advance(510)
      const next = await bench.insert({ groups: ['g'] }, [limit])
      assert.equal((await bench.insertAll([bench.record({ groups: ['g'] })], [limit])).refused.length, 1)
      await bench.assertFinds({}, [lasting, next])
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
      const evicted = new Set(evicting.flatMap(evictedOf).map(({ id }) => id))
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
      assert.deepEqual(idsOf(evictedOf(first)), idsOf(old))
      assert.deepEqual(await bench.insertAll(records, [limit], 'op'), first)
      await bench.assertFinds({}, records)
    }
  }
]
