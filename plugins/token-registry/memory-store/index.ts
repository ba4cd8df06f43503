import { setImmediate } from 'node:timers/promises'
import { SessionConflict, TokenValidation } from '../errors.ts'
import { judgeLimits, TENANT_GROUP, type Holdings } from '../limits.ts'
import { deadlineOf, type EndCause, type Ending, type SessionRecord, type Subject } from '../record.ts'
import { judgeRotation } from '../rotation.ts'
import type {
  EndAllQuery, EndedSession, FoundSessions, InsertOptions, InsertOutcome, Page, Presented, RotateOutcome, SessionPatch, SessionQuery, SessionUse,
  StoreHealth, TokenStore
} from '../store.ts'
import { subjectKey } from '../token.ts'
import { MemoryDocuments } from './documents.ts'
import { endingOf, Endings, isEnded, type Ended, type EndedEntry } from './endings.ts'
import { entryOf, listOf, matches, recordOf, type Entry, type SubjectEntries } from './entry.ts'
import { Ledger } from './ledger.ts'
import { Marks } from './marks.ts'
import { resolveOptions, type MemoryStoreOptions } from './options.ts'
import { everyCharacter, ShardedMap } from './sharded-map.ts'

/** ms that a slice of background work may take before others get their turn */
const SLICE = 2
/** ms until the next slice of a pass: soon where there is something to remove, else so long that looking takes a hundredth of the core at most */
const PAUSE = { found: 20, nothing: 200 }
const ENDED_AT_ONCE = 5000

/** Sessions in the memory of this process: about 800 bytes each with 300 bytes of meta. They are gone when the process ends. */
export class MemoryStore implements TokenStore {
  readonly name = 'memory'
  readonly staleness = 0
  readonly now: () => number
  /** Those that live, and those whose ending is remembered. */
  readonly #sessions = new ShardedMap<Entry>()
  readonly #subjects = new ShardedMap<SubjectEntries>(everyCharacter)
  readonly #endings: Endings
  readonly #marks: Marks
  readonly documents: MemoryDocuments
  /** What limits count of a tenant, by tenant and group. */
  readonly #tenants = new Map<string, Ledger>()
  readonly #invalidateListeners = new Set<(ids: readonly string[] | 'all') => void>()
  readonly #expireListeners = new Set<(session: SessionRecord, ending: Ending) => void>()
  readonly #sweepInterval: number
  readonly #bornAt: number
  #sweepTimer: NodeJS.Timeout
  #sequence = 0
  /** How many sessions live: one-time tokens are none. */
  #size = 0
  /** How many went by their deadline. */
  #expired = 0

  /** @throws {TokenOptions} */
  constructor (given: MemoryStoreOptions = {}) {
    const { now, keepEndings, maxEndings, sweepInterval } = resolveOptions(given)
    this.now = now
    this.#endings = new Endings(now, keepEndings, maxEndings, entry => this.#forget(entry))
    this.#marks = new Marks(now)
    this.documents = new MemoryDocuments(now)
    this.#sweepInterval = sweepInterval
    this.#bornAt = now()
    this.#sweepTimer = this.#sweepLater(this.#pass(), sweepInterval)
  }

  async insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    const { op, subject: within, uses = [] } = options
    if (uses.length > 0) await this.touch(uses)
    const outcome: InsertOutcome = { inserted: [], evicted: [], refused: [] }
    if (records.length === 0) {
      if (within !== undefined) outcome.evicted.push(...this.#evictedBy(op) ?? this.#makeRoom(this.#subjectOf(within), [], options).evicted)
      return outcome
    }
    const groups = bySubject(records)

    for (const own of groups) {
      const subject = this.#subjectOf(own[0] as SessionRecord)
      const before = this.#storedBefore(own, subject, op)
      if (before !== null) {
        outcome.inserted.push(...before.map(recordOf))
        outcome.evicted.push(...this.#evictedBy(op)?.filter(({ session: { tenant, sub } }) => tenant === subject.tenant && sub === subject.sub) ?? [])
        continue
      }
      const refusal = this.#refusal(own, subject)
      const { evicted, refused } = refusal === null ? this.#makeRoom(subject, own, options) : { evicted: [], refused: refusal }
      if (refused !== null) {
        outcome.refused.push({ ...refused, tenant: subject.tenant, sub: subject.sub, ids: own.map(({ id }) => id) })
        continue
      }
      outcome.evicted.push(...evicted)
      for (const record of own) outcome.inserted.push(recordOf(this.#add(record, subject)))
    }

    if (groups.length > 1) inOrderOf(records, outcome.inserted)
    return outcome
  }

  async get (id: string): Promise<SessionRecord | null> {
    const entry = this.#alive(id)
    return entry === undefined ? null : recordOf(entry)
  }

  async update (id: string, patch: SessionPatch, revision?: number): Promise<SessionRecord | null> {
    const entry = this.#alive(id)
    if (entry === undefined) return null

    const meta = patch.meta === undefined ? entry.meta : JSON.stringify(patch.meta)
    const scope = patch.scope === undefined ? entry.scope : listOf(patch.scope)
    const groups = patch.groups === undefined ? entry.groups : listOf(patch.groups)
    const idleTimeout = patch.idleTimeout === undefined ? entry.idleTimeout : patch.idleTimeout
    const version = patch.version ?? entry.version
    if (revision !== undefined && revision !== entry.revision) {
      // A repeated update finds its own work done.
      const done = revision === entry.revision - 1 && meta === entry.meta && idleTimeout === entry.idleTimeout &&
        version === entry.version && scope.join(' ') === entry.scope.join(' ') && groups.join(' ') === entry.groups.join(' ')
      if (done) return recordOf(entry)
      throw new SessionConflict()
    }

    // Uses are written late: another timeout counts from now.
    const lastUsedAt = patch.idleTimeout === undefined ? entry.lastUsedAt : Math.max(entry.lastUsedAt, this.now())
    const left = entry.groups.filter(group => !groups.includes(group))
    const joined = groups.filter(group => !entry.groups.includes(group))
    Object.assign(entry, { meta, scope, groups, idleTimeout, version, lastUsedAt, revision: entry.revision + 1 })
    this.#unlist(entry, left)
    this.#list(entry, joined)
    // Its deadline may have come nearer.
    if (patch.idleTimeout !== undefined) for (const ledger of this.#ledgersOf(entry)) ledger.changed(entry)
    this.#invalidate([id])
    return recordOf(entry)
  }

  async rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome> {
    const entry = this.#alive(id)
    if (entry === undefined) return this.#endedSince(id, op)

    const now = this.now()
    const verdict = judgeRotation(entry, presented, op, now)
    switch (verdict) {
      case 'unknown':
        return { status: 'unknown' }
      case 'client': case 'binding':
        return { status: 'refused', by: verdict }
      case 'again':
        return { status: 'rotated', session: recordOf(entry), recovered: false }
      case 'repeat':
        return { status: 'repeated', session: recordOf(entry) }
      case 'reuse_recent': case 'reuse_stale': {
        const ended = this.#endEntries([entry, ...this.#cameOf(entry)], { reason: verdict, by: presented.by, op })
        return { status: 'reused', ending: endingOf(entry as EndedEntry), ended } // it has just ended
      }
      case 'advance': case 'recover':
        Object.assign(entry, { generation: presented.generation + 1, kid: presented.kid, rotatedAt: now, lastUsedAt: Math.max(entry.lastUsedAt, now), op })
        this.#invalidate([id])
        return { status: 'rotated', session: recordOf(entry), recovered: verdict === 'recover' }
    }
  }

  async touch (uses: readonly SessionUse[]): Promise<void> {
    for (const { id, at } of uses) {
      const entry = this.#alive(id)
      if (entry !== undefined && at > entry.lastUsedAt) entry.lastUsedAt = at
    }
  }

  async end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]> {
    const ended: SessionRecord[] = []
    for (const id of new Set(ids)) {
      const entry = this.#known(id)
      if (entry === undefined) continue
      if (!isEnded(entry)) ended.push(...this.#endEntries([entry], cause))
      else if (entry.ended.cause.op === cause.op) ended.push(recordOf(entry))
    }
    return ended
  }

  async endAll ({ tenant, sub, except = [] }: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    const before = this.#endings.of(cause.op)
    const [first] = before
    if (first !== undefined) {
      told?.(before.map(recordOf), first.ended.at)
      return before.filter(({ use }) => use !== 'once').length
    }

    const subject = this.#subjects.get(subjectKey({ tenant, sub }))
    if (subject === undefined) return 0

    // All are found before any is ended: what is issued from here on is not among them.
    const kept = new Set(except)
    const doomed = [...subject.entries]

    let count = 0
    for (let start = 0; start < doomed.length; start += ENDED_AT_ONCE) {
      if (start > 0) await setImmediate()
      const slice = doomed.slice(start, start + ENDED_AT_ONCE).filter(entry => !kept.has(entry.id) && subject.entries.has(entry) && this.#lives(entry))
      const ended = this.#endEntries(slice, cause, told !== undefined)
      count += slice.reduce((sum, { use }) => use === 'once' ? sum : sum + 1, 0)
      if (ended.length > 0) told?.(ended, this.now())
    }
    return count
  }

  async ending (id: string): Promise<Ending | null> {
    const entry = this.#known(id)
    return entry !== undefined && isEnded(entry) ? endingOf(entry) : null
  }

  async find (query: SessionQuery, { limit, cursor = null }: Page): Promise<FoundSessions> {
    const before = sequenceOf(cursor)
    let found: Entry[] = []
    await this.#search(query, entry => {
      if (entry.sequence >= before) return
      found.push(entry)
      // Enough for two pages: keep the newest of them, and look on.
      if (found.length > 2 * limit) found = newest(found, limit + 1)
    })
    found = newest(found, limit + 1)
    const last = found[limit - 1]
    const more = found.length > limit && last !== undefined
    return { sessions: found.slice(0, limit).map(recordOf), cursor: more ? last.sequence.toString(36) : null }
  }

  async count (query: SessionQuery): Promise<number> {
    let count = 0
    await this.#search(query, () => count++)
    return count
  }

  async * subjects (tenant?: string): AsyncGenerator<Subject> {
    let until = performance.now() + SLICE
    for (const [, subject] of this.#subjects) {
      if (performance.now() > until) {
        await setImmediate()
        until = performance.now() + SLICE
      }
      const asked = tenant === undefined || subject.tenant === tenant
      if (asked && [...subject.entries].some(entry => entry.use !== 'once' && this.#lives(entry))) yield { tenant: subject.tenant, sub: subject.sub }
    }
  }

  figures (): Record<string, number> {
    return { sessions: this.#size, removed: this.#expired }
  }

  async mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    return this.#marks.add(purpose, key, expiresAt)
  }

  marked (purpose: string, key: string, issuedAt?: number): boolean {
    return this.#marks.has(purpose, key) || (issuedAt !== undefined && issuedAt < this.#bornAt)
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
    return { status: 'ok', latency: 0, sessions: this.#size }
  }

  async close (): Promise<void> {
    clearTimeout(this.#sweepTimer)
    this.#sessions.clear()
    this.#subjects.clear()
    this.#endings.clear()
    this.#marks.clear()
    this.documents.clear()
    this.#tenants.clear()
    this.#size = 0
  }

  /** The entry of a session that lives. */
  #alive (id: string): Entry | undefined {
    const entry = this.#sessions.get(id)
    return entry !== undefined && this.#lives(entry) ? entry : undefined
  }

  /** The entry of a session that lives, or whose ending is remembered. */
  #known (id: string): Entry | undefined {
    const entry = this.#sessions.get(id)
    if (entry === undefined || this.#lives(entry)) return entry
    return isEnded(entry) && this.#endings.isPast(entry) ? undefined : entry
  }

  /** What has expired is ended on sight. */
  #lives (entry: Entry): boolean {
    if (isEnded(entry)) return false
    if (deadlineOf(entry) > this.now()) return true
    this.#expire(entry)
    return false
  }

  /** Ends what stands in the way of new sessions, or says what refuses them. */
  #makeRoom (subject: SubjectEntries, own: readonly SessionRecord[], options: InsertOptions) {
    const { limits = [], endOthers = [], op } = options
    if (limits.length + endOthers.length === 0) return { evicted: [], refused: null }
    const { victims, refused } = judgeLimits(this.#holdingsOf(subject), own, options)
    const evicted = Array.from(victims, ([entry, cause]) => {
      this.#endEntries([entry], { ...cause, op }, false)
      return endedOf(entry as EndedEntry) // it has just ended
    })
    return { evicted, refused }
  }

  #holdingsOf (subject: SubjectEntries): Holdings<Entry> {
    const settled = (ledger: Ledger): Ledger => {
      ledger.settle(entry => this.#lives(entry), this.now())
      return ledger
    }
    return {
      counted: (group = '') => settled(this.#ledgerOf(subject, group)),
      countedOfTenant: (group = '') => settled(this.#tenants.get(`${subject.tenant}\n${group}`) ?? new Ledger()),
      named: ids => [...new Set(ids)].map(id => this.#alive(id)).filter(entry => entry !== undefined && entry.use !== 'once' && entry.subject === subject) as Entry[] // none that is undefined
    }
  }

  /** The ledger of all sessions is made when it is asked for; those of groups, by the sessions that have them. */
  #ledgerOf (subject: SubjectEntries, group: string): Ledger {
    const known = subject.ledgers?.get(group)
    if (known !== undefined) return known
    const ledger = new Ledger()
    if (group === '') {
      for (const entry of subject.entries) if (entry.use !== 'once') ledger.add(entry)
      subject.ledgers ??= new Map()
      subject.ledgers.set('', ledger)
    }
    return ledger
  }

  #evictedBy (op: string): EndedSession[] | null {
    const entries = this.#endings.of(op)
    return entries.length === 0 ? null : entries.map(endedOf)
  }

  #add (record: SessionRecord, subject: SubjectEntries): Entry {
    const entry = entryOf(record, subject, ++this.#sequence)
    this.#sessions.set(entry.id, entry)
    this.#subjects.set(subject.key, subject)
    subject.entries.add(entry)
    if (entry.use !== 'once') {
      subject.ledgers?.get('')?.add(entry)
      this.#size++
    }
    this.#list(entry, entry.groups)
    return entry
  }

  /** Has limits on groups count it. */
  #list (entry: Entry, groups: readonly string[]): void {
    const { subject, use } = entry
    if (use === 'once' || groups.length === 0) return
    subject.ledgers ??= new Map()
    for (const group of groups) {
      const [ledgers, name] = this.#placeOf(group, subject)
      const ledger = ledgers?.get(name) ?? new Ledger()
      ledgers?.set(name, ledger)
      ledger.add(entry)
    }
  }

  #unlist (entry: Entry, groups: readonly string[]): void {
    for (const group of groups) {
      const [ledgers, name] = this.#placeOf(group, entry.subject)
      const ledger = ledgers?.get(name)
      ledger?.delete(entry)
      if (ledger?.size === 0) ledgers?.delete(name)
    }
  }

  /** Those that count it. */
  #ledgersOf ({ subject, groups }: Entry): Ledger[] {
    const places = groups.map(group => this.#placeOf(group, subject))
    return [subject.ledgers?.get(''), ...places.map(([ledgers, name]) => ledgers?.get(name))].filter(ledger => ledger !== undefined)
  }

  /** Where the ledger of a group is, and its name there. */
  #placeOf (group: string, subject: SubjectEntries): [Map<string, Ledger> | null, string] {
    return group.startsWith(TENANT_GROUP) ? [this.#tenants, `${subject.tenant}\n${group}`] : [subject.ledgers, group]
  }

  /** What this very operation stored already, also where it has ended since: a repetition revives nothing. */
  #storedBefore (records: readonly SessionRecord[], subject: SubjectEntries, op: string): Entry[] | null {
    const entries: Entry[] = []
    for (const { id } of records) {
      const entry = this.#known(id)
      if (entry?.op !== op || entry.subject.key !== subject.key) return null
      entries.push(entry)
    }
    return entries
  }

  #refusal (records: readonly SessionRecord[], subject: SubjectEntries): { reason: 'exists' | 'origin', id: string } | null {
    const ids = new Set<string>()
    for (const { id, origin } of records) {
      if (ids.has(id) || this.#known(id) !== undefined) return { reason: 'exists', id }
      if (origin !== null && !this.#isConsumed(origin, subject)) return { reason: 'origin', id: origin }
      ids.add(id)
    }
    return null
  }

  #isConsumed (origin: string, subject: SubjectEntries): boolean {
    const entry = this.#alive(origin)
    return entry?.use === 'once' && entry.generation > 0 && entry.subject.key === subject.key
  }

  /** Not in the index before its first session is. */
  #subjectOf ({ tenant, sub }: Subject): SubjectEntries {
    const key = subjectKey({ tenant, sub })
    return this.#subjects.get(key) ?? { key, tenant, sub, entries: new Set(), ledgers: null }
  }

  #cameOf (origin: Entry): Entry[] {
    return origin.use === 'once' ? [...origin.subject.entries].filter(entry => entry.origin === origin.id) : []
  }

  /** The answer for a session that does not live: the first one again where the operation is repeated. */
  #endedSince (id: string, op: string): RotateOutcome {
    const entry = this.#known(id)
    if (entry === undefined || !isEnded(entry)) return { status: 'unknown' }
    if (entry.op === op) return { status: 'rotated', session: recordOf(entry), recovered: false }
    if (entry.ended.cause.op !== op) return { status: 'unknown' }
    return { status: 'reused', ending: endingOf(entry), ended: this.#endings.of(op).map(recordOf) }
  }

  #endEntries (entries: readonly Entry[], cause: EndCause, wantRecords = true): SessionRecord[] {
    if (entries.length === 0) return []
    const ended = this.#endings.ended(cause)
    this.#endings.add(entries.map(entry => this.#markEnded(entry, ended)), cause.op)
    this.#invalidate(entries.map(({ id }) => id))
    return wantRecords ? entries.map(recordOf) : []
  }

  #expire (entry: Entry): void {
    const at = deadlineOf(entry)
    const reason = at === entry.expiresAt ? 'expired' : 'idle'
    const expired = this.#markEnded(entry, this.#endings.ended({ reason, by: null, op: `${reason}:${entry.id}` }, at))
    this.#endings.addExpired(expired)
    this.#expired++
    this.#invalidate([entry.id])
    for (const listener of this.#expireListeners) listener(recordOf(expired), endingOf(expired))
  }

  #markEnded (entry: Entry, ended: Ended): EndedEntry {
    const { subject } = entry
    subject.entries.delete(entry)
    subject.ledgers?.get('')?.delete(entry)
    this.#unlist(entry, entry.groups)
    if (subject.entries.size === 0) this.#subjects.delete(subject.key)
    if (entry.use !== 'once') this.#size--
    entry.ended = ended
    return entry as EndedEntry // from here on
  }

  #forget (entry: EndedEntry): void {
    // Its id may have been taken since: that of an adopted token comes again.
    if (this.#sessions.get(entry.id) === entry) this.#sessions.delete(entry.id)
  }

  #invalidate (ids: readonly string[]): void {
    for (const listener of this.#invalidateListeners) listener(ids)
  }

  /** Gives each session that is asked for to `visit`: those of a subject at once, a search through all in slices. */
  async #search ({ tenant, sub, ...rest }: SessionQuery, visit: (entry: Entry) => void): Promise<void> {
    if (sub !== undefined && tenant !== undefined) {
      const subject = this.#subjects.get(subjectKey({ tenant, sub }))
      for (const entry of subject?.entries ?? []) if (matches(entry, rest) && this.#lives(entry)) visit(entry)
      return
    }
    let until = performance.now() + SLICE
    for (const [, entry] of this.#sessions) {
      if (performance.now() > until) {
        await setImmediate()
        until = performance.now() + SLICE
      }
      const { subject } = entry
      if ((tenant === undefined || subject.tenant === tenant) && (sub === undefined || subject.sub === sub) && matches(entry, rest) && this.#lives(entry)) visit(entry)
    }
  }

  /** Looks at everything that is kept, a piece a step; what is past goes. Each step tells whether something did. */
  * #pass (): Generator<boolean, undefined> {
    for (const [, entry] of this.#sessions) yield !isEnded(entry) && !this.#lives(entry)
    yield * this.#endings.sweep()
    yield * this.#marks.sweep()
    yield * this.documents.sweep()
  }

  #sweepLater (pass: Generator<boolean, undefined>, delay: number): NodeJS.Timeout {
    this.#sweepTimer = setTimeout(() => {
      const until = performance.now() + SLICE
      let pause = PAUSE.nothing
      while (performance.now() < until) {
        const { done, value: removed } = pass.next()
        if (done) return this.#sweepLater(this.#pass(), this.#sweepInterval)
        if (removed) pause = PAUSE.found
      }
      this.#sweepLater(pass, pause)
    }, delay).unref()
    return this.#sweepTimer
  }
}

function endedOf (entry: EndedEntry): EndedSession {
  return { session: recordOf(entry), ending: endingOf(entry) }
}

/** @see MemoryStore */
export function memoryStore (options?: MemoryStoreOptions): MemoryStore {
  return new MemoryStore(options)
}

function bySubject (records: readonly SessionRecord[]): ReadonlyArray<readonly SessionRecord[]> {
  const [first] = records
  if (records.length === 1 && first !== undefined) return [[first]]
  const groups = new Map<string, SessionRecord[]>()
  for (const record of records) {
    const key = subjectKey(record)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [record])
    else group.push(record)
  }
  return [...groups.values()]
}

function inOrderOf (records: readonly SessionRecord[], sessions: SessionRecord[]): void {
  const position = new Map(records.map(({ id }, index) => [id, index]))
  sessions.sort((a, b) => Number(position.get(a.id)) - Number(position.get(b.id)))
}

function newest (entries: Entry[], count: number): Entry[] {
  return entries.sort((a, b) => b.sequence - a.sequence).slice(0, count)
}

function sequenceOf (cursor: string | null): number {
  if (cursor === null) return Infinity
  const sequence = /^[0-9a-z]{1,10}$/.test(cursor) ? parseInt(cursor, 36) : NaN
  if (!Number.isSafeInteger(sequence)) throw new TokenValidation('cursor is not one that a list gave: pass it on as it came')
  return sequence
}
