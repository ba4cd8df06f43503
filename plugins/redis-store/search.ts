import { deadlineOf, TokenValidation, type FoundSessions, type Page, type SessionQuery, type SessionRecord, type Subject } from '../token-registry/index.ts'
import type { Client, Connection } from './connection.ts'
import { grouped } from './grouped.ts'
import type { Indexes } from './indexes.ts'
import { isId, type Keys } from './keys.ts'
import { decode, type Stored } from './record.ts'
import { askAll, scan } from './scan.ts'
import { heal } from './scripts/change.ts'

/** Sessions that one command reads. */
const SLICE = 500

/** What lives of what was to be read, what has ended, and of what there is nothing. */
interface Read {
  live: Stored[]
  ended: string[]
  none: string[]
}

/** What a search comes across. */
export interface Noticed {
  expired (ids: readonly string[], tag: string): void
  corrupt (): void
}

/**
 * A subject's sessions by its index, the newest first; everybody's by going through all of them, in the order of ids. Either way a page
 * holds the next ones in an order that never changes, so that each session is found once.
 */
export class Search {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #now: () => number
  readonly #indexes: Indexes
  readonly #noticed: Noticed

  constructor (connection: Connection, keys: Keys, indexes: Indexes, now: () => number, noticed: Noticed) {
    this.#connection = connection
    this.#keys = keys
    this.#indexes = indexes
    this.#now = now
    this.#noticed = noticed
  }

  async find (query: SessionQuery, { limit, cursor = null }: Page): Promise<FoundSessions> {
    const subject = subjectOf(query)
    const order = subject === null ? byId : newestFirst
    const after = cursor === null ? null : order.parse(cursor)
    const next = new First(limit + 1, order)
    const isNext = (place: Place): boolean => (after === null || order.compare(place, after) > 0) && next.hasRoomFor(place)

    for await (const { session, order } of this.#candidates(query, id => isNext({ id, order: 0 }))) {
      const place = { id: session.id, order }
      if (matches(session, query) && isNext(place)) next.add(place, session)
    }
    const sessions = next.sessions.slice(0, limit)
    const last = next.places[limit - 1]
    return { sessions, cursor: next.places.length > limit && last !== undefined ? order.format(last) : null }
  }

  /** Of a subject exact; of everybody, a session may count twice while Redis makes its table of keys smaller. */
  async count (query: SessionQuery): Promise<number> {
    const subject = subjectOf(query)
    const { tenant, sub, ...rest } = query
    if (subject !== null && Object.values(rest).every(value => value === undefined)) {
      return Number(await this.#connection.client.zcount(this.#keys.subject(subject).sessions, `(${this.#now()}`, '+inf'))
    }
    let count = 0
    for await (const { session } of this.#candidates(query, () => true)) if (matches(session, query)) count++
    return count
  }

  /** Who has sessions that are not past their deadline, each at least once; where an index is on its way to another primary that cannot be told, and counts as so. */
  async * subjects (tenant?: string): AsyncGenerator<Subject> {
    for (const primary of this.#connection.primaries()) {
      for await (const names of scan(this.#connection, 'subjects', primary, this.#keys.pattern('x'), 'zset', SLICE)) {
        const subjects = names.map(name => this.#keys.subjectIn(name)).filter(subject => subject !== null).filter(subject => is(tenant, subject.tenant))
        const counts = await askAll(this.#connection, 'subjects', primary, pipeline => {
          for (const subject of subjects) pipeline.zcount(this.#keys.subject(subject).sessions, `(${this.#now()}`, '+inf')
        })
        yield * subjects.filter((_, index) => counts[index] !== 0)
      }
    }
  }

  /**
   * What lives, and may be what is asked for.
   *
   * @param isWanted of an id, where nothing else is known of it
   */
  #candidates (query: SessionQuery, isWanted: (id: string) => boolean): AsyncGenerator<Stored> {
    const subject = subjectOf(query)
    if (subject !== null) return this.#ofSubject(subject)
    const index = this.#indexes.keyOf(query)
    return index === null ? this.#everybody(isWanted) : this.#ofIndex(index, isWanted)
  }

  /** What lives of a subject. An entry whose session is gone is taken off the index. */
  async * #ofSubject (subject: Subject): AsyncGenerator<Stored> {
    const { client } = this.#connection
    const { sessions: index } = this.#keys.subject(subject)
    const tag = this.#keys.tagOfSubject(subject)
    const ids = await client.zrange(index, '0', '-1')
    for (let start = 0; start < ids.length; start += SLICE) {
      const { live, ended, none } = await this.#read(client, tag, ids.slice(start, start + SLICE))
      if (ended.length + none.length > 0) await heal.run(client, [index], [this.#keys.prefix, tag, 0, ...ended, ...none])
      yield * live
    }
  }

  /** An entry whose session has ended is taken off; where there is none, it may be about to be stored. */
  async * #ofIndex (index: string, isWanted: (id: string) => boolean): AsyncGenerator<Stored> {
    const { client } = this.#connection
    const seen = new Set<string>()
    let cursor = '0'
    do {
      const [next, entries] = await client.zscan(index, cursor, 'COUNT', SLICE)
      cursor = next
      const ids = entries.filter((id, place) => place % 2 === 0 && !seen.has(id) && isWanted(id))
      for (const id of ids) seen.add(id)
      const parts = await Promise.all(grouped(ids, id => this.#keys.tagOfId(id)).map(async ([tag, own]) => await this.#readHere(client, tag, own)))
      for (const { live, ended } of parts) {
        if (ended.length > 0) await client.zrem(index, ...ended)
        yield * live
      }
    } while (cursor !== '0')
  }

  /** Reads sessions where their ids lead; in a Cluster, those of adopted tokens are elsewhere. */
  async #readHere (client: Client, tag: string, ids: readonly string[]): Promise<Read> {
    const here = await this.#read(client, tag, ids)
    if (tag === '' || here.none.length === 0) return here
    const pointers = await client.mget(here.none.map(id => this.#keys.pointer(id)))
    const moved = here.none.flatMap((id, place) => typeof pointers[place] === 'string' ? [{ id, home: pointers[place].slice(0, pointers[place].indexOf(' ')) }] : [])
    const there = await Promise.all(grouped(moved, ({ home }) => home).map(async ([home, own]) => await this.#read(client, home, own.map(({ id }) => id))))
    return { live: [...here.live, ...there.flatMap(({ live }) => live)], ended: [...here.ended, ...there.flatMap(({ ended }) => ended)], none: [] }
  }

  async * #everybody (isWanted: (id: string) => boolean): AsyncGenerator<Stored> {
    for (const primary of this.#connection.primaries()) {
      let cursor = '0'
      do {
        const [next, keys] = await primary.scan(cursor, 'MATCH', this.#keys.pattern('s'), 'COUNT', SLICE)
        // Keys of others may begin as ours do.
        const wanted = keys.filter(key => isId(this.#keys.idOf(key)) && isWanted(this.#keys.idOf(key)))
        // What one command reads shares a slot.
        const slots = grouped(wanted, key => this.#keys.tagIn(key))
        const parts = await Promise.all(slots.map(async ([tag, own]) => await this.#read(primary, tag, own.map(key => this.#keys.idOf(key)))))
        for (const { live } of parts) yield * live
        cursor = next
      } while (cursor !== '0')
    }
  }

  async #read (client: Client, tag: string, ids: readonly string[]): Promise<Read> {
    const [live, ended, none, expired]: [Stored[], string[], string[], string[]] = [[], [], [], []]
    const values = await client.mget(ids.flatMap(id => [this.#keys.session(id, tag), this.#keys.use(id, tag)]))
    for (const [index, id] of ids.entries()) {
      const value = values[2 * index]
      try {
        const stored = typeof value === 'string' ? decode(id, value, values[2 * index + 1]) : null
        if (stored === null) none.push(id)
        else if (stored.ending !== null) ended.push(id)
        else if (deadlineOf(stored.session) <= this.#now()) expired.push(id)
        else live.push(stored)
      } catch {
        this.#noticed.corrupt()
      }
    }
    this.#noticed.expired(expired, tag)
    return { live, ended, none }
  }
}

/** Where a session stands in a list. */
interface Place {
  id: string
  order: number
}

interface Order {
  compare (a: Place, b: Place): number
  format (place: Place): string
  /** @throws {TokenValidation} */
  parse (cursor: string): Place
}

const newestFirst: Order = {
  compare: (a, b) => b.order - a.order || compareText(a.id, b.id),
  format: ({ id, order }) => `${order.toString(36)}.${id}`,
  parse: cursor => {
    const [, order = '', id = ''] = /^([0-9a-z]{1,11})\.([A-Za-z0-9_-]{24})$/.exec(cursor) ?? refuse()
    return { id, order: parseInt(order, 36) }
  }
}

const byId: Order = {
  compare: (a, b) => compareText(a.id, b.id),
  format: ({ id }) => id,
  parse: cursor => ({ id: (/^[A-Za-z0-9_-]{24}$/.exec(cursor) ?? refuse())[0], order: 0 })
}

function refuse (): never {
  throw new TokenValidation('cursor is not one that a list gave: pass it on as it came')
}

/** The first of an order among what is added, each once. */
class First {
  readonly places: Place[] = []
  readonly sessions: SessionRecord[] = []
  readonly #size: number
  readonly #order: Order

  constructor (size: number, order: Order) {
    this.#size = size
    this.#order = order
  }

  hasRoomFor (place: Place): boolean {
    const last = this.places[this.#size - 1]
    return last === undefined || this.#order.compare(place, last) < 0
  }

  add (place: Place, session: SessionRecord): void {
    const at = this.#positionOf(place)
    // SCAN gives a key twice while Redis makes its table smaller, which no test brings about.
    /* c8 ignore next */
    if (this.places[at]?.id === place.id) return
    this.places.splice(at, 0, place)
    this.sessions.splice(at, 0, session)
    if (this.places.length > this.#size) this.places.pop()
    if (this.sessions.length > this.#size) this.sessions.pop()
  }

  /** Of the first that does not stand before it. */
  #positionOf (place: Place): number {
    let [low, high] = [0, this.places.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#order.compare(this.places[middle] as Place, place) < 0) low = middle + 1 // it lies between low and high
      else high = middle
    }
    return low
  }
}

/** By code units, as everywhere; a locale would give another order on another machine. */
function compareText (a: string, b: string): number {
  return a < b ? -1 : Number(a > b)
}

/** Null where a query is not for one subject. */
function subjectOf ({ tenant, sub }: SessionQuery): Subject | null {
  return tenant === undefined || sub === undefined ? null : { tenant, sub }
}

function matches ({ use, tenant, sub, client, meta, issuedAt }: SessionRecord, query: SessionQuery): boolean {
  return use !== 'once' && is(query.tenant, tenant) && is(query.sub, sub) && is(query.client, client) && is(query.deviceId, meta.deviceId) &&
    is(query.ipAddress, meta.ipAddress) && issuedAt >= (query.issuedAfter ?? 0) && issuedAt < (query.issuedBefore ?? Infinity)
}

function is (wanted: string | undefined, value: string | null | undefined): boolean {
  return wanted === undefined || wanted === value
}
