import {
  StoreTimeout, TokenValidation, type EndDetail, type EndedSession, type InsertOptions, type InsertOutcome, type InsertRefusal, type SessionLimit, type SessionRecord, type Subject
} from '../token-registry/index.ts'
import type { Claims } from './claims.ts'
import { grouped, inOrderOf, sliced } from './grouped.ts'
import { isId, type Keys } from './keys.ts'
import { STORED_WITHIN, type Full, type Places } from './places.ts'
import { decode, encode, subjectLines } from './record.ts'
import { REPEATABLE, type Runner } from './runner.ts'
import { enforce, insert } from './scripts/insert.ts'

/** Subjects whose records are under way at once: more would only wait, each for the others. */
const SUBJECTS_AT_ONCE = 500
/** How often places are taken, where what they were taken for was held up for so long that they may be another's. */
const TRIES = 2

/** Records, the ids that it ended, and what is left of them. */
type EnforceReply = ['ok', string[], string[], string[]]
type InsertReply = EnforceReply | ['exists' | 'origin', string] | ['unplaced'] | ['limit', number, number]

export interface InsertsOptions {
  /** The store's clock. */
  now: () => number
  /** Is told what an insert ended. @returns what can be read of it */
  ended: (ids: readonly string[], values: readonly string[], op: string) => EndedSession[]
}

/** Stores sessions, a subject's in one step with what they replace. */
export class Inserts {
  readonly #keys: Keys
  readonly #runner: Runner
  readonly #claims: Claims
  readonly #places: Places
  readonly #options: InsertsOptions

  constructor (keys: Keys, runner: Runner, claims: Claims, places: Places, options: InsertsOptions) {
    this.#keys = keys
    this.#runner = runner
    this.#claims = claims
    this.#places = places
    this.#options = options
  }

  async run (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    const outcome: InsertOutcome = { inserted: [], evicted: [], refused: [] }
    if (records.length === 0 && options.subject !== undefined) outcome.evicted = await this.#enforce(options.subject, options)
    const subjects = grouped(records, subjectLines)
    for (const wave of sliced(subjects, SUBJECTS_AT_ONCE)) {
      const parts = await Promise.all(wave.map(async ([, own]) => await this.#insertOf(own, options)))
      for (const { inserted, evicted, refused } of parts) {
        outcome.inserted.push(...inserted)
        outcome.evicted.push(...evicted)
        outcome.refused.push(...refused)
      }
    }
    if (subjects.length > 1) inOrderOf(records, outcome.inserted)
    return outcome
  }

  async #insertOf (own: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    const { tenant, sub } = own[0] as SessionRecord // a subject has at least one
    const { limits = [], op } = options
    const ids = own.map(({ id }) => id)
    const refuse = (refusal: Reason): InsertOutcome => ({ inserted: [], evicted: [], refused: [{ ...refusal, tenant, sub, ids }] })
    const malformed = ids.find(id => !isId(id))
    if (malformed !== undefined) throw new TokenValidation('the id of a session is 24 characters of base64url')
    const seen = new Set<string>()
    const twice = ids.find(id => seen.size === seen.add(id).size)
    if (twice !== undefined) return refuse({ reason: 'exists', id: twice })

    const tag = this.#keys.tagOfSubject({ tenant, sub })
    const strangers = own.filter(({ id }) => this.#keys.tagOfId(id) !== tag)
    const taken = strangers.length === 0 ? undefined : await this.#claims.add(strangers, tag, op)
    if (taken !== undefined) return refuse({ reason: 'exists', id: taken })

    const ownLimits = limits.filter(({ across }) => across !== 'tenant')
    const { reply, full } = await this.#store(own, ownLimits, options)
    if (reply[0] !== 'ok') await this.#claims.takeBack(strangers, tag, op)
    switch (reply[0]) {
      case 'exists': case 'origin': return refuse({ reason: reply[0], id: reply[1] })
      case 'limit': return refuse({ reason: 'limit', limit: [...ownLimits, ...full.map(({ limit }) => limit)][reply[1] - 1] as SessionLimit, count: reply[2] }) // the script counts from 1
    }
    const [, values, evicted, left] = reply
    const inserted = values.map((value, index) => decode(ids[index] as string, value).session)
    return { inserted, evicted: this.#evicted(evicted, left, op, inserted, full), refused: [] }
  }

  /** What was ended gives its places back, in the background, or to those that were stored without. */
  #evicted (ids: readonly string[], values: readonly string[], op: string, stored: readonly SessionRecord[] = [], full: readonly Full[] = []): EndedSession[] {
    const evicted = this.#options.ended(ids, values, op)
    const [first] = evicted
    if (first === undefined) return evicted
    const { at } = first.ending // of all
    const placed = (sessions: readonly SessionRecord[], inherits: boolean): SessionRecord[] =>
      sessions.map(session => ({ ...session, groups: session.groups.filter(name => full.some(({ group }) => group === name) === inherits) }))
    const ended = evicted.map(({ session }) => session)
    this.#places.release(placed(ended, false), at).catch(() => {})
    this.#places.release(placed(ended, true), at, placed(stored, true)).catch(() => {})
    return evicted
  }

  /** Takes places where a tenant counts them, then stores: where there are none, only in the place of what it ends. */
  async #store (own: readonly SessionRecord[], ownLimits: readonly SessionLimit[], options: InsertOptions) {
    const tag = this.#keys.tagOfSubject(own[0] as SessionRecord) // a subject has at least one
    for (let tries = 1; ; tries++) {
      const { storeBy, full, undo } = await this.#places.take(own, options.limits)
      const args = this.#argumentsOf(own, [...ownLimits.map(limit => limitArgument(limit, own)), ...full.map(one => fullArgument(one, own))], storeBy, options)
      const reply = await this.#runner.runOn<InsertReply>('insert', insert, tag, own.map(({ id }) => id), args)
      if (reply[0] !== 'ok') undo()
      if (reply[0] !== 'unplaced') return { reply, full }
      if (tries === TRIES) throw new StoreTimeout('insert', STORED_WITHIN)
    }
  }

  async #enforce (subject: Subject, options: InsertOptions): Promise<EndedSession[]> {
    const limits = options.limits?.filter(({ across }) => across !== 'tenant') ?? []
    const args = this.#argumentsOf([], limits.map(limit => limitArgument(limit, [])), null, options)
    const [, , evicted, left] = await this.#runner.run<EnforceReply>('insert', enforce, this.#keys.tagOfSubject(subject), [this.#keys.subject(subject).sessions], args)
    return this.#evicted(evicted, left, options.op)
  }

  #argumentsOf (own: readonly SessionRecord[], limits: readonly object[], storeBy: number | null, { subject, endOthers = [], uses = [], op }: InsertOptions): Array<string | number> {
    const others = [...new Set(endOthers)].filter(isId)
    return [
      JSON.stringify(op), REPEATABLE, this.#options.now(), storeBy ?? '', JSON.stringify(limits), others.length === 0 ? '' : detailOf(own[0]),
      subject === undefined ? '' : subjectLines(subject), uses.filter(({ id }) => isId(id)).map(({ id, at }) => `${id} ${at}`).join(' '), own.length, ...own.flatMap(record => [record.id, encode(record)]), ...others
    ]
  }
}

type Reason = DistributiveOmit<InsertRefusal, keyof Subject | 'ids'>
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never

function limitArgument (limit: SessionLimit, added: readonly SessionRecord[]): object {
  const { max, onExceed, group, replaces } = limit
  const adding = added.filter(({ use, groups }) => use !== 'once' && (group === undefined || groups.includes(group))).length
  // JSON leaves out what is undefined.
  return { max, refuses: onExceed === 'refuse', byUse: onExceed === 'end-least-recently-used', adding, detail: detailOf(added[0], limit), group, replaces }
}

function fullArgument ({ limit, group, count, adding }: Full, added: readonly SessionRecord[]): object {
  return { full: true, adding, there: count, detail: detailOf(added[0], limit), group, replaces: limit.replaces }
}

/** What the endings come of that make room, as it is kept of them. */
function detailOf (successor: SessionRecord | undefined, limit?: SessionLimit): string {
  const detail: EndDetail = {}
  if (limit !== undefined) detail.limit = limit.name
  if (successor !== undefined) detail.session = successor.id
  if (typeof successor?.meta.deviceId === 'string') detail.device = successor.meta.deviceId
  return JSON.stringify(detail)
}
