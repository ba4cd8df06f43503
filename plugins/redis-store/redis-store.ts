import {
  deadlineOf, SessionConflict, StoreCorrupt, TokenValidation, type EndAllQuery, type EndCause, type Ending, type FoundSessions, type InsertOptions, type InsertOutcome,
  type InsertRefusal, type Page, type Presented, type RotateOutcome, type SessionLimit, type SessionMeta, type SessionPatch, type SessionQuery, type SessionRecord, type SessionUse,
  type StoreHealth, type Subject, type TokenStore
} from '../token-registry/index.ts'
import { check, type CheckReport } from './check.ts'
import { Claims } from './claims.ts'
import type { Coherence } from './coherence.ts'
import type { Confirmed } from './confirmed.ts'
import { isCluster, type Connection } from './connection.ts'
import { ABANDONED, EndAll } from './end-all.ts'
import { StoreLost } from './errors.ts'
import { grouped, sliced } from './grouped.ts'
import { Indexes, type IndexName } from './indexes.ts'
import { isId, type Keys } from './keys.ts'
import type { Loss } from './losses.ts'
import { Marks } from './marks.ts'
import { causeArguments, decode, encode, subjectLines, text, untext, type Stored } from './record.ts'
import { Reads } from './reads.ts'
import { Recent } from './recent.ts'
import { Runner } from './runner.ts'
import { touch, update } from './scripts/change.ts'
import { end, expire } from './scripts/end.ts'
import { insert } from './scripts/insert.ts'
import { mark } from './scripts/mark.ts'
import { rotate } from './scripts/rotate.ts'
import type { Script } from './scripts/script.ts'
import { Search } from './search.ts'
import { keeperOf } from './slots.ts'

/** ms for which the answer of an operation is kept for its repetition */
const REPEATABLE = 3_600_000
/** ms without a proof that changes are heard of after which that is an outage, and no hitch */
const DEAF = 3000
/** Subjects whose records are under way at once: more would only wait, each for the others. */
const GROUPS_AT_ONCE = 500

type InsertReply = ['ok', string[], string[], string[]] | ['exists' | 'origin', string] | ['limit', number, number]
type RotateReply =
  | ['unknown' | 'expired' | 'corrupt' | 'client' | 'binding']
  | ['rotated' | 'recovered' | 'repeated', string]
  | ['reused', string, string, string, string[], string[]]
type UpdateReply = ['none' | 'expired' | 'corrupt' | 'conflict'] | ['ok', string]
/** When, the ids that it ended, their records, those that had expired, those that are elsewhere, and where. */
type EndReply = [string, string[], string[], string[], string[], string[]]
/** Those that had expired, those that are elsewhere, and where. */
type TouchReply = [string[], string[], string[]]
type ExpireReply = Array<[string, string, 'expired' | 'idle', string]>

export interface RedisStoreSettings {
  /** ms for which an ending is kept */
  keepEndings: number
  indexes: readonly IndexName[]
  /** Whether Redis has to answer at start. */
  requireAtStart: boolean
}

/** Sessions in Redis, shared by any number of processes. */
export class RedisStore implements TokenStore {
  readonly name = 'redis'
  /** Records that could not be read. */
  corrupt = 0
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #coherence: Coherence
  readonly #reads: Reads
  readonly #runner: Runner
  readonly #claims: Claims
  readonly #endAll: EndAll
  readonly #indexes: Indexes
  readonly #search: Search
  readonly #marks: Marks
  readonly #settings: RedisStoreSettings
  readonly #confirmed: Confirmed | null
  readonly #log: (error: unknown, message: string) => void
  readonly #recent = new Recent()
  #marksBegun = false
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
    this.#claims = new Claims(connection, keys, this.#runner, now, settings.keepEndings)
    this.#endAll = new EndAll(connection, keys, this.#runner, now)
    this.#indexes = new Indexes(connection, keys, settings.indexes, settings.keepEndings)
    this.#search = new Search(connection, keys, this.#indexes, now, { expired: (ids, tag) => this.#expireSoon(ids, tag), corrupt: () => { this.corrupt++ } })
    this.#marks = new Marks(connection, keys, coherence, async (name, expiresAt) =>
      await this.#runner.run<number>('mark', mark, keys.tagIn(name), [name], [expiresAt]) === 1)
    coherence.onChange(names => this.#heard(names))
    coherence.onLoss((address, loss) => { this.#makeGood(address, loss).catch((error: unknown) => log(error, 'what Redis had lost could not be made again')) })
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
  }

  get staleness (): number {
    return this.#coherence.staleness
  }

  now (): number {
    return this.#coherence.now()
  }

  async insert (records: readonly SessionRecord[], { limits = [], op }: InsertOptions): Promise<InsertOutcome> {
    const outcome: InsertOutcome = { inserted: [], evicted: [], refused: [] }
    const groups = grouped(records, subjectLines)
    await this.#indexes.add(records)
    for (const wave of sliced(groups, GROUPS_AT_ONCE)) {
      const parts = await Promise.all(wave.map(async ([, own]) => await this.#insertOf(own, limits, op)))
      for (const { inserted, evicted, refused } of parts) {
        outcome.inserted.push(...inserted)
        outcome.evicted.push(...evicted)
        outcome.refused.push(...refused)
      }
    }
    if (groups.length > 1) inOrderOf(records, outcome.inserted)
    return outcome
  }

  async get (id: string): Promise<SessionRecord | null> {
    const found = await this.#read(id)
    if (found !== null && found.stored.ending === null && !this.#isOver(found)) return found.stored.session
    this.#tell([id]) // what this process was answered not to live, it serves from memory no more, though the word of it may come later
    return null
  }

  async update (id: string, { scope, version, meta, idleTimeout }: SessionPatch, revision?: number): Promise<SessionRecord | null> {
    if (!isId(id)) return null
    if (meta !== undefined) await this.#index(id, meta)
    const patch = [scope === undefined ? '' : JSON.stringify(scope), text(version), meta === undefined ? '' : JSON.stringify(meta), idleTimeout === undefined ? '' : idleTimeout ?? '-']
    const reply = await this.#change<UpdateReply>('update', update, id, [revision ?? '', ...patch])
    switch (reply[0]) {
      case 'ok': return this.#decode(id, reply[1]).session
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
      const [, ids, values, expired, ...moved] = await this.#runner.runOn<EndReply>('end', end, tag, own, [...causeArguments(cause), ...own]).finally(() => this.#tell(own))
      this.#expireSoon(expired, tag)
      ended.push(...this.#ended(ids, values))
      return moved
    })
    inOrderOf(unique.map(id => ({ id })), ended)
    this.#rememberEnded(ended.map(({ id }) => id), cause)
    return ended
  }

  async endAll (of: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    return await this.#endAll.run(of, cause, told !== undefined, ({ tag, at, ids, values, expired }) => {
      this.#tell(ids)
      this.#rememberEnded(ids, cause)
      this.#expireSoon(expired, tag)
      if (ids.length > 0) told?.(this.#ended(ids, values), at)
    })
  }

  /** Ends what a process that died was about to end; done by itself every half minute. */
  async sweep (): Promise<void> {
    await this.#endAll.sweep(({ tag, at, ids, values, expired, cause }) => {
      this.#tell(ids)
      this.#rememberEnded(ids, cause)
      this.#expireSoon(expired, tag)
      for (const session of this.#ended(ids, values)) this.#tellEnded(session, { ...cause, at })
    })
  }

  /**
   * Looks whether sessions and indexes agree: after a crash in a Cluster, a restore, or a hand that slipped. Reads everything, in slices of a millisecond.
   *
   * @param options `repair` mends what does not
   */
  async check ({ repair = false }: { repair?: boolean } = {}): Promise<CheckReport> {
    if (repair) await this.sweep()
    return await check(this.#connection, this.#keys, this.#indexes, this.#settings.keepEndings, repair)
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
    this.#coherence.close()
    this.#confirmed?.close()
    this.#connection.close()
  }

  async #insertOf (own: readonly SessionRecord[], limits: readonly SessionLimit[], op: string): Promise<InsertOutcome> {
    const { tenant, sub } = own[0] as SessionRecord // a group has at least one
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
    const reply = await this.#runner.runOn<InsertReply>('insert', insert, tag, ids, [
      JSON.stringify(op), REPEATABLE, this.now(), JSON.stringify(limits.map(limit => limitArgument(limit, own))), own.length, ...own.flatMap(record => [record.id, encode(record)])
    ])
    if (reply[0] !== 'ok') await this.#claims.takeBack(strangers, tag, op)
    switch (reply[0]) {
      case 'exists': case 'origin': return refuse({ reason: reply[0], id: reply[1] })
      case 'limit': return refuse({ reason: 'limit', limit: limits[reply[1] - 1] as SessionLimit, count: reply[2] }) // the script counts from 1
    }
    const [, values, evicted, evictedValues] = reply
    this.#tell(evicted)
    this.#rememberEnded(evicted, { reason: 'limit', by: null, op })
    const inserted = values.map((value, index) => decode(ids[index] as string, value).session)
    return { inserted, evicted: this.#ended(evicted, evictedValues), refused: [] }
  }

  /** Lists a session by what it is about to become. */
  async #index (id: string, meta: SessionMeta): Promise<void> {
    if (this.#indexes.keyOf(meta) === null) return
    const session = await this.get(id)
    if (session !== null) await this.#indexes.add([{ ...session, meta }])
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
    const ended = this.#ended(ids, values)
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
    if (ids.length > 0) this.#expire(ids, tag).catch(() => {})
  }

  async #expire (ids: readonly string[], tag: string): Promise<void> {
    for (const [id, value, reason, at] of await this.#runner.runOn<ExpireReply>('expire', expire, tag, ids)) {
      this.#tell([id])
      this.#tellEnded(this.#decode(id, value).session, { reason, by: null, op: `${reason}:${id}`, at: Number(at) })
    }
  }

  /** Tells an ending that nobody waits for. */
  #tellEnded (session: SessionRecord, cause: EndCause & { at: number }): void {
    const { id, tenant, sub } = session
    for (const listener of this.#expireListeners) listener(session, { id, tenant, sub, ...cause })
  }

  /** Sessions that have ended, as far as they can be read. */
  #ended (ids: readonly string[], values: readonly string[]): SessionRecord[] {
    const sessions = this.#decodeAll(ids, values)
    this.#indexes.removeSoon(sessions)
    return sessions
  }

  /** Records that can be read. */
  #decodeAll (ids: readonly string[], values: readonly string[]): SessionRecord[] {
    return values.flatMap((value, index) => {
      try {
        return [decode(ids[index] as string, value).session] // a script gives as many values as ids
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

type Reason = DistributiveOmit<InsertRefusal, keyof Subject | 'ids'>
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never

function limitArgument ({ max, onExceed, where = {} }: SessionLimit, added: readonly SessionRecord[]): object {
  const counts = ({ use, client, meta }: SessionRecord): boolean =>
    use !== 'once' && (where.client === undefined || client === where.client) && (where.deviceId === undefined || meta.deviceId === where.deviceId)
  return {
    max,
    refuses: onExceed === 'refuse',
    byUse: onExceed === 'end-least-recently-used',
    adding: added.filter(counts).length,
    ...where.client !== undefined && { client: text(where.client) },
    ...where.deviceId !== undefined && { deviceId: where.deviceId }
  }
}

function inOrderOf (wanted: ReadonlyArray<{ id: string }>, sessions: SessionRecord[]): void {
  const position = new Map(wanted.map(({ id }, index) => [id, index]))
  sessions.sort((a, b) => Number(position.get(a.id)) - Number(position.get(b.id)))
}
