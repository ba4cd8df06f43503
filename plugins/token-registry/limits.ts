import type { EndCause, EndDetail, Ending, SessionRecord } from './record.ts'
import type { InsertOptions, InsertRefusal, SessionLimit } from './store.ts'

/** How the names of groups begin that are counted across subjects. */
export const TENANT_GROUP = 't-'

/** Sessions that a limit counts, all of which live. */
export interface Counted<Session> {
  readonly size: number
  has (session: Session): boolean
  /** The first in the order of issue, and those that are left out not. */
  oldest (count: number, leftOut: { has (session: Session): boolean }): Session[]
  /** Likewise by last use, and by issue where that is the same. */
  leastRecentlyUsed (count: number, leftOut: { has (session: Session): boolean }): Session[]
}

/** What a subject holds, as far as limits ask. */
export interface Holdings<Session> {
  /** Those of a group; all where it is left out. */
  counted (group?: string): Counted<Session>
  /** Those of a group, of all subjects of the tenant. */
  countedOfTenant (group?: string): Pick<Counted<Session>, 'size' | 'has'>
  /** Those of the subject among some ids. */
  named (ids: readonly string[]): Session[]
}

/** Which sessions have to end, and why: or which limit refuses. */
export interface LimitVerdict<Session> {
  victims: Map<Session, Omit<EndCause, 'op'> & { detail: EndDetail }>
  refused: Pick<Extract<InsertRefusal, { reason: 'limit' }>, 'reason' | 'limit' | 'count'> | null
}

/**
 * What limits say of records of one subject that are to be stored. Every store acts on this in the step that stores them.
 *
 * @param added nothing where the subject is only to be brought within the limits
 */
export function judgeLimits<Session> (
  holdings: Holdings<Session>,
  added: readonly SessionRecord[],
  { limits = [], endOthers = [] }: Pick<InsertOptions, 'limits' | 'endOthers'>
): LimitVerdict<Session> {
  const victims: LimitVerdict<Session>['victims'] = new Map()
  const condemn = (sessions: readonly Session[], reason: string, limit?: SessionLimit): void => {
    const detail = detailOf(added[0], limit)
    for (const session of sessions) victims.set(session, { reason, by: null, detail })
  }
  const refuse = (limit: SessionLimit, count: number): LimitVerdict<Session> => ({ victims: new Map(), refused: { reason: 'limit', limit, count } })
  const addingTo = ({ group }: SessionLimit): number => added.filter(({ use, groups }) => use !== 'once' && (group === undefined || groups.includes(group))).length
  const remaining = (counted: Pick<Counted<Session>, 'size' | 'has'>): number => counted.size - [...victims.keys()].filter(session => counted.has(session)).length
  /** Ends some of what a limit counts, among those that the new ones replace, whatever else is too much: false where there are too few. */
  const replace = (limit: SessionLimit, excess: number, counted: Pick<Counted<Session>, 'has'>): boolean => {
    const leftOut = { has: (session: Session) => victims.has(session) || !counted.has(session) }
    const replaced = limit.replaces === undefined ? [] : holdings.counted(limit.replaces).oldest(excess, leftOut)
    condemn(replaced, 'replaced', limit)
    return replaced.length === excess
  }

  condemn(holdings.named(endOthers), 'replaced')
  for (const limit of limits.filter(({ across }) => across !== 'tenant')) {
    const { max, onExceed, group } = limit
    const adding = addingTo(limit)
    if (adding === 0 && added.length > 0) continue

    const counted = holdings.counted(group)
    const count = remaining(counted)
    const excess = count + adding - max
    if (excess <= 0) continue
    if (adding > max) return refuse(limit, count)

    if (onExceed === 'end-oldest') condemn(counted.oldest(excess, victims), 'limit', limit)
    else if (onExceed === 'end-least-recently-used' || added.length === 0) condemn(counted.leastRecentlyUsed(excess, victims), 'limit', limit)
    else if (!replace(limit, Math.min(excess, adding), counted)) return refuse(limit, count)
  }

  // Last: who ends anyway makes room in the tenant, for one in its place.
  for (const limit of limits.filter(({ across }) => across === 'tenant')) {
    const adding = addingTo(limit)
    const counted = holdings.countedOfTenant(limit.group)
    if (adding === 0 || counted.size + adding <= limit.max) continue
    const makesRoom = remaining(counted) < counted.size
    if (adding > 1 || !(makesRoom || replace(limit, 1, counted))) return refuse(limit, counted.size)
  }
  return { victims, refused: null }
}

/**
 * What a subject holds, for a store of one's own that has it as a list.
 *
 * @param live all sessions of the tenant that live, the oldest first
 * @param sub the subject's; one-time tokens count in nothing
 */
export function holdingsOf (live: readonly SessionRecord[], sub: string): Holdings<SessionRecord> {
  const sessions = live.filter(({ use }) => use !== 'once')
  const own = sessions.filter(session => session.sub === sub)
  const inGroup = (group: string | undefined) => ({ groups }: SessionRecord): boolean => group === undefined || groups.includes(group)
  return {
    counted: group => new CountedList(own.filter(inGroup(group))),
    countedOfTenant: group => new CountedList(sessions.filter(inGroup(group))),
    named: ids => own.filter(({ id }) => ids.includes(id))
  }
}

/** The ending of a session that a verdict names. */
export function endingBy ({ id, tenant, sub }: Pick<SessionRecord, 'id' | 'tenant' | 'sub'>, cause: Omit<EndCause, 'op'>, op: string, at: number): Ending {
  return { id, tenant, sub, ...cause, op, at }
}

class CountedList implements Counted<SessionRecord> {
  readonly #sessions: readonly SessionRecord[]

  constructor (sessions: readonly SessionRecord[]) {
    this.#sessions = sessions
  }

  get size (): number {
    return this.#sessions.length
  }

  has (session: SessionRecord): boolean {
    return this.#sessions.includes(session)
  }

  oldest (count: number, leftOut: { has (session: SessionRecord): boolean }): SessionRecord[] {
    return this.#sessions.filter(session => !leftOut.has(session)).slice(0, count)
  }

  leastRecentlyUsed (count: number, leftOut: { has (session: SessionRecord): boolean }): SessionRecord[] {
    return this.#sessions.filter(session => !leftOut.has(session)).sort((a, b) => a.lastUsedAt - b.lastUsedAt).slice(0, count)
  }
}

function detailOf (successor: SessionRecord | undefined, limit: SessionLimit | undefined): EndDetail {
  const device = successor?.meta.deviceId
  return {
    ...limit !== undefined && { limit: limit.name },
    ...successor !== undefined && { session: successor.id },
    ...device !== undefined && { device }
  }
}
