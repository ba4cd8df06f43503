// The part of map-store.ts that knows of no Map: what may be inserted, what is found, and what a repetition is answered.
import { isDeepStrictEqual } from 'node:util'
import type { InsertRefusal, SessionLimit, SessionQuery, SessionRecord, Subject } from 'fastify-token-registry'

export const idsOf = (sessions: readonly SessionRecord[]): string[] => sessions.map(({ id }) => id)

/** Each subject of some records, once. */
export function subjectsOf (records: readonly SessionRecord[]): Subject[] {
  return [...new Map(records.map(({ tenant, sub }) => [JSON.stringify([tenant, sub]), { tenant, sub }])).values()]
}

/** Whether a query finds a session, or a limit counts it. */
export function matches (session: SessionRecord, { issuedAfter = 0, issuedBefore = Infinity, ...query }: SessionQuery): boolean {
  const { use, issuedAt, tenant, sub, client, meta: { deviceId, ipAddress } } = session
  const own = { tenant, sub, client, deviceId, ipAddress }
  return use !== 'once' && issuedAt >= issuedAfter && issuedAt < issuedBefore && isDeepStrictEqual({ ...own, ...query }, own)
}

/**
 * Whether the records of a subject may be inserted, all or none.
 *
 * @param present what lives, oldest first
 * @returns why not; or whom the limits end to make room
 */
export function judgeInsert (
  subject: Subject, records: readonly SessionRecord[], present: readonly SessionRecord[], limits: readonly SessionLimit[]
): { refused: InsertRefusal[], evicted: SessionRecord[] } {
  const ids = idsOf(records)
  const taken = new Set(idsOf(present))
  const others = present.filter(({ tenant, sub }) => tenant === subject.tenant && sub === subject.sub)
  for (const { id, origin } of records) {
    if (taken.has(id)) return { refused: [{ ...subject, ids, reason: 'exists', id }], evicted: [] }
    taken.add(id)
    const consumed = others.some(token => token.id === origin && token.use === 'once' && token.generation > 0)
    if (origin !== null && !consumed) return { refused: [{ ...subject, ids, reason: 'origin', id: origin }], evicted: [] }
  }
  const evicted = new Set<SessionRecord>()
  for (const limit of limits) {
    const counted = others.filter(session => !evicted.has(session) && matches(session, limit.where ?? {}))
    const added = records.filter(record => matches(record, limit.where ?? {})).length
    const excess = added === 0 ? 0 : Math.max(0, counted.length + added - limit.max)
    const refuses = limit.onExceed === 'refuse' || added > limit.max
    if (excess > 0 && refuses) return { refused: [{ ...subject, ids, reason: 'limit', limit, count: counted.length }], evicted: [] }
    if (limit.onExceed === 'end-least-recently-used') counted.sort((a, b) => a.lastUsedAt - b.lastUsedAt)
    for (const session of counted.slice(0, excess)) evicted.add(session)
  }
  return { refused: [], evicted: [...evicted] }
}

/** A mutation whose reply was lost is repeated with its operation id, and gets its first answer, for a minute. Answers are the caller's own. */
export function repeatable<Answer> (): (op: string, ids: readonly string[], work: () => Answer) => Answer {
  const answers = new Map<string, Answer>()
  return (op, ids, work) => {
    const key = JSON.stringify([op, ids])
    const answer = answers.get(key) ?? structuredClone(work())
    answers.set(key, answer)
    setTimeout(() => answers.delete(key), 60_000).unref()
    return structuredClone(answer)
  }
}
