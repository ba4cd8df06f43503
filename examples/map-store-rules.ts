// The part of map-store.ts that knows of no Map: what may be inserted, what is found, and what a repetition is answered.
import { isDeepStrictEqual } from 'node:util'
import { holdingsOf, judgeLimits, type InsertOptions, type InsertRefusal, type LimitVerdict, type SessionQuery, type SessionRecord, type Subject } from 'fastify-token-registry'

export const idsOf = (sessions: readonly SessionRecord[]): string[] => sessions.map(({ id }) => id)

/** Each subject of some records, once. */
export function subjectsOf (records: readonly Subject[]): Subject[] {
  return [...new Map(records.map(({ tenant, sub }) => [JSON.stringify([tenant, sub]), { tenant, sub }])).values()]
}

/** Whether a query finds a session. */
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
  subject: Subject, records: readonly SessionRecord[], present: readonly SessionRecord[], options: InsertOptions
): { refused: InsertRefusal[], victims: LimitVerdict<SessionRecord>['victims'] } {
  const ids = idsOf(records)
  const taken = new Set(idsOf(present))
  const others = present.filter(({ tenant, sub }) => tenant === subject.tenant && sub === subject.sub)
  for (const { id, origin } of records) {
    if (taken.has(id)) return { refused: [{ ...subject, ids, reason: 'exists', id }], victims: new Map() }
    taken.add(id)
    const consumed = others.some(token => token.id === origin && token.use === 'once' && token.generation > 0)
    if (origin !== null && !consumed) return { refused: [{ ...subject, ids, reason: 'origin', id: origin }], victims: new Map() }
  }
  const { refused, victims } = judgeLimits(holdingsOf(present.filter(({ tenant }) => tenant === subject.tenant), subject.sub), records, options)
  return { refused: refused === null ? [] : [{ ...subject, ids, ...refused }], victims }
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
