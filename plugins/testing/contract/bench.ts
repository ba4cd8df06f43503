import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import type {
  EndCause, InsertOutcome, Presented, RequiredStore, RotateOutcome, SessionLimit, SessionQuery, SessionRecord, TokenStore
} from '../../token-registry/index.ts'
import { sessionRecord } from '../session.ts'

/** What a store of one's own may leave out. */
export type OptionalMethod = Exclude<keyof TokenStore, keyof RequiredStore | 'name' | 'staleness'>

/** A rule of the contract, and how it is checked. */
export interface Rule {
  name: string
  /** Left out for stores that lack one of them. */
  needs?: readonly OptionalMethod[]
  check: (bench: Bench) => Promise<void>
}

export type Draft = Partial<SessionRecord> & {
  /** ms; instead of `expiresAt` */
  ttl?: number
}

/** An empty store to check a rule on. */
export class Bench {
  readonly store: TokenStore
  readonly advance: (ms: number) => Promise<void>
  readonly #lacks: readonly OptionalMethod[]

  constructor (store: TokenStore, advance: (ms: number) => Promise<void>, lacks: readonly OptionalMethod[]) {
    this.store = store
    this.advance = advance
    this.#lacks = lacks
  }

  has (method: OptionalMethod): boolean {
    return !this.#lacks.includes(method)
  }

  /** A record that is not stored yet, by the store's clock. */
  record ({ ttl = 3_600_000, ...overrides }: Draft = {}): SessionRecord {
    const issuedAt = this.store.now()
    return sessionRecord({ issuedAt, expiresAt: issuedAt + ttl, ...overrides })
  }

  /** Stores records in one operation. */
  async insertAll (records: readonly SessionRecord[], limits: readonly SessionLimit[] = [], op: string = randomUUID()): Promise<InsertOutcome> {
    return await this.store.insert(records.map(record => ({ ...record, op })), { limits, op })
  }

  /** Stores a record that nothing refuses. @returns it as stored */
  async insert (draft: Draft = {}, limits: readonly SessionLimit[] = []): Promise<SessionRecord> {
    const { inserted: [session], refused } = await this.insertAll([this.record(draft)], limits)
    assert.deepEqual(refused, [])
    assert.ok(session !== undefined, 'what was not refused is inserted')
    return session
  }

  async insertMany (count: number, draft: Draft = {}): Promise<SessionRecord[]> {
    const { inserted, refused } = await this.insertAll(Array.from({ length: count }, () => this.record(draft)))
    assert.deepEqual(refused, [])
    assert.equal(inserted.length, count)
    return inserted
  }

  /** A one-time token that was consumed. */
  async insertConsumed (draft: Draft = {}): Promise<SessionRecord> {
    const { id } = await this.insert({ ...draft, use: 'once' })
    const outcome = await this.consume(id)
    assertStatus(outcome, 'rotated')
    return outcome.session
  }

  async rotate (id: string, generation: number, presented: Partial<Presented> = {}, op: string = randomUUID()): Promise<RotateOutcome> {
    return await this.store.rotate(id, { once: false, generation, kid: 1, binding: null, reuseWindow: 10_000, by: null, ...presented }, op)
  }

  async consume (id: string, presented: Partial<Presented> = {}, op: string = randomUUID()): Promise<RotateOutcome> {
    return await this.rotate(id, 0, { once: true, reuseWindow: 0, ...presented }, op)
  }

  async end (...ids: string[]): Promise<SessionRecord[]> {
    return await this.store.end(ids, because())
  }

  async lives (id: string): Promise<boolean> {
    return await this.store.get(id) !== null
  }

  /** Waits for what the store does in its own time, at most 6 s of its clock. */
  async until (condition: () => Promise<boolean>, what: string): Promise<void> {
    const until = this.store.now() + 6000
    while (!await condition()) {
      assert.ok(this.store.now() < until, what)
      await this.advance(50)
    }
  }

  async assertLives (...sessions: ReadonlyArray<{ id: string }>): Promise<void> {
    for (const { id } of sessions) assert.ok(await this.lives(id), `the session ${id} lives`)
  }

  async assertGone (...sessions: ReadonlyArray<{ id: string }>): Promise<void> {
    for (const { id } of sessions) assert.ok(!await this.lives(id), `the session ${id} is gone`)
  }

  /** Everything that a query finds, page by page. */
  async findAll (query: SessionQuery, limit = 500): Promise<SessionRecord[]> {
    const all: SessionRecord[] = []
    let cursor: string | null = null
    do {
      const page = await this.store.find(query, { limit, cursor })
      assert.ok(page.sessions.length <= limit, 'a page holds no more than was asked for')
      all.push(...page.sessions)
      cursor = page.cursor
    } while (cursor !== null)
    return all
  }

  /** Checks that a query finds, and counts, exactly these. */
  async assertFinds (query: SessionQuery, expected: ReadonlyArray<{ id: string }>): Promise<void> {
    const found = await this.findAll(query)
    assert.deepEqual(idsOf(found), idsOf(expected), `what ${JSON.stringify(query)} finds`)
    assert.equal(await this.store.count(query), expected.length, `what ${JSON.stringify(query)} counts`)
  }
}

export function because (reason = 'revoked', by: string | null = null): EndCause {
  return { reason, by, op: randomUUID() }
}

/** Checks how a rotation came out. */
export function assertStatus<Status extends RotateOutcome['status']> (outcome: RotateOutcome, status: Status): asserts outcome is Extract<RotateOutcome, { status: Status }> {
  assert.equal(outcome.status, status)
}

export function evictedOf ({ evicted }: Pick<InsertOutcome, 'evicted'>): SessionRecord[] {
  return evicted.map(({ session }) => session)
}

/** Sorted, to be compared where order does not matter. */
export function idsOf (sessions: ReadonlyArray<{ id: string }>): string[] {
  return sessions.map(({ id }) => id).sort()
}

export async function inParallel<T> (count: number, work: (index: number) => Promise<T>): Promise<T[]> {
  return await Promise.all(Array.from({ length: count }, async (_, index) => await work(index)))
}

/** Waits for what the store tells in its own time, at most a second. */
export async function eventually (condition: () => boolean, what: string): Promise<void> {
  const until = performance.now() + 1000
  while (!condition()) {
    assert.ok(performance.now() < until, what)
    await setTimeout(10)
  }
}
