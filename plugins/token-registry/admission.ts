import { setImmediate } from 'node:timers/promises'
import { isThenable, within } from './deadline.ts'
import { HookTimeout, sessionLimitReached, TokenExists, TokenOptions, TokenReused } from './errors.ts'
import type { SessionPolicy, SessionTerms, Terms } from './policy.ts'
import type { SessionRecord, Subject } from './record.ts'
import type { EndedSession, FoundSessions, InsertOutcome, InsertRefusal, SessionLimit, SessionUse, TokenStore } from './store.ts'
import { subjectKey } from './token.ts'
import type { SessionData } from './validation.ts'

/** A session that is to be stored, and what it is made from. */
export interface Admitted {
  record: SessionRecord
  data: SessionData
}

/** Subjects whose sessions are stored, or sessions that are changed, at once. */
const AT_ONCE = 500

/** What was stored; `failure` is what came of the rest, where that was neither stored nor refused. */
export interface AdmissionOutcome extends InsertOutcome {
  failure: { error: unknown } | null
}

/** Stores sessions under the terms that a policy sets, and brings those that live within them. */
export class Admission {
  readonly #store: TokenStore
  readonly #timeout: number
  readonly #usesOf: (subject: Subject) => readonly SessionUse[]
  #policy: SessionPolicy | null = null

  /**
   * @param timeout ms that the policy may take
   * @param usesOf last uses that the store may not know
   */
  constructor (store: TokenStore, timeout: number, usesOf: (subject: Subject) => readonly SessionUse[]) {
    this.#store = store
    this.#timeout = timeout
    this.#usesOf = usesOf
  }

  /** @throws {TokenOptions} */
  setPolicy (policy: SessionPolicy): void {
    if (this.#policy !== null) throw new TokenOptions('the terms of sessions are set already: one plugin does')
    this.#policy = policy
  }

  /** Where there are terms, the sessions of each subject are stored by themselves: none before the terms of all are known. */
  async store (admitted: readonly Admitted[], op: string): Promise<AdmissionOutcome> {
    const outcome: AdmissionOutcome = { inserted: [], evicted: [], refused: [], failure: null }
    if (this.#policy === null && admitted.every(({ data }) => data.endOthers === undefined)) return { ...outcome, ...await this.#store.insert(admitted.map(({ record }) => record), { op }) }

    const groups = bySubject(admitted)
    const [only] = groups
    if (only !== undefined && groups.length === 1) return { ...await this.#insert(only, await this.#underTerms(only), op), failure: null }

    const limits: Array<readonly SessionLimit[]> = []
    for (const some of sliced(groups)) limits.push(...await Promise.all(some.map(async own => await this.#underTerms(own))))
    for (const some of sliced([...groups.entries()])) {
      const parts = await Promise.allSettled(some.map(async ([index, own]) => await this.#insert(own, limits[index] as readonly SessionLimit[], op))) // of each group
      for (const part of parts) {
        if (part.status === 'rejected') {
          outcome.failure ??= { error: part.reason }
          continue
        }
        const { inserted, evicted, refused } = part.value
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
   * @returns those that it ended; or why the policy does not say what the limits are
   */
  async enforce (subject: Subject, op: string, counts: TenantCounts | null): Promise<{ evicted: EndedSession[], failure: { error: unknown } | null }> {
    const [policy, uses] = [this.#policy, await this.#toTell(subject)]
    const sessions = policy === null ? [] : await this.#allOf(subject, uses)
    if (policy === null || sessions.length === 0) return { evicted: [], failure: null }
    let given: Terms
    try {
      given = await this.#terms(policy, sessions)
    } catch (error) {
      return { evicted: [], failure: { error } }
    }
    const { limits, sessions: terms } = given
    const groupsOf = (index: number): readonly string[] => (terms[index] as SessionTerms).groups // there are as many

    const changed = sessions.flatMap(({ id, groups }, index) => groups.join(' ') === groupsOf(index).join(' ') ? [] : [{ id, groups: groupsOf(index) }])
    for (const some of sliced(changed)) {
      await Promise.all(some.map(async ({ id, groups }) => await this.#store.update(id, { groups })))
      await setImmediate()
    }
    const { evicted } = await this.#store.insert([], { limits, subject, uses, op })
    const gone = new Set(evicted.map(({ session }) => session.id))
    counts?.add(subject.tenant, limits, sessions.map((session, index) => ({ ...session, groups: groupsOf(index) })).filter(({ id }) => !gone.has(id)))
    return { evicted, failure: null }
  }

  async errorOf (refusal: InsertRefusal): Promise<Error> {
    switch (refusal.reason) {
      case 'exists': return new TokenExists(refusal.id)
      case 'origin': return new TokenReused()
      case 'limit': {
        const { limit: { name, max, group }, count, tenant, sub } = refusal
        const { sessions } = await this.#store.find({ tenant, sub }, { limit: AT_ONCE })
        return sessionLimitReached({ limit: name, max, count, sessions: sessions.filter(({ groups }) => group === undefined || groups.includes(group)) })
      }
    }
  }

  async #insert (own: readonly Admitted[], limits: readonly SessionLimit[], op: string): Promise<InsertOutcome> {
    const endOthers = own.flatMap(({ data }) => data.endOthers ?? [])
    const uses = limits.some(({ onExceed }) => onExceed === 'end-least-recently-used') ? await this.#toTell((own[0] as Admitted).record) : [] // there is one at least
    return await this.#store.insert(own.map(({ record }) => record), { limits, endOthers, uses, op })
  }

  /** Last uses that go with an insert; where there are many they go before it. */
  async #toTell (subject: Subject): Promise<readonly SessionUse[]> {
    const uses = this.#usesOf(subject)
    if (uses.length <= AT_ONCE) return uses
    await this.#store.touch(uses)
    return []
  }

  /** Gives sessions of one subject their groups and lifetimes. @returns the limits that they are stored under */
  async #underTerms (admitted: readonly Admitted[]): Promise<readonly SessionLimit[]> {
    const sessions = admitted.filter(({ record }) => record.use !== 'once')
    if (this.#policy === null || sessions.length === 0) return []
    const terms = await this.#terms(this.#policy, sessions.map(({ record }) => record))
    for (const [index, { record, data }] of sessions.entries()) {
      const { groups, ttl, idleTimeout } = terms.sessions[index] as SessionTerms // there are as many
      record.groups = groups
      if (data.ttl === undefined && ttl !== undefined) record.expiresAt = record.issuedAt + ttl
      if (data.idleTimeout === undefined && idleTimeout !== undefined) record.idleTimeout = idleTimeout
    }
    return terms.limits
  }

  #terms (policy: SessionPolicy, sessions: readonly SessionRecord[]): Terms | PromiseLike<Terms> {
    const terms = policy(sessions, this.#timeout)
    return isThenable(terms) ? within(terms, this.#timeout, () => new HookTimeout('limits', this.#timeout)) : terms
  }

  /** Used when they were, as far as this process knows. */
  async #allOf ({ tenant, sub }: Subject, uses: readonly SessionUse[]): Promise<SessionRecord[]> {
    const times = new Map(uses.map(({ id, at }) => [id, at]))
    const all: SessionRecord[] = []
    let cursor: string | null = null
    do {
      const page: FoundSessions = await this.#store.find({ tenant, sub }, { limit: AT_ONCE, cursor })
      all.push(...page.sessions.map(session => ({ ...session, lastUsedAt: Math.max(session.lastUsedAt, times.get(session.id) ?? 0) })))
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

function sliced<T> (items: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(items.length / AT_ONCE) }, (_, slice) => items.slice(slice * AT_ONCE, (slice + 1) * AT_ONCE))
}

function bySubject (admitted: readonly Admitted[]): Array<readonly Admitted[]> {
  if (admitted.length === 1) return [admitted]
  const groups = new Map<string, Admitted[]>()
  for (const one of admitted) {
    const key = subjectKey(one.record)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [one])
    else group.push(one)
  }
  return [...groups.values()]
}
