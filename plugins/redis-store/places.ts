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

/** Places that were taken for what is about to be stored. */
export interface Taken {
  /** Until when it has to be, ms since the epoch; null where nobody counts it. */
  storeBy: number | null
  /** The limit that has no room. */
  full: { limit: SessionLimit, count: number } | null
  /** Gives back, in the background, what was taken. */
  undo: () => void
}

const NOTHING: Taken = { storeBy: null, full: null, undo: () => {} }

/**
 * What is counted across the subjects of a tenant, which in a Cluster are in other slots than what counts them. A place is taken before its session is
 * stored, and given back after that has ended: there are never more sessions than places. What a crash leaves behind is found by who finds no place:
 * it looks whether the sessions live of those places that nobody looked at for a while.
 */
export class Places {
  readonly #keys: Keys
  readonly #runner: Runner
  readonly #now: () => number
  readonly #holds: (id: string, tenant: string, group: string) => Promise<boolean>
  /** By which clocks may differ, in ms. */
  readonly #apart: number

  /** @param holds whether a session of the tenant lives and has the group; true as well where that cannot be known */
  constructor (keys: Keys, runner: Runner, now: () => number, holds: (id: string, tenant: string, group: string) => Promise<boolean>) {
    this.#keys = keys
    this.#runner = runner
    this.#now = now
    this.#holds = holds
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
      full: parts.find(({ full }) => full !== null)?.full ?? null,
      undo: () => { for (const { undo } of parts) undo() }
    }
  }

  /**
   * Gives back the places of sessions that have ended. What fails is found later, as what a crash leaves behind.
   *
   * @param at when they had ended, ms since the epoch: a place that was taken since then, for the same id, stays
   */
  async release (ended: readonly Placed[], at: number): Promise<void> {
    const places = ended.flatMap(({ id, tenant, groups }) => groups.filter(isPlaced).map(group => ({ id, key: this.#keys.places(tenant, group) })))
    if (places.length === 0) return
    const until = at * 1000 + 999 + (BELIEVED + this.#apart) * 1000
    await Promise.all(grouped(places, ({ key }) => key).flatMap(([key, own]) =>
      sliced(own, LOOKS).map(async some => await this.#giveBack(key, some.map(({ id }) => id), until))))
  }

  async #take (own: readonly SessionRecord[], group: string, limit: SessionLimit | undefined): Promise<Taken> {
    const { tenant } = own[0] as SessionRecord // there is one at least
    const key = this.#keys.places(tenant, group)
    const ids = own.map(({ id }) => id)
    const lasts = Math.max(...own.map(({ expiresAt }) => expiresAt)) - this.#now() + BELIEVED
    let back: Array<[id: string, until: string]> = []
    for (let round = 0; ; round++) {
      const looks = round < ROUNDS ? LOOKS : 0
      const [result, number, until, some] = await this.#run('insert', key, [limit?.max ?? '', Math.max(lasts, BELIEVED), BELIEVED, looks, back.length, ...back.flat(), ...ids])
      if (result === 'taken') return { storeBy: Number(number) + STORED_WITHIN, full: null, undo: () => { this.#giveBack(key, some, until).catch(() => {}) } }
      const held = await Promise.all(some.map(async id => await this.#holds(id, tenant, group)))
      back = some.filter((_, index) => held[index] === false).map(id => [id, until])
      if (back.length === 0 && some.length < LOOKS) return { ...NOTHING, full: { limit: limit as SessionLimit, count: Number(number) } } // without one there is room
    }
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
