import { isThenable, within } from './deadline.ts'
import { HookTimeout, sessionLimitReached, TokenExists, TokenOptions, TokenReused } from './errors.ts'
import type { SessionPolicy, SessionTerms } from './policy.ts'
import type { SessionRecord, Subject } from './record.ts'
import type { EndedSession, FoundSessions, InsertOutcome, InsertRefusal, SessionLimit, TokenStore } from './store.ts'
import { subjectKey } from './token.ts'
import type { SessionData } from './validation.ts'

/** A session that is to be stored, and what it is made from. */
export interface Admitted {
  record: SessionRecord
  data: SessionData
}

/** Subjects whose sessions are stored, or sessions that are changed, at once. */
const AT_ONCE = 500

/** Stores sessions under the terms that a policy sets, and brings those that live within them. */
export class Admission {
  readonly #store: TokenStore
  readonly #timeout: number
  #policy: SessionPolicy | null = null

  /** @param timeout ms that the policy may take */
  constructor (store: TokenStore, timeout: number) {
    this.#store = store
    this.#timeout = timeout
  }

  /** @throws {TokenOptions} */
  setPolicy (policy: SessionPolicy): void {
    if (this.#policy !== null) throw new TokenOptions('the terms of sessions are set already: one plugin does')
    this.#policy = policy
  }

  /** Where there are terms, the sessions of each subject are stored by themselves. */
  async store (admitted: readonly Admitted[], op: string): Promise<InsertOutcome> {
    if (this.#policy === null && admitted.every(({ data }) => data.endOthers === undefined)) return await this.#store.insert(admitted.map(({ record }) => record), { op })

    const outcome: InsertOutcome = { inserted: [], evicted: [], refused: [] }
    const groups = bySubject(admitted)
    for (let start = 0; start < groups.length; start += AT_ONCE) {
      const parts = await Promise.all(groups.slice(start, start + AT_ONCE).map(async own => {
        const limits = await this.#underTerms(own)
        const endOthers = own.flatMap(({ data }) => data.endOthers ?? [])
        return await this.#store.insert(own.map(({ record }) => record), { limits, endOthers, op })
      }))
      for (const { inserted, evicted, refused } of parts) {
        outcome.inserted.push(...inserted)
        outcome.evicted.push(...evicted)
        outcome.refused.push(...refused)
      }
    }
    const places = new Map(admitted.map(({ record }, place) => [record.id, place]))
    outcome.inserted.sort((a, b) => Number(places.get(a.id)) - Number(places.get(b.id)))
    return outcome
  }

  /**
   * Brings the sessions of a subject within the limits as they are now.
   *
   * @param counts is told what counts in limits of its tenant
   * @returns those that it ended
   */
  async enforce (subject: Subject, op: string, counts: TenantCounts | null): Promise<EndedSession[]> {
    if (this.#policy === null) return []
    const sessions = await this.#allOf(subject)
    if (sessions.length === 0) return []
    const { limits, sessions: terms } = await this.#policy(sessions)
    const groupsOf = (index: number): readonly string[] => (terms[index] as SessionTerms).groups // there are as many

    const changed = sessions.flatMap(({ id, groups }, index) => groups.join(' ') === groupsOf(index).join(' ') ? [] : [{ id, groups: groupsOf(index) }])
    for (let start = 0; start < changed.length; start += AT_ONCE) {
      await Promise.all(changed.slice(start, start + AT_ONCE).map(async ({ id, groups }) => await this.#store.update(id, { groups })))
    }
    const { evicted } = await this.#store.insert([], { limits, subject, op })
    const gone = new Set(evicted.map(({ session }) => session.id))
    counts?.add(subject.tenant, limits, sessions.map((session, index) => ({ ...session, groups: groupsOf(index) })).filter(({ id }) => !gone.has(id)))
    return evicted
  }

  async errorOf (refusal: InsertRefusal): Promise<Error> {
    switch (refusal.reason) {
      case 'exists': return new TokenExists(refusal.id)
      case 'origin': return new TokenReused()
      case 'limit': {
        const { limit: { name, max, group, across }, count, tenant, sub } = refusal
        const { sessions } = across === 'tenant' ? { sessions: [] } : await this.#store.find({ tenant, sub }, { limit: AT_ONCE })
        return sessionLimitReached({ limit: name, max, count, sessions: sessions.filter(({ groups }) => group === undefined || groups.includes(group)) })
      }
    }
  }

  /** Gives sessions of one subject their groups and lifetimes. @returns the limits that they are stored under */
  async #underTerms (admitted: readonly Admitted[]): Promise<readonly SessionLimit[]> {
    const sessions = admitted.filter(({ record }) => record.use !== 'once')
    if (this.#policy === null || sessions.length === 0) return []
    const asked = this.#policy(sessions.map(({ record }) => record))
    const terms = isThenable(asked) ? await within(asked, this.#timeout, () => new HookTimeout('limits', this.#timeout)) : asked
    for (const [index, { record, data }] of sessions.entries()) {
      const { groups, ttl, idleTimeout } = terms.sessions[index] as SessionTerms // there are as many
      record.groups = groups
      if (data.ttl === undefined && ttl !== undefined) record.expiresAt = record.issuedAt + ttl
      if (data.idleTimeout === undefined && idleTimeout !== undefined) record.idleTimeout = idleTimeout
    }
    return terms.limits
  }

  async #allOf ({ tenant, sub }: Subject): Promise<SessionRecord[]> {
    const all: SessionRecord[] = []
    let cursor: string | null = null
    do {
      const page: FoundSessions = await this.#store.find({ tenant, sub }, { limit: AT_ONCE, cursor })
      all.push(...page.sessions)
      cursor = page.cursor
    } while (cursor !== null)
    return all
  }
}

/** What limits of tenants count, gathered while their subjects are gone through. */
export class TenantCounts {
  readonly #counted = new Map<string, { limit: SessionLimit, sessions: Array<Pick<SessionRecord, 'id' | 'lastUsedAt'>> }>()

  add (tenant: string, limits: readonly SessionLimit[], sessions: readonly SessionRecord[]): void {
    for (const limit of limits) {
      const { across, group } = limit
      if (across !== 'tenant' || group === undefined) continue
      const key = JSON.stringify([tenant, group])
      const counted = this.#counted.get(key) ?? { limit, sessions: [] }
      this.#counted.set(key, counted)
      for (const { id, lastUsedAt, groups } of sessions) if (groups.includes(group)) counted.sessions.push({ id, lastUsedAt })
    }
  }

  /** What is too much, the least recently used first. */
  * excess (): Generator<{ ids: string[], limit: string }> {
    for (const { limit: { name, max }, sessions } of this.#counted.values()) {
      const ids = sessions.sort((a, b) => a.lastUsedAt - b.lastUsedAt).slice(0, Math.max(0, sessions.length - max)).map(({ id }) => id)
      yield { ids, limit: name }
    }
  }
}

function bySubject (admitted: readonly Admitted[]): Admitted[][] {
  const groups = new Map<string, Admitted[]>()
  for (const one of admitted) {
    const key = subjectKey(one.record)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [one])
    else group.push(one)
  }
  return [...groups.values()]
}
