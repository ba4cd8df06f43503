// A store of one's own: six methods, here over a Map. The package completes the others from these, more slowly (see completeStore).
// It keeps the whole contract: the test runs the suite of fastify-token-registry/testing on it. custom-store.ts is a server that uses it.
import { deadlineOf, endingBy, judgeRotation, TokenValidation, type InsertOutcome, type PartialStore, type RotateOutcome, type SessionRecord } from 'fastify-token-registry'
import { idsOf, judgeInsert, matches, repeatable, subjectsOf } from './map-store-rules.ts'

/** Each mutation is one atomic step: nothing in it waits. */
export function mapStore (now = Date.now): PartialStore {
  const [inserts, rotations, endings] = [repeatable<InsertOutcome>(), repeatable<RotateOutcome>(), repeatable<SessionRecord[]>()]
  const sessions = new Map<string, SessionRecord>()
  const places = new WeakMap<SessionRecord, number>()
  let place = 0
  const placeOf = (session: SessionRecord) => places.get(session) ?? 0
  const live = (id: string) => {
    const session = sessions.get(id)
    if (session !== undefined && deadlineOf(session) <= now()) sessions.delete(id)
    return sessions.get(id)
  }
  // Asked at each insert, so that what has expired does not stay.
  const all = () => [...sessions.keys()].flatMap(id => live(id) ?? [])
  const add = (session: SessionRecord) => places.set(session, place++) && sessions.set(session.id, session)
  const take = (ids: readonly string[]) => ids.flatMap(id => live(id) ?? []).filter(({ id }) => sessions.delete(id))
  return {
    name: 'map',
    now,
    insert: async (given, options) => inserts(options.op, idsOf(given), () => {
      const records = structuredClone([...given])
      const outcome: InsertOutcome = { inserted: [], evicted: [], refused: [] }
      for (const subject of subjectsOf(records.length === 0 && options.subject ? [options.subject] : records)) {
        const own = records.filter(({ tenant, sub }) => tenant === subject.tenant && sub === subject.sub)
        const { refused, victims } = judgeInsert(subject, own, all(), options)
        outcome.refused.push(...refused)
        for (const [session, cause] of victims) outcome.evicted.push({ session, ending: endingBy(session, cause, options.op, now()) }) && take([session.id])
        if (refused.length === 0) own.forEach(add)
      }
      return { ...outcome, inserted: records.filter(record => places.has(record)) }
    }),
    get: async id => structuredClone(live(id) ?? null),
    rotate: async (id, presented, op) => rotations(op, [id], () => {
      const session = live(id)
      const verdict = session === undefined ? 'unknown' : judgeRotation(session, presented, op, now())
      if (session === undefined || verdict === 'unknown') return { status: 'unknown' }
      if (verdict === 'client' || verdict === 'binding') return { status: 'refused', by: verdict }
      if (verdict === 'repeat') return { status: 'repeated', session }
      if (verdict === 'reuse_recent' || verdict === 'reuse_stale') {
        const ended = take([id, ...idsOf(all().filter(({ origin }) => origin === id))])
        return { status: 'reused', ending: { id, tenant: session.tenant, sub: session.sub, reason: verdict, by: presented.by, op, at: now() }, ended }
      }
      if (verdict !== 'again') Object.assign(session, { generation: presented.generation + 1, kid: presented.kid, rotatedAt: now(), lastUsedAt: now(), op })
      return { status: 'rotated', session, recovered: verdict === 'recover' }
    }),
    end: async (ids, { op }) => endings(op, ids, () => take(ids)),
    find: async (query, { limit, cursor = null }) => {
      if (cursor !== null && !/^\d{1,15}$/.test(cursor)) throw new TokenValidation('cursor is not one that a list gave')
      const older = all().reverse().filter(session => matches(session, query) && placeOf(session) < Number(cursor ?? Infinity))
      const page = older.slice(0, limit)
      return { sessions: structuredClone(page), cursor: older.length > limit ? String(Math.min(...page.map(placeOf))) : null }
    },
    health: async () => ({ status: 'ok', latency: 0, sessions: sessions.size })
  }
}
