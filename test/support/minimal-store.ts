import {
  deadlineOf, endingBy, holdingsOf, judgeLimits, judgeRotation, TokenValidation, type EndCause, type Ending, type FoundSessions, type InsertOptions, type InsertOutcome, type InsertRefusal, type Page, type Presented,
  type EndedSession, type LimitVerdict, type RequiredStore, type RotateOutcome, type SessionQuery, type SessionRecord, type StoreHealth, type Subject
} from '../../plugins/token-registry/index.ts'

interface Row {
  session: SessionRecord
  ended: Ending | null
}

/** A store that has only what it must have, and a clock, as one of its own is written at first: over one map. */
export class MinimalStore implements RequiredStore {
  readonly now: () => number
  readonly #rows = new Map<string, Row>()

  constructor (now = Date.now) {
    this.now = now
  }

  async insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    const { op, subject } = options
    const outcome: InsertOutcome = { inserted: [], evicted: [], refused: [] }
    if (records.length === 0 && subject !== undefined) {
      const before = this.#evictedBy(subjectOf(subject), op)
      outcome.evicted = before.length > 0 ? before : this.#evict(this.#judge(subject, [], options), op)
      return structuredClone(outcome)
    }
    const refused = new Set<string>()
    for (const key of new Set(records.map(subjectOf))) {
      const own = records.filter(record => subjectOf(record) === key)
      if (own.every(record => this.#isRepeated(record, op))) {
        outcome.evicted.push(...this.#evictedBy(key, op))
        continue
      }
      const verdict = this.#judge(own[0] as SessionRecord, own, options)
      const reason = this.#refusal(own) ?? verdict.refused
      if (reason === null) {
        outcome.evicted.push(...this.#evict(verdict, op))
        for (const record of own) this.#rows.set(record.id, { session: structuredClone(record), ended: null })
      } else {
        const { tenant, sub } = own[0] as SessionRecord
        outcome.refused.push({ ...reason, tenant, sub, ids: own.map(({ id }) => id) } as InsertRefusal)
        refused.add(key)
      }
    }
    outcome.inserted = records.filter(record => !refused.has(subjectOf(record))).map(({ id }) => this.#rows.get(id)?.session as SessionRecord)
    return structuredClone(outcome)
  }

  async get (id: string): Promise<SessionRecord | null> {
    return structuredClone(this.#live(id)?.session ?? null)
  }

  async rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome> {
    const row = this.#live(id)
    if (row === undefined) return this.#endedSince(id, op)
    const verdict = judgeRotation(row.session, presented, op, this.now())
    switch (verdict) {
      case 'unknown': return { status: 'unknown' }
      case 'client': case 'binding': return { status: 'refused', by: verdict }
      case 'again': return { status: 'rotated', session: structuredClone(row.session), recovered: false }
      case 'repeat': return { status: 'repeated', session: structuredClone(row.session) }
      case 'reuse_recent': case 'reuse_stale': {
        const came = this.#rowsOf(subjectOf(row.session)).filter(({ session }) => session.origin === id)
        this.#end([row, ...came], { reason: verdict, by: presented.by, op })
        return this.#endedSince(id, op)
      }
    }
    const now = this.now()
    Object.assign(row.session, { generation: presented.generation + 1, kid: presented.kid, rotatedAt: now, lastUsedAt: now, op })
    return { status: 'rotated', session: structuredClone(row.session), recovered: verdict === 'recover' }
  }

  async end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]> {
    const rows = [...new Set(ids)].map(id => this.#live(id) ?? this.#endedBy(id, cause.op)).filter(row => row !== undefined)
    return structuredClone(this.#end(rows, cause))
  }

  async find (query: SessionQuery, { limit, cursor = null }: Page): Promise<FoundSessions> {
    if (cursor !== null && !this.#rows.has(cursor)) throw new TokenValidation('cursor is not one that a list gave')
    const newest = [...this.#rows.values()].reverse()
    const start = newest.findIndex(({ session }) => session.id === cursor) + 1
    const found = newest.slice(start).filter(row => this.#isLive(row) && matches(row.session, query)).map(({ session }) => session)
    return { sessions: structuredClone(found.slice(0, limit)), cursor: found.length > limit ? found[limit - 1]?.id ?? null : null }
  }

  async health (): Promise<StoreHealth> {
    return { status: 'ok', latency: 0, sessions: this.#rows.size }
  }

  #end (rows: readonly Row[], cause: EndCause): SessionRecord[] {
    for (const row of rows) {
      const { id, tenant, sub } = row.session
      row.ended ??= { ...cause, id, tenant, sub, at: this.now() }
    }
    return rows.map(({ session }) => session)
  }

  #isLive ({ session, ended }: Row): boolean {
    return ended === null && deadlineOf(session) > this.now()
  }

  #live (id: string): Row | undefined {
    const row = this.#rows.get(id)
    return row !== undefined && this.#isLive(row) ? row : undefined
  }

  /** What this very operation ended before: its repetition gets the same answer. */
  #endedBy (id: string, op: string): Row | undefined {
    const row = this.#rows.get(id)
    return row?.ended?.op === op ? row : undefined
  }

  #rowsOf (key: string): Row[] {
    return [...this.#rows.values()].filter(({ session }) => subjectOf(session) === key)
  }

  #isRepeated (record: SessionRecord, op: string): boolean {
    const session = this.#rows.get(record.id)?.session
    return session?.op === op && subjectOf(session) === subjectOf(record)
  }

  #refusal (own: readonly SessionRecord[]): { reason: 'exists' | 'origin', id: string } | null {
    for (const [index, { id, origin, ...subject }] of own.entries()) {
      const row = this.#rows.get(id)
      const taken = row !== undefined && (row.ended !== null || this.#isLive(row))
      if (taken || own.slice(0, index).some(before => before.id === id)) return { reason: 'exists', id }
      if (origin === null) continue
      const from = this.#live(origin)?.session
      if (from?.use !== 'once' || from.generation === 0 || subjectOf(from) !== subjectOf(subject)) return { reason: 'origin', id: origin }
    }
    return null
  }

  #judge ({ tenant, sub }: Subject, own: readonly SessionRecord[], options: InsertOptions): LimitVerdict<SessionRecord> {
    const live = [...this.#rows.values()].filter(row => this.#isLive(row) && row.session.tenant === tenant).map(({ session }) => session)
    return judgeLimits(holdingsOf(live, sub), own, options)
  }

  #evict ({ victims }: LimitVerdict<SessionRecord>, op: string): EndedSession[] {
    return Array.from(victims, ([session, cause]) => {
      const ending = endingBy(session, cause, op, this.now())
      this.#rows.set(session.id, { session, ended: ending })
      return { session, ending }
    })
  }

  #evictedBy (key: string, op: string): EndedSession[] {
    return this.#rowsOf(key).flatMap(({ session, ended }) => ended?.op === op ? [{ session, ending: ended }] : [])
  }

  #endedSince (id: string, op: string): RotateOutcome {
    const row = this.#rows.get(id)
    if (row?.session.op === op) return { status: 'rotated', session: structuredClone(row.session), recovered: false }
    if (row?.ended?.op !== op) return { status: 'unknown' }
    const came = this.#rowsOf(subjectOf(row.session)).filter(({ session, ended }) => session.origin === id && ended?.op === op)
    return { status: 'reused', ending: row.ended, ended: structuredClone([row, ...came].map(({ session }) => session)) }
  }
}

function subjectOf ({ tenant, sub }: { tenant: string, sub: string }): string {
  return JSON.stringify([tenant, sub])
}

function matches ({ use, meta, ...session }: SessionRecord, query: SessionQuery): boolean {
  return use !== 'once' &&
    (query.tenant ?? session.tenant) === session.tenant &&
    (query.sub ?? session.sub) === session.sub &&
    (query.client ?? session.client) === session.client &&
    (query.deviceId ?? meta.deviceId) === meta.deviceId &&
    (query.ipAddress ?? meta.ipAddress) === meta.ipAddress &&
    session.issuedAt >= (query.issuedAfter ?? 0) &&
    session.issuedAt < (query.issuedBefore ?? Infinity)
}
