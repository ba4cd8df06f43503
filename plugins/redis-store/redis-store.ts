import {
  deadlineOf, SessionConflict, StoreCorrupt, TokenValidation, type EndAllQuery, type EndCause, type Ending, type FoundSessions, type InsertOptions, type InsertOutcome,
  type InsertRefusal, type Page, type Presented, type RotateOutcome, type SessionLimit, type SessionMeta, type SessionPatch, type SessionQuery, type SessionRecord, type SessionUse,
  type StoreHealth, type Subject, type TokenStore
} from '../token-registry/index.ts'
import { check, type CheckReport } from './check.ts'
import type { Coherence } from './coherence.ts'
import type { Confirmed } from './confirmed.ts'
import type { Client, Connection } from './connection.ts'
import { grouped } from './grouped.ts'
import { Indexes, type IndexName } from './indexes.ts'
import { isId, type Keys } from './keys.ts'
import { Marks } from './marks.ts'
import { decode, insertArguments, subjectLines, text, untext, type Stored } from './record.ts'
import { touch, update } from './scripts/change.ts'
import { condemn, end, endSlice, expire, takePending } from './scripts/end.ts'
import { claim, insert, release } from './scripts/insert.ts'
import { mark } from './scripts/mark.ts'
import { rotate } from './scripts/rotate.ts'
import type { Script } from './scripts/script.ts'
import { Search } from './search.ts'

/** ms for which the answer of an operation is kept for its repetition */
const REPEATABLE = 3_600_000
/** ms for which what `endAll` set aside waits for somebody to end it */
const ASIDE = 7 * 86_400_000
/** ms after which an operation that is not done counts as abandoned */
const ABANDONED = 30_000
/** Sessions that one script ends: about a millisecond. */
const SLICE = 250
/** ms for which word of where an adopted token's session will be is believed before it is there */
const CLAIMED = 30_000
/** Subjects whose records are under way at once: more would only wait, each for the others. */
const GROUPS_AT_ONCE = 500
/** Slices that are under way at once, so that none waits for the network. */
const SLICES_AHEAD = 4

type InsertReply = ['ok', string[], string[], string[]] | ['exists' | 'origin', string] | ['limit', number, number]
type ClaimReply = ['ok' | 'exists'] | ['held', string, string]
type Moved = ['moved', string]
type RotateReply =
  | ['unknown' | 'expired' | 'corrupt' | 'client' | 'binding']
  | ['rotated' | 'recovered' | 'repeated', string]
  | ['reused', string, string, string, string[], string[]]
type UpdateReply = ['none' | 'expired' | 'corrupt' | 'conflict'] | ['ok', string]
/** When, the ids that it ended, their records, those that had expired, those that are elsewhere, and where. */
type EndReply = [string, string[], string[], string[], string[], string[]]
type EndSliceReply = [string, string[], string[], string[]]
/** Those that had expired, those that are elsewhere, and where. */
type TouchReply = [string[], string[], string[]]
type ExpireReply = Array<[string, string, 'expired' | 'idle', string]>

/** An `endAll` that is not done. */
interface Pending extends Subject {
  except: string[]
  cause: EndCause
  /** When it began. */
  at: number
}

/** What ends or replaces tokens: with `durability: 'replicas'` it counts when replicas have it. */
const confirmable = new Set([condemn, end, endSlice, insert, mark, rotate])

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
  readonly #indexes: Indexes
  readonly #search: Search
  readonly #marks: Marks
  readonly #settings: RedisStoreSettings
  readonly #confirmed: Confirmed | null
  #sweeping: NodeJS.Timeout | undefined
  readonly #invalidateListeners = new Set<(ids: readonly string[] | 'all') => void>()
  readonly #expireListeners = new Set<(session: SessionRecord, ending: Ending) => void>()

  constructor (connection: Connection, keys: Keys, coherence: Coherence, settings: RedisStoreSettings, confirmed: Confirmed | null) {
    this.#connection = connection
    this.#keys = keys
    this.#coherence = coherence
    this.#settings = settings
    this.#confirmed = confirmed
    this.#indexes = new Indexes(connection, keys, settings.indexes, settings.keepEndings)
    this.#search = new Search(connection, keys, this.#indexes, () => this.now(), { expired: (ids, tag) => this.#expireSoon(ids, tag), corrupt: () => { this.corrupt++ } })
    this.#marks = new Marks(connection, keys, coherence, async (name, expiresAt) =>
      await this.#runOn<number>('mark', mark, keys.tagIn(name), [name], [expiresAt]) === 1)
    coherence.onChange(names => this.#heard(names))
  }

  /** @throws {StoreAbsent} where Redis does not answer, and has to */
  async open (): Promise<void> {
    try {
      await Promise.all([this.#connection.open(), this.#confirmed?.open()])
      await this.#marks.begin()
    } catch (error) {
      if (this.#settings.requireAtStart) {
        await this.close()
        throw error
      }
    }
    this.#coherence.begin()
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
    const stored = await this.#read('get', id)
    return stored !== null && stored.ending === null && !this.#isOver(stored) ? stored.session : null
  }

  async update (id: string, { scope, version, meta, idleTimeout }: SessionPatch, revision?: number): Promise<SessionRecord | null> {
    if (!isId(id)) return null
    if (meta !== undefined) await this.#index(id, meta)
    const patch = [scope === undefined ? '' : JSON.stringify(scope), text(version), meta === undefined ? '' : JSON.stringify(meta), idleTimeout === undefined ? '' : idleTimeout ?? '-']
    const reply = await this.#runOnId<UpdateReply>('update', update, id, [revision ?? '', ...patch])
    switch (reply[0]) {
      case 'ok':
        this.#tell([id])
        return decode(id, reply[1]).session
      case 'conflict': throw new SessionConflict()
      case 'corrupt': throw this.#damaged(id)
      case 'expired': this.#expireFound(id)
    }
    return null
  }

  async rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome> {
    if (!isId(id)) return { status: 'unknown' }
    const { once, generation, kid, client, binding, reuseWindow, by } = presented
    const reply = await this.#runOnId<RotateReply>('rotate', rotate, id, [
      JSON.stringify(op), REPEATABLE, once ? 1 : 0, generation, kid, client === undefined ? '*' : text(client), text(binding), reuseWindow, text(by)
    ])
    switch (reply[0]) {
      case 'unknown': return { status: 'unknown' }
      case 'client': case 'binding': return { status: 'refused', by: reply[0] }
      case 'corrupt': throw this.#damaged(id)
      case 'expired':
        this.#expireFound(id)
        return { status: 'unknown' }
      case 'repeated': return { status: 'repeated', session: decode(id, reply[1]).session }
      case 'rotated': case 'recovered':
        this.#tell([id])
        return { status: 'rotated', session: decode(id, reply[1]).session, recovered: reply[0] === 'recovered' }
      case 'reused': return this.#reused(id, op, reply)
    }
  }

  async touch (uses: readonly SessionUse[]): Promise<void> {
    const times = new Map(uses.map(({ id, at }) => [id, at]))
    for (const { id, at } of uses) times.set(id, Math.max(at, times.get(id) ?? 0))
    await this.#runOnAll([...times.keys()].filter(isId), async (tag, ids) => {
      const args = ids.flatMap(id => [id, times.get(id) ?? 0])
      const [expired, ...moved] = await this.#runOn<TouchReply>('touch', touch, tag, this.#sessionKeys(ids, tag), args)
      this.#expireSoon(expired, tag)
      return moved
    })
  }

  async end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]> {
    const unique = [...new Set(ids)].filter(isId)
    const ended: SessionRecord[] = []
    await this.#runOnAll(unique, async (tag, own) => {
      const [, ids, values, expired, ...moved] = await this.#runOn<EndReply>('end', end, tag, this.#sessionKeys(own, tag), [...causeArguments(cause), ...own])
      this.#tell(ids)
      this.#expireSoon(expired, tag)
      ended.push(...this.#ended(ids, values))
      return moved
    })
    inOrderOf(unique.map(id => ({ id })), ended)
    return ended
  }

  async endAll (of: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    const { tenant, sub, except = [] } = of
    const pending: Pending = { tenant, sub, except: [...except], cause, at: this.now() }
    await this.#ask('endAll', async client => {
      await client.zadd(this.#keys.pending, pending.at, JSON.stringify(pending))
      await client.pexpire(this.#keys.pending, ASIDE)
    })
    return await this.#endPending(pending, JSON.stringify(pending), true, told)
  }

  /** Ends what a process that died had set aside; done by itself every half minute. */
  async sweep (): Promise<void> {
    for (;;) {
      const member = await this.#runOn<string | null>('sweep', takePending, '', [this.#keys.pending], [ABANDONED])
      if (member === null) return
      const pending: Pending = JSON.parse(member)
      const { cause, at } = pending
      // What was set aside has been forgotten by then, and what lives was issued since.
      if (at < this.now() - ASIDE + REPEATABLE) await this.#ask('sweep', client => client.zrem(this.#keys.pending, member))
      else await this.#endPending(pending, member, false, (ended, at) => { for (const session of ended) this.#tellEnded(session, { ...cause, at }) })
    }
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
    const stored = await this.#read('ending', id)
    if (stored === null || stored.ending !== null) return stored?.ending ?? null
    if (!this.#isOver(stored)) return null
    await this.#expire([id], stored.tag)
    return (await this.#read('ending', id))?.ending ?? null
  }

  async find (query: SessionQuery, page: Page): Promise<FoundSessions> {
    return await this.#ask('find', () => this.#search.find(query, page))
  }

  async count (query: SessionQuery): Promise<number> {
    return await this.#ask('count', () => this.#search.count(query))
  }

  async mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    return await this.#marks.add(purpose, key, expiresAt)
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
    await this.#ask('health', client => client.ping())
    return { status: 'ok', latency: performance.now() - began }
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
    const twice = ids.find((id, index) => ids.indexOf(id) < index)
    if (twice !== undefined) return refuse({ reason: 'exists', id: twice })

    const tag = this.#keys.tagOfSubject({ tenant, sub })
    const strangers = own.filter(({ id }) => this.#keys.tagOfId(id) !== tag)
    const taken = strangers.length === 0 ? undefined : await this.#claimAll(strangers, tag, op)
    if (taken !== undefined) return refuse({ reason: 'exists', id: taken })
    const reply = await this.#runOn<InsertReply>('insert', insert, tag, this.#sessionKeys(ids, tag), [
      JSON.stringify(op), REPEATABLE, this.now(), JSON.stringify(limits.map(limit => limitArgument(limit, own))), own.length, ...own.flatMap(insertArguments)
    ])
    if (reply[0] !== 'ok') await this.#releaseAll(strangers, tag, op)
    switch (reply[0]) {
      case 'exists': case 'origin': return refuse({ reason: reply[0], id: reply[1] })
      case 'limit': return refuse({ reason: 'limit', limit: limits[reply[1] - 1] as SessionLimit, count: reply[2] }) // the script counts from 1
    }
    const [, values, evicted, evictedValues] = reply
    this.#tell(evicted)
    const inserted = values.map((value, index) => decode(ids[index] as string, value).session)
    return { inserted, evicted: this.#ended(evicted, evictedValues), refused: [] }
  }

  /** Lists a session by what it is about to become. */
  async #index (id: string, meta: SessionMeta): Promise<void> {
    if (this.#indexes.keyOf(meta) === null) return
    const session = await this.get(id)
    if (session !== null) await this.#indexes.add([{ ...session, meta }])
  }

  /** In a Cluster, says in the slots of adopted tokens where their sessions will be. @returns an id that is taken */
  async #claimAll (records: readonly SessionRecord[], home: string, op: string): Promise<string | undefined> {
    const claims = await Promise.all(records.map(async record => await this.#claim(record, home, op)))
    const taken = records.find((_, index) => claims[index] === false)
    if (taken !== undefined) await this.#releaseAll(records, home, op)
    return taken?.id
  }

  async #claim (record: SessionRecord, home: string, op: string): Promise<boolean> {
    const { id, expiresAt } = record
    const tag = this.#keys.tagOfId(id)
    const keys = [this.#keys.session(id), this.#keys.pointer(id)]
    const reply = await this.#runOn<ClaimReply>('insert', claim, tag, keys, [id, home, JSON.stringify(op), expiresAt + this.#settings.keepEndings + CLAIMED])
    if (reply[0] !== 'held') return reply[0] === 'ok'
    // Word that nobody followed: who left it has died.
    const [, theirs, at] = reply
    if (Number(at) > this.now() - CLAIMED || await this.#ask('insert', client => client.exists(this.#keys.session(id, theirs))) > 0) return false
    await this.#runOn('insert', release, tag, keys, [id, theirs, at])
    return await this.#claim(record, home, op)
  }

  async #releaseAll (records: readonly SessionRecord[], home: string, op: string): Promise<void> {
    await Promise.all(records.map(async ({ id }) => await this.#runOn('insert', release, this.#keys.tagOfId(id), [this.#keys.session(id), this.#keys.pointer(id)], [id, home, JSON.stringify(op)])))
  }

  #reused (id: string, op: string, [, at, reason, by, ids, values]: Extract<RotateReply, ['reused', ...unknown[]]>): RotateOutcome {
    this.#tell(ids)
    const ended = this.#ended(ids, values)
    const { tenant, sub } = ended.find(session => session.id === id) ?? (() => { throw this.#damaged(id) })()
    return { status: 'reused', ended, ending: { id, tenant, sub, reason: JSON.parse(reason), by: untext(by), op, at: Number(at) } }
  }

  /** @param again whether what it ended before is told again */
  async #endPending (pending: Pending, member: string, again: boolean, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    const { except, cause } = pending
    const tag = this.#keys.tagOfSubject(pending)
    const { sessions, once, sessionsAside, onceAside, done } = this.#keys.subject(pending, cause.op)
    const sizes = await this.#runOn<[number, number]>('endAll', condemn, tag, [sessions, once, sessionsAside, onceAside, done], [ASIDE, ...except])
    const ended = await this.#endAside(sessionsAside, sizes[0], tag, cause, again, told)
    await this.#endAside(onceAside, sizes[1], tag, cause, again, told)
    await this.#ask('endAll', async client => {
      await Promise.all([sessionsAside, onceAside, done].map(async key => await client.pexpire(key, REPEATABLE)))
      await client.zrem(this.#keys.pending, member)
    })
    return ended
  }

  /** Ends what was set aside, in slices. @returns how many sessions that were */
  async #endAside (key: string, size: number, tag: string, cause: EndCause, again: boolean, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    let count = 0
    const endFrom = async (first: number): Promise<void> => {
      const args = [...causeArguments(cause), first, first + SLICE - 1, told === undefined ? 0 : 1, again ? 1 : 0]
      const [at, ids, values, expired] = await this.#runOn<EndSliceReply>('endAll', endSlice, tag, [key], args)
      count += ids.length
      this.#tell(ids)
      this.#expireSoon(expired, tag)
      if (ids.length > 0) told?.(this.#ended(ids, values), Number(at))
    }
    for (const firsts of sliced(Array.from({ length: Math.ceil(size / SLICE) }, (_, index) => index * SLICE), SLICES_AHEAD)) await Promise.all(firsts.map(endFrom))
    return count
  }

  /** A session, or how it ended, and the tag of the slot where it is. */
  async #read (operation: string, id: string): Promise<Stored & { tag: string } | null> {
    if (!isId(id)) return null
    const tag = this.#keys.tagOfId(id)
    const keys = [this.#keys.session(id), this.#keys.use(id)]
    if (tag !== '') keys.push(this.#keys.pointer(id))
    const [value, used, pointer] = await this.#ask(operation, client => client.mget(keys))
    if (typeof value === 'string') return { ...this.#decode(id, value, used), tag }
    if (typeof pointer !== 'string') return null

    const home = pointer.slice(0, pointer.indexOf(' '))
    const [there, usedThere] = await this.#ask(operation, client => client.mget(this.#keys.session(id, home), this.#keys.use(id, home)))
    return typeof there === 'string' ? { ...this.#decode(id, there, usedThere), tag: home } : null
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
  #isOver ({ session, tag }: { session: SessionRecord, tag: string }): boolean {
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
    for (const [id, value, reason, at] of await this.#runOn<ExpireReply>('expire', expire, tag, this.#sessionKeys(ids, tag), ids)) {
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

  /** What any process changed. */
  #heard (names: readonly string[] | 'all'): void {
    this.#marks.changed(names)
    this.#tell(names === 'all' ? names : names.filter(name => name.startsWith(this.#keys.kind('s'))).map(name => this.#keys.idOf(name)))
  }

  #tell (ids: readonly string[] | 'all'): void {
    if (ids.length > 0) for (const listener of this.#invalidateListeners) listener(ids)
  }

  #sessionKeys (ids: readonly string[], tag: string): string[] {
    return ids.map(id => this.#keys.session(id, tag))
  }

  /** Runs a script on one session, where it is. Before its own arguments it gets the id. */
  async #runOnId<Reply extends unknown[]> (operation: string, script: Script, id: string, args: ReadonlyArray<string | number>): Promise<Reply> {
    const runAt = async (tag: string): Promise<Reply | Moved> => await this.#runOn(operation, script, tag, this.#sessionKeys([id], tag), [id, ...args])
    const reply = await runAt(this.#keys.tagOfId(id))
    return (reply[0] === 'moved' ? await runAt(reply[1] as string) : reply) as Reply // there it is not said again
  }

  /** Runs something on sessions in slices that share a slot, then on those that it found elsewhere. */
  async #runOnAll (ids: readonly string[], run: (tag: string, ids: readonly string[]) => Promise<string[][]>): Promise<void> {
    const tags = new Map(ids.map(id => [id, this.#keys.tagOfId(id)]))
    while (tags.size > 0) {
      const slices = grouped([...tags], ([, tag]) => tag).flatMap(([tag, own]) => sliced(own, SLICE).map(slice => [tag, slice.map(([id]) => id)] as const))
      tags.clear()
      await Promise.all(slices.map(async slice => {
        const [moved = [], homes = []] = await run(...slice)
        for (const [index, id] of moved.entries()) tags.set(id, homes[index] ?? '')
      }))
    }
  }

  async #runOn<Reply> (operation: string, script: Script, tag: string, keys: readonly string[], args: ReadonlyArray<string | number>): Promise<Reply> {
    const run = async (client: Client, fence: string): Promise<unknown> =>
      await script.run(client, keys, [this.#keys.prefix, tag, `${this.#settings.keepEndings} ${fence}`, ...args])
    const reply = this.#confirmed !== null && confirmable.has(script)
      ? await this.#confirmed.run(tag, run)
      : await this.#ask(operation, client => run(client, ''))
    return reply as Reply // what each script returns stands beside it
  }

  async #ask<T> (operation: string, work: (client: Client) => Promise<T>): Promise<T> {
    return await this.#connection.ask(operation, work)
  }
}

type Reason = DistributiveOmit<InsertRefusal, keyof Subject | 'ids'>
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never

function causeArguments ({ reason, by, op }: EndCause): string[] {
  return [text(reason), text(by), JSON.stringify(op)]
}

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

function sliced<Item> (items: readonly Item[], size: number): Item[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) => items.slice(index * size, (index + 1) * size))
}

function inOrderOf (wanted: ReadonlyArray<{ id: string }>, sessions: SessionRecord[]): void {
  const position = new Map(wanted.map(({ id }, index) => [id, index]))
  sessions.sort((a, b) => Number(position.get(a.id)) - Number(position.get(b.id)))
}
