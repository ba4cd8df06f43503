import {
  deadlineOf, SessionConflict, StoreCorrupt, StoreTimeout, type EndAllQuery, type EndCause, type EndedSession, type Ending, type FoundSessions, type InsertOptions, type InsertOutcome,
  type Page, type Presented, type RotateOutcome, type SessionMeta, type SessionPatch, type SessionQuery, type SessionRecord, type SessionUse, type StoreHealth, type Subject, type TokenStore
} from '../token-registry/index.ts'
import { check, type CheckReport } from './check.ts'
import { Claims } from './claims.ts'
import { Cleanup } from './cleanup.ts'
import type { Coherence } from './coherence.ts'
import type { Confirmed } from './confirmed.ts'
import { isCluster, type Connection } from './connection.ts'
import { RedisDocuments } from './documents.ts'
import { ABANDONED, EndAll } from './end-all.ts'
import { StoreLost } from './errors.ts'
import { inOrderOf, sliced } from './grouped.ts'
import { Indexes, type IndexName } from './indexes.ts'
import { Inserts } from './inserts.ts'
import { isId, type Keys } from './keys.ts'
import type { Loss } from './losses.ts'
import { Marks } from './marks.ts'
import { isPlaced, Places, STORED_WITHIN, type Holder, type Placed, type Taken } from './places.ts'
import { causeArguments, decode, groupsLine, groupsOf, text, untext, type Stored } from './record.ts'
import { Reads } from './reads.ts'
import { Recent } from './recent.ts'
import { REPEATABLE, Runner, SLICE } from './runner.ts'
import { touch, update } from './scripts/change.ts'
import { end, expire } from './scripts/end.ts'
import { mark } from './scripts/mark.ts'
import { rotate } from './scripts/rotate.ts'
import type { Script } from './scripts/script.ts'
import { Search } from './search.ts'
import { keeperOf } from './slots.ts'

/** ms without a proof that changes are heard of after which that is an outage, and no hitch */
const DEAF = 3000
/** Sessions, each ended for the next, that one look follows. */
const GENERATIONS = 20

type RotateReply =
  | ['unknown' | 'expired' | 'corrupt' | 'client' | 'binding']
  | ['rotated' | 'recovered' | 'repeated', string]
  | ['reused', string, string, string, string[], string[]]
/** The record, the groups that it had, when. */
type UpdateReply = ['none' | 'expired' | 'corrupt' | 'conflict' | 'unplaced'] | ['ok', string, string, string]
/** When, the ids that it ended, their records, those that had expired, those that are elsewhere, and where. */
type EndReply = [string, string[], string[], string[], string[], string[]]
/** Those that had expired, those that are elsewhere, and where. */
type TouchReply = [string[], string[], string[]]
type ExpireReply = Array<[string, string, 'expired' | 'idle', string]>

export interface RedisStoreSettings {
  /** ms for which an ending is kept */
  keepEndings: number
  /** ms between two passes that end what has expired; false for none */
  cleanupInterval: number | false
  indexes: readonly IndexName[]
  /** Whether Redis has to answer at start. */
  requireAtStart: boolean
}

/** Sessions in Redis, shared by any number of processes. */
export class RedisStore implements TokenStore {
  readonly name = 'redis'
  readonly documents: RedisDocuments
  /** Records that could not be read. */
  corrupt = 0
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #coherence: Coherence
  readonly #reads: Reads
  readonly #runner: Runner
  readonly #places: Places
  readonly #inserts: Inserts
  readonly #endAll: EndAll
  readonly #indexes: Indexes
  readonly #search: Search
  readonly #marks: Marks
  readonly #cleanup: Cleanup
  readonly #settings: RedisStoreSettings
  readonly #confirmed: Confirmed | null
  readonly #log: (error: unknown, message: string) => void
  readonly #recent = new Recent()
  #marksBegun = false
  #removed = 0
  /** Times that Redis may have lost what was written. */
  #losses = 0
  #openedAt = Infinity
  #sweeping: NodeJS.Timeout | undefined
  readonly #invalidateListeners = new Set<(ids: readonly string[] | 'all') => void>()
  readonly #expireListeners = new Set<(session: SessionRecord, ending: Ending) => void>()

  constructor (connection: Connection, keys: Keys, coherence: Coherence, settings: RedisStoreSettings, confirmed: Confirmed | null, log: (error: unknown, message: string) => void) {
    this.#log = log
    this.#connection = connection
    this.#keys = keys
    this.#coherence = coherence
    this.#settings = settings
    this.#confirmed = confirmed
    const now = (): number => coherence.now()
    this.#reads = new Reads(connection)
    this.#runner = new Runner(connection, keys, settings.keepEndings, confirmed)
    this.#places = new Places(keys, this.#runner, now, async (id, tenant, group) => await this.#holder(id, tenant, group))
    const claims = new Claims(connection, keys, this.#runner, now, settings.keepEndings)
    this.#inserts = new Inserts(keys, this.#runner, claims, this.#places, { now, ended: (ids, values, op) => this.#evicted(ids, values, op) })
    this.#endAll = new EndAll(connection, keys, this.#runner, now)
    this.#indexes = new Indexes(connection, keys, settings.indexes, settings.keepEndings)
    this.#search = new Search(connection, keys, this.#indexes, now, { expired: (ids, tag) => this.#expireSoon(ids, tag), corrupt: () => { this.corrupt++ } })
    this.#marks = new Marks(connection, keys, coherence, async (name, expiresAt) =>
      await this.#runner.run<number>('mark', mark, keys.tagIn(name), [name], [expiresAt]) === 1)
    this.documents = new RedisDocuments(connection, keys, this.#runner)
    this.#cleanup = new Cleanup(connection, keys, this.#runner, {
      interval: settings.cleanupInterval,
      now,
      expire: async (ids, tag) => await this.#expire(ids, tag),
      failed: error => connection.failed(error, 'what has expired is not removed from Redis')
    })
    coherence.onChange(names => this.#heard(names))
    coherence.onLoss((address, loss) => {
      this.#losses++
      this.#makeGood(address, loss).catch((error: unknown) => log(error, 'what Redis had lost could not be made again'))
    })
  }

  /** @throws {StoreAbsent} where Redis does not answer, and has to */
  async open (): Promise<void> {
    try {
      await Promise.all([this.#connection.open(), this.#confirmed?.open()])
      await this.#beginMarks()
    } catch (error) {
      if (this.#settings.requireAtStart) {
        await this.close()
        throw error
      }
    }
    this.#coherence.begin()
    this.#openedAt = performance.now()
    this.#sweeping = setInterval(() => { this.sweep().catch(() => {}) }, ABANDONED).unref()
    this.#cleanup.begin()
  }

  get staleness (): number {
    return this.#coherence.staleness
  }

  now (): number {
    return this.#coherence.now()
  }

  async insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    await this.#indexes.add(records)
    return await this.#inserts.run(records, options)
  }

  async get (id: string): Promise<SessionRecord | null> {
    const found = await this.#read(id)
    if (found !== null && found.stored.ending === null && !this.#isOver(found)) return found.stored.session
    this.#tell([id]) // what this process was answered not to live, it serves from memory no more, though the word of it may come later
    return null
  }

  async update (id: string, { scope, groups, version, meta, idleTimeout }: SessionPatch, revision?: number): Promise<SessionRecord | null> {
    if (!isId(id)) return null
    const newGroups = groups === undefined ? '' : groupsLine(groups) || '-'
    if (meta !== undefined) await this.#index(id, meta)
    const taken = groups === undefined ? null : await this.#takePlaces(id, groups)
    const patch = [scope === undefined ? '' : JSON.stringify(scope), text(version), meta === undefined ? '' : JSON.stringify(meta), idleTimeout === undefined ? '' : idleTimeout ?? '-']
    const reply = await this.#change<UpdateReply>('update', update, id, [revision ?? '', ...patch, newGroups, taken?.storeBy ?? ''])
    if (reply[0] !== 'ok') taken?.undo()
    switch (reply[0]) {
      case 'ok': return await this.#updated(id, reply)
      case 'unplaced': throw new StoreTimeout('update', STORED_WITHIN)
      case 'conflict': throw new SessionConflict()
      case 'corrupt': throw this.#damaged(id)
      case 'expired': this.#expireFound(id)
    }
    return null
  }

  async rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome> {
    if (!isId(id)) return { status: 'unknown' }
    const { once, generation, kid, client, binding, reuseWindow, by } = presented
    const args = [
      JSON.stringify(op), REPEATABLE, once ? 1 : 0, generation, kid, client === undefined ? '*' : text(client), text(binding), reuseWindow, text(by)
    ]
    const reply = await this.#change<RotateReply>('rotate', rotate, id, args)
    switch (reply[0]) {
      case 'unknown': return { status: 'unknown' }
      case 'client': case 'binding': return { status: 'refused', by: reply[0] }
      case 'corrupt': throw this.#damaged(id)
      case 'expired':
        this.#expireFound(id)
        return { status: 'unknown' }
      case 'repeated': return { status: 'repeated', session: this.#decode(id, reply[1]).session }
      case 'rotated': case 'recovered':
        // Of a session, the next presentation proves a rotation that was lost; a one-time token has none.
        if (once) this.#recent.add(async () => await this.#runner.runOnId('rotate', rotate, id, args))
        return { status: 'rotated', session: this.#decode(id, reply[1]).session, recovered: reply[0] === 'recovered' }
      case 'reused': return this.#reused(id, op, reply)
    }
  }

  async touch (uses: readonly SessionUse[]): Promise<void> {
    const times = new Map<string, number>()
    for (const { id, at } of uses) times.set(id, Math.max(at, times.get(id) ?? at))
    await this.#runner.runOnAll([...times.keys()].filter(isId), async (tag, ids) => {
      const args = ids.flatMap(id => [id, times.get(id) as number]) // they are its keys
      const [expired, ...moved] = await this.#runner.runOn<TouchReply>('touch', touch, tag, ids, args)
      this.#expireSoon(expired, tag)
      return moved
    })
  }

  async end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]> {
    const unique = [...new Set(ids)].filter(isId)
    const ended: SessionRecord[] = []
    await this.#runner.runOnAll(unique, async (tag, own) => {
      const [at, ids, values, expired, ...moved] = await this.#runner.runOn<EndReply>('end', end, tag, own, [...causeArguments(cause), ...own]).finally(() => this.#tell(own))
      this.#expireSoon(expired, tag)
      ended.push(...this.#ended(ids, values, Number(at)))
      return moved
    })
    inOrderOf(unique.map(id => ({ id })), ended)
    this.#rememberEnded(ended.map(({ id }) => id), cause)
    return ended
  }

  async endAll (of: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    return await this.#endAll.run(of, cause, told !== undefined, ({ tag, at, ids, values, expired, placed }) => {
      this.#tell(ids)
      this.#rememberEnded(ids, cause)
      this.#expireSoon(expired, tag)
      this.#release(placed, at)
      if (ids.length > 0) told?.(this.#shown(ids, values), at)
    })
  }

  /** Ends what a process that died was about to end; done by itself every half minute. */
  async sweep (): Promise<void> {
    await this.#endAll.sweep(({ tag, at, ids, values, expired, placed, cause }) => {
      this.#tell(ids)
      this.#rememberEnded(ids, cause)
      this.#expireSoon(expired, tag)
      this.#release(placed, at)
      for (const session of this.#shown(ids, values)) this.#tellEnded(session, { ...cause, at })
    })
  }

  /**
   * Looks whether sessions and indexes agree: after a crash in a Cluster, a restore, or a hand that slipped. Reads everything, in slices of a millisecond.
   *
   * @param options `repair` mends what does not
   */
  async check ({ repair = false }: { repair?: boolean } = {}): Promise<CheckReport> {
    if (repair) await this.sweep()
    return await check(this.#connection, this.#keys, this.#indexes, this.#places, this.#settings.keepEndings, repair)
  }

  async ending (id: string): Promise<Ending | null> {
    const found = await this.#read(id)
    if (found === null || found.stored.ending !== null) this.#tell([id]) // as by `get`
    if (found === null) return await this.#nothing(id)
    if (found.stored.ending !== null) return found.stored.ending
    if (!this.#isOver(found)) return null
    await this.#expire([id], found.tag)
    return (await this.#read(id))?.stored.ending ?? null
  }

  async find (query: SessionQuery, page: Page): Promise<FoundSessions> {
    return await this.#connection.askMany('find', () => this.#search.find(query, page))
  }

  async count (query: SessionQuery): Promise<number> {
    return await this.#connection.askMany('count', () => this.#search.count(query))
  }

  subjects (tenant?: string): AsyncIterable<Subject> {
    return this.#search.subjects(tenant)
  }

  async mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    const set = await this.#marks.add(purpose, key, expiresAt)
    if (set) this.#recent.add(async () => await this.#marks.add(purpose, key, expiresAt))
    return set
  }

  marked (purpose: string, key: string, issuedAt?: number): boolean | Promise<boolean> {
    return this.#marks.has(purpose, key, issuedAt)
  }

  onInvalidate (listener: (ids: readonly string[] | 'all') => void): () => void {
    this.#invalidateListeners.add(listener)
    return () => { this.#invalidateListeners.delete(listener) }
  }

  onExpire (listener: (session: SessionRecord, ending: Ending) => void): () => void {
    this.#expireListeners.add(listener)
    return () => { this.#expireListeners.delete(listener) }
  }

  /** `corrupt`: records that could not be read; `removed`: sessions that this process ended as they had expired; `cleanups`: passes that it made for that. */
  figures (): Record<string, number> {
    const { passes, sessions } = this.#cleanup
    return {
      ...sessions !== undefined && { sessions },
      corrupt: this.corrupt,
      removed: this.#removed,
      cleanups: passes,
      invalidationDelay: this.#coherence.delay,
      losses: this.#losses,
      reconnections: this.#connection.replacements
    }
  }

  async health (): Promise<StoreHealth> {
    const began = performance.now()
    await this.#connection.ask('health', client => client.ping())
    const latency = performance.now() - began
    return this.staleness <= DEAF || began - this.#openedAt < DEAF
      ? { status: 'ok', latency }
      : { status: 'degraded', latency, detail: 'what other processes change is not heard of: nothing is served from the cache' }
  }

  async close (): Promise<void> {
    clearInterval(this.#sweeping)
    this.#cleanup.close()
    this.#coherence.close()
    this.#confirmed?.close()
    this.#connection.close()
  }

  /** Lists a session by what it is about to become. */
  async #index (id: string, meta: SessionMeta): Promise<void> {
    if (this.#indexes.keyOf(meta) === null) return
    const session = await this.get(id)
    if (session !== null) await this.#indexes.add([{ ...session, meta }])
  }

  /** Takes places for the groups that a session is about to have, without testing a limit. */
  async #takePlaces (id: string, groups: readonly string[]): Promise<Taken | null> {
    if (!groups.some(isPlaced)) return null
    const session = await this.get(id)
    return session === null ? null : await this.#places.take([{ ...session, groups }])
  }

  async #updated (id: string, [, value, had, at]: Extract<UpdateReply, ['ok', ...unknown[]]>): Promise<SessionRecord> {
    const { session } = this.#decode(id, value)
    const left = groupsOf(had).filter(group => !session.groups.includes(group))
    await this.#places.release([{ ...session, groups: left }], Number(at))
    return session
  }

  /** Changes one session. What became of it where that fails, nobody knows: caches forget it either way. */
  async #change<Reply extends unknown[]> (operation: string, script: Script, id: string, args: ReadonlyArray<string | number>): Promise<Reply> {
    try {
      return await this.#runner.runOnId<Reply>(operation, script, id, args)
    } finally {
      this.#tell([id])
    }
  }

  #reused (id: string, op: string, [, at, reason, by, ids, values]: Extract<RotateReply, ['reused', ...unknown[]]>): RotateOutcome {
    this.#tell(ids)
    this.#rememberEnded(ids, { reason: JSON.parse(reason), by: untext(by), op })
    const ended = this.#ended(ids, values, Number(at))
    const { tenant, sub } = ended.find(session => session.id === id) ?? (() => { throw this.#damaged(id) })()
    return { status: 'reused', ended, ending: { id, tenant, sub, reason: JSON.parse(reason), by: untext(by), op, at: Number(at) } }
  }

  /** A read tells values that are not text from none no more than a script does: who asks why a session is gone is told. */
  async #nothing (id: string): Promise<null> {
    const type = isId(id) ? await this.#connection.ask('ending', client => client.type(this.#keys.session(id))) : 'none'
    // It may have been stored meanwhile.
    if (type !== 'none' && type !== 'string') throw this.#damaged(id)
    return null
  }

  /** A session, or how it ended, and the tag of the slot where it is. */
  async #read (id: string): Promise<Found | null> {
    if (!isId(id)) return null
    const tag = this.#keys.tagOfId(id)
    const keys = [this.#keys.session(id), this.#keys.use(id)]
    if (tag !== '') keys.push(this.#keys.pointer(id))
    const [value, used, pointer] = await this.#reads.read(tag, keys)
    if (typeof value === 'string') return { stored: this.#decode(id, value, used), tag }
    if (typeof pointer !== 'string') return null

    const home = pointer.slice(0, pointer.indexOf(' '))
    const [there, usedThere] = await this.#reads.read(home, [this.#keys.session(id, home), this.#keys.use(id, home)])
    return typeof there === 'string' ? { stored: this.#decode(id, there, usedThere), tag: home } : null
  }

  #decode (id: string, value: string, used: string | null = null): Stored {
    try {
      return decode(id, value, used)
    } catch (error) {
      this.corrupt++
      throw error
    }
  }

  /** Whether it has expired, which is then told. */
  #isOver ({ stored: { session }, tag }: Found): boolean {
    const over = deadlineOf(session) <= this.now()
    if (over) this.#expireSoon([session.id], tag)
    return over
  }

  /** As by `get`, which finds where it is. */
  #expireFound (id: string): void {
    this.get(id).catch(() => {})
  }

  /** In the background: a failure is made good by the next who notices. */
  #expireSoon (ids: readonly string[], tag: string): void {
    for (const some of sliced(ids, SLICE)) this.#expire(some, tag).catch(() => {})
  }

  /** @returns those that this call ended */
  async #expire (ids: readonly string[], tag: string): Promise<string[]> {
    const told = await this.#runner.runOn<ExpireReply>('expire', expire, tag, ids)
    const ended = told.map(([id]) => id)
    this.#removed += ended.length
    this.#tell(ended)
    const endings = new Map(told.map(([id, , reason, at]) => [id, { reason, by: null, op: `${reason}:${id}`, at: Number(at) }]))
    const last = Math.max(0, ...told.map(([, , , at]) => Number(at)))
    for (const session of this.#ended(ended, told.map(([, value]) => value), last)) this.#tellEnded(session, endings.get(session.id) as EndCause & { at: number }) // it is one of them
    return ended
  }

  /** Tells an ending that nobody waits for. */
  #tellEnded (session: SessionRecord, cause: EndCause & { at: number }): void {
    const { id, tenant, sub } = session
    for (const listener of this.#expireListeners) listener(session, { id, tenant, sub, ...cause })
  }

  /** Sessions that had ended at a time, as far as they can be read. */
  #ended (ids: readonly string[], values: readonly string[], at: number): SessionRecord[] {
    const sessions = this.#shown(ids, values)
    this.#release(sessions, at)
    return sessions
  }

  #shown (ids: readonly string[], values: readonly string[]): SessionRecord[] {
    const sessions = this.#decodeAll(ids, values).map(({ session }) => session)
    this.#indexes.removeSoon(sessions)
    return sessions
  }

  /** What an insert ended, also where it is repeated: what of that is remembered. */
  #evicted (ids: readonly string[], values: readonly string[], op: string): EndedSession[] {
    this.#tell(ids)
    const evicted = this.#decodeAll(ids, values).flatMap(({ session, ending }) => ending?.op === op ? [{ session, ending }] : [])
    this.#indexes.removeSoon(evicted.map(({ session }) => session))
    for (const { session, ending } of evicted) this.#rememberEnded([session.id], ending)
    return evicted
  }

  /** In the background. */
  #release (ended: readonly Placed[], at: number): void {
    this.#places.release(ended, at).catch(() => {})
  }

  /** Who lives and has a group: a session, or who was stored in its place. */
  async #holder (id: string, tenant: string, group: string, generation = 0): Promise<Holder | null> {
    const found = await this.#read(id)
    if (found === null) return null
    const { session, ending } = found.stored
    if (session.tenant !== tenant || !session.groups.includes(group)) return null
    // By the clock of its own server: it may be used in this very moment.
    if (ending === null) return deadlineOf(session) > this.now() || !(await this.#expire([id], found.tag)).includes(id) ? session : null
    const successor = ending.detail?.session
    if (successor === undefined) return null
    // The next look goes on from there.
    return generation === GENERATIONS ? session : await this.#holder(successor, tenant, group, generation + 1)
  }

  /** What can be read of records; '' where one is forgotten. */
  #decodeAll (ids: readonly string[], values: readonly string[]): Stored[] {
    return values.flatMap((value, index) => {
      try {
        return value === '' ? [] : [decode(ids[index] as string, value)] // a script gives as many values as ids
      } catch {
        this.corrupt++
        return []
      }
    })
  }

  #damaged (id: string): Error {
    this.corrupt++
    return new StoreCorrupt(id)
  }

  #rememberEnded (ids: readonly string[], cause: EndCause): void {
    if (ids.length === 0) return
    this.#recent.add(async () => await this.#runner.runOnAll(ids, async (tag, own) => {
      const [,,,, ...moved] = await this.#runner.runOn<EndReply>('end', end, tag, own, [...causeArguments(cause), ...own])
      return moved
    }))
  }

  /** Where Redis was not there at start, when it is: what is issued from then on can be known to be unmarked. */
  async #beginMarks (): Promise<void> {
    await this.#marks.begin()
    this.#marksBegun = true
  }

  /** Ends and marks again what a server has lost of it, or may have. */
  async #makeGood (address: string, { since, certain }: Loss): Promise<void> {
    if (certain) this.#log(new StoreLost(), `Redis at ${address} has lost something that was written: what this process ended of late is ended again`)
    this.#tell('all')
    const { client } = this.#connection
    try {
      if (certain) await this.#marks.lost(key => !isCluster(client) || keeperOf(key, client) === address)
    } finally {
      await this.#recent.again(since)
    }
  }

  /** What any process changed. */
  #heard (names: readonly string[] | 'all'): void {
    if (names === 'all' && !this.#marksBegun) this.#beginMarks().catch(() => {}) // by the next time that a connection is made
    this.#marks.changed(names)
    this.#tell(names === 'all' ? names : names.filter(name => name.startsWith(this.#keys.kind('s'))).map(name => this.#keys.idOf(name)))
  }

  #tell (ids: readonly string[] | 'all'): void {
    if (ids.length > 0) for (const listener of this.#invalidateListeners) listener(ids)
  }
}

/** A session, or how it ended, and the hash tag of where it is. */
interface Found {
  stored: Stored
  tag: string
}
