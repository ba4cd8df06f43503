import { TokenValidation, type SessionLimit, type SessionRecord } from '../token-registry/index.ts'
import { grouped, sliced } from './grouped.ts'
import type { Keys } from './keys.ts'
import type { Runner } from './runner.ts'
import { places } from './scripts/places.ts'

/** How the names of groups begin that are counted across the subjects of a tenant. */
const TENANT_GROUP = 't-'
/** ms for which a place is believed to be taken, before anybody looks whether its session lives */
const BELIEVED = 4000
/** ms by which the clocks of two servers of a Cluster may differ: so much earlier a session has to be stored, and so much longer what is given back may be believed. */
const APART = 1500
/** ms within which a session has to be stored after its places were taken */
export const STORED_WITHIN = BELIEVED - APART
/** Places that are looked at at once where there is no room, and how often. */
const LOOKS = 500
const ROUNDS = 4

/** When, until when they are believed, in µs, those that had none; or how many there are, until when those are believed that are to be looked at, and they. */
type PlacesReply = ['taken', string, string, string[]] | ['full', number, string, string[]]

/** What has a place in each of its groups that a tenant counts. */
export type Placed = Pick<SessionRecord, 'id' | 'tenant' | 'groups'>

/** Who has a place. */
export type Holder = Pick<SessionRecord, 'id' | 'expiresAt'>

/** A limit that has no room, but for one who ends another in the step that stores. */
export interface Full {
  limit: SessionLimit
  group: string
  /** How many there are. */
  count: number
  adding: number
}

/** Places that were taken for what is about to be stored. */
export interface Taken {
  /** Until when it has to be, ms since the epoch; null where none were taken. */
  storeBy: number | null
  full: Full[]
  /** Gives back, in the background, what was taken. */
  undo: () => void
}

const NOTHING: Taken = { storeBy: null, full: [], undo: () => {} }

/**
 * What is counted across the subjects of a tenant, which in a Cluster are in other slots than what counts them. A place is taken before its session is
 * stored, and given back after that has ended: there are never more sessions than places. Where all are taken, a session may be stored in the step that ends
 * another one, whose place it inherits. What a crash leaves behind is found by who finds no place: it looks whether the sessions live of those places that
 * nobody looked at for a while, and where one does not, whether an heir does.
 */
export class Places {
  readonly #keys: Keys
  readonly #runner: Runner
  readonly #now: () => number
  readonly #holder: (id: string, tenant: string, group: string) => Promise<Holder | null>
  /** By which clocks may differ, in ms. */
  readonly #apart: number

  /** @param holder who is counted by a place: the session that took it, or its heir; rejects where that cannot be known */
  constructor (keys: Keys, runner: Runner, now: () => number, holder: (id: string, tenant: string, group: string) => Promise<Holder | null>) {
    this.#keys = keys
    this.#runner = runner
    this.#now = now
    this.#holder = holder
    this.#apart = keys.cluster ? APART : 0
  }

  /**
   * Takes places for records of one tenant, in each of their groups that begin with `t-`, and tests the limits that are across the tenant.
   *
   * @throws {StoreUnavailable | StoreTimeout | StoreUnconfirmed}
   */
  async take (records: readonly SessionRecord[], limits: readonly SessionLimit[] = []): Promise<Taken> {
    const counting = limits.filter(({ across }) => across === 'tenant')
    const counted = records.filter(({ use }) => use !== 'once')
    const groups = new Set([...counting.map(groupOf), ...counted.flatMap(({ groups }) => groups.filter(isPlaced))])
    const parts = await Promise.all([...groups].map(async group => {
      const own = counted.filter(record => record.groups.includes(group))
      const [limit] = counting.filter(limit => limit.group === group).sort((a, b) => a.max - b.max)
      return own.length === 0 ? NOTHING : await this.#take(own, group, limit)
    }))
    const times = parts.flatMap(({ storeBy }) => storeBy ?? [])
    return {
      storeBy: times.length === 0 ? null : Math.min(...times),
      full: parts.flatMap(({ full }) => full),
      undo: () => { for (const { undo } of parts) undo() }
    }
  }

  /**
   * Gives back the places of sessions that have ended. What fails is found later, as what a crash leaves behind.
   *
   * @param at when they had ended, ms since the epoch: a place that was taken since then, for the same id, stays
   * @param heirs take theirs, of which they have none in these groups: they were stored in the same step
   */
  async release (ended: readonly Placed[], at: number, heirs: readonly SessionRecord[] = []): Promise<void> {
    const until = (at + BELIEVED + this.#apart) * 1000 + 999
    const come = new Map(this.#byKey(heirs))
    await Promise.all(this.#byKey(ended).flatMap(([key, gone]) => sliced(gone.map(({ session: { id } }) => id), LOOKS).map(async ids => {
      const heirs = come.get(key)
      if (heirs === undefined) await this.#giveBack(key, ids, until)
      else await this.#claim(key, heirs.map(({ session }) => session), { back: ids.map(id => [id, until]) })
    })))
  }

  /** Sessions by the places that they have. */
  #byKey<Session extends Placed> (sessions: readonly Session[]): Array<[key: string, Array<{ key: string, session: Session }>]> {
    return grouped(sessions.flatMap(session => session.groups.filter(isPlaced).map(group => ({ key: this.#keys.places(session.tenant, group), session }))), ({ key }) => key)
  }

  async #take (own: readonly SessionRecord[], group: string, limit: SessionLimit | undefined): Promise<Taken> {
    const { tenant } = own[0] as SessionRecord // there is one at least
    const key = this.#keys.places(tenant, group)
    let back: Array<[id: string, until: string]> = []
    for (let round = 0; ; round++) {
      const reply = await this.#claim(key, own, { max: limit?.max, looks: round < ROUNDS ? LOOKS : 0, back })
      if (reply[0] === 'taken') {
        const [, at, until, taken] = reply
        return { storeBy: Number(at) + STORED_WITHIN, full: [], undo: () => { this.#giveBack(key, taken, until).catch(() => {}) } }
      }
      const [, count, until, doubtful] = reply
      const holders = await Promise.all(doubtful.map(async id => await this.#holder(id, tenant, group).catch(() => ({ id, expiresAt: 0 }))))
      const heirs = holders.filter((holder, index) => holder !== null && holder.id !== doubtful[index]) as Holder[] // those that are left
      // Before the place that they have it from is given back.
      if (heirs.length > 0) await this.#claim(key, heirs)
      back = doubtful.filter((id, index) => holders[index]?.id !== id).map(id => [id, until])
      if (back.length === 0 && doubtful.length < LOOKS) {
        const full = limit as SessionLimit // without one there is room
        return { ...NOTHING, full: [{ limit: full, group, count, adding: own.length }] }
      }
    }
  }

  /** @param options how many there may be; how many to look at where there is no room; what is given back before */
  async #claim (key: string, own: readonly Holder[], { max, looks = 0, back = [] }: { max?: number | undefined, looks?: number, back?: ReadonlyArray<[id: string, until: number | string]> } = {}): Promise<PlacesReply> {
    const lasts = Math.max(...own.map(({ expiresAt }) => expiresAt)) - this.#now() + BELIEVED
    return await this.#run('insert', key, [max ?? '', Math.max(lasts, BELIEVED), BELIEVED, looks, back.length, ...back.flat(), ...own.map(({ id }) => id)])
  }

  async #giveBack (key: string, ids: readonly string[], until: number | string): Promise<void> {
    if (ids.length > 0) await this.#run('end', key, ['', 0, BELIEVED, 0, ids.length, ...ids.flatMap(id => [id, until])]).catch(() => {})
  }

  async #run (operation: string, key: string, args: ReadonlyArray<string | number>): Promise<PlacesReply> {
    return await this.#runner.run<PlacesReply>(operation, places, this.#keys.tagIn(key), [key], args)
  }
}

/** Whether a group is counted across a tenant. */
export function isPlaced (group: string): boolean {
  return group.startsWith(TENANT_GROUP)
}

/** @throws {TokenValidation} */
function groupOf ({ name, group }: SessionLimit): string {
  if (group === undefined) throw new TokenValidation(`the limit ${JSON.stringify(name)} counts across the tenant, and names no group`)
  return group
}
