import { randomUUID } from 'node:crypto'
import { StoreUnsupported, TokenOptions } from './errors.ts'
import type { EndCause, Ending, SessionRecord, Subject } from './record.ts'
import type {
  Documents, EndAllQuery, FoundSessions, InsertOptions, InsertOutcome, Page, Presented, RotateOutcome, SessionPatch, SessionQuery, SessionUse, StoreHealth, TokenStore
} from './store.ts'
import { adoptedId, subjectKey } from './token.ts'

/** What a store of one's own must have. */
export type RequiredStore = Pick<TokenStore, 'insert' | 'get' | 'rotate' | 'end' | 'find' | 'health'>

/** A store of one's own: the rest is completed from what it must have. */
export type PartialStore = RequiredStore & Partial<TokenStore>

const PAGE = 500
const required = ['insert', 'get', 'rotate', 'end', 'find', 'health'] as const
const optional = ['now', 'update', 'touch', 'endAll', 'ending', 'count', 'subjects', 'mark', 'marked', 'onInvalidate', 'onExpire', 'figures', 'close'] as const

/**
 * Completes a store. What is completed is slower: `count` and `endAll` read page by page, marks are records of one-time tokens.
 * A completed `endAll` ends what `find` finds: one-time tokens stay until they expire.
 *
 * Two things cannot be made from the rest: without `update`, `tokenRegistry.update` throws `FST_STORE_UNSUPPORTED`; without `touch`, so does
 * issuing a session with an idle timeout, since its last use would not be kept. Without `onInvalidate` nobody knows what other processes
 * end, so nothing is served from the cache.
 *
 * @throws {TokenOptions} where something that it must have is missing
 */
export function completeStore (store: PartialStore): TokenStore {
  const missing = required.filter(name => typeof store[name] !== 'function')
  if (missing.length > 0) throw new TokenOptions(`store lacks ${missing.join(', ')}`)
  return isComplete(store) ? store : new CompletedStore(store)
}

function isComplete (store: PartialStore): store is TokenStore {
  return optional.every(name => typeof store[name] === 'function') && store.name !== undefined && store.staleness !== undefined
}

class CompletedStore implements TokenStore {
  readonly name: string
  readonly #store: PartialStore
  readonly #listeners = new Set<(ids: readonly string[] | 'all') => void>()

  constructor (store: PartialStore) {
    this.#store = store
    this.name = store.name ?? 'custom'
  }

  get staleness (): number {
    return this.#store.staleness ?? (this.#store.onInvalidate === undefined ? Infinity : 0)
  }

  now (): number {
    return this.#store.now?.() ?? Date.now()
  }

  async insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    if (records.some(({ idleTimeout }) => idleTimeout !== null)) this.#needTouch()
    if (options.uses !== undefined && options.uses.length > 0) await this.touch(options.uses)
    try {
      const outcome = await this.#store.insert(records, options)
      this.#changed(outcome.evicted.map(({ session }) => session.id))
      return outcome
    } catch (error) {
      // Nobody knows whom it evicted.
      this.#changed('all')
      throw error
    }
  }

  async get (id: string): Promise<SessionRecord | null> {
    return await this.#store.get(id)
  }

  async update (id: string, patch: SessionPatch, revision?: number): Promise<SessionRecord | null> {
    if (this.#store.update === undefined) throw new StoreUnsupported(this.name, 'update')
    if (patch.idleTimeout != null) this.#needTouch()
    try {
      return await this.#store.update(id, patch, revision)
    } finally {
      this.#changed([id])
    }
  }

  async rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome> {
    let ids = [id]
    try {
      const outcome = await this.#store.rotate(id, presented, op)
      if (outcome.status === 'reused') ids = outcome.ended.map(session => session.id)
      return outcome
    } finally {
      this.#changed(ids)
    }
  }

  async touch (uses: readonly SessionUse[]): Promise<void> {
    await this.#store.touch?.(uses)
  }

  async end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]> {
    try {
      return await this.#store.end(ids, cause)
    } finally {
      this.#changed(ids)
    }
  }

  async endAll (of: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    if (this.#store.endAll !== undefined) return await this.#store.endAll(of, cause, told).finally(() => this.#changed('all'))
    const kept = new Set(of.except)
    // All are found before any is ended: what is issued meanwhile is not among them.
    const ids = (await this.#everything({ tenant: of.tenant, sub: of.sub })).map(({ id }) => id).filter(id => !kept.has(id))
    let count = 0
    for (let start = 0; start < ids.length; start += PAGE) {
      const ended = await this.end(ids.slice(start, start + PAGE), cause)
      count += ended.length
      told?.(ended, this.now())
    }
    return count
  }

  async ending (id: string): Promise<Ending | null> {
    return await this.#store.ending?.(id) ?? null
  }

  async find (query: SessionQuery, page: Page): Promise<FoundSessions> {
    return await this.#store.find(query, page)
  }

  async count (query: SessionQuery): Promise<number> {
    return await this.#store.count?.(query) ?? (await this.#everything(query)).length
  }

  async * subjects (tenant?: string): AsyncGenerator<Subject> {
    if (this.#store.subjects !== undefined) return yield * this.#store.subjects(tenant)
    const told = new Set<string>()
    for await (const { tenant: own, sub } of this.#pages(tenant === undefined ? {} : { tenant })) {
      const key = subjectKey({ tenant: own, sub })
      if (told.size < told.add(key).size) yield { tenant: own, sub }
    }
  }

  get documents (): Documents | undefined {
    return this.#store.documents
  }

  figures (): Record<string, number> {
    return this.#store.figures?.() ?? {}
  }

  async mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    if (this.#store.mark !== undefined) return await this.#store.mark(purpose, key, expiresAt)
    if (expiresAt <= this.now()) return !await this.marked(purpose, key)
    const record = markRecord(purpose, key, this.now(), expiresAt)
    const { refused } = await this.#store.insert([record], { op: record.op })
    return refused.length === 0
  }

  marked (purpose: string, key: string, issuedAt?: number): boolean | Promise<boolean> {
    return this.#store.marked?.(purpose, key, issuedAt) ?? this.#store.get(markId(purpose, key)).then(record => record !== null)
  }

  onInvalidate (listener: (ids: readonly string[] | 'all') => void): () => void {
    if (this.#store.onInvalidate !== undefined) return this.#store.onInvalidate(listener)
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  onExpire (listener: (session: SessionRecord, ending: Ending) => void): () => void {
    return this.#store.onExpire?.(listener) ?? (() => {})
  }

  async health (): Promise<StoreHealth> {
    return await this.#store.health()
  }

  async close (): Promise<void> {
    await this.#store.close?.()
  }

  #needTouch (): void {
    if (this.#store.touch === undefined) throw new StoreUnsupported(this.name, 'touch, which sessions with an idleTimeout need')
  }

  /** Tells at least this process what it changed itself, or may have where the store did not answer. */
  #changed (ids: readonly string[] | 'all'): void {
    for (const listener of this.#listeners) listener(ids)
  }

  async #everything (query: SessionQuery): Promise<SessionRecord[]> {
    const all: SessionRecord[] = []
    for await (const session of this.#pages(query)) all.push(session)
    return all
  }

  async * #pages (query: SessionQuery): AsyncGenerator<SessionRecord> {
    let cursor: string | null = null
    do {
      const page: FoundSessions = await this.#store.find(query, { limit: PAGE, cursor })
      yield * page.sessions
      cursor = page.cursor
    } while (cursor !== null)
  }
}

function markRecord (purpose: string, key: string, now: number, expiresAt: number): SessionRecord {
  return {
    id: markId(purpose, key),
    tenant: '',
    // Nobody's: the sub of a session has at least one character.
    sub: '',
    client: null,
    use: 'once',
    scope: [],
    groups: [],
    generation: 0,
    revision: 0,
    issuedAt: now,
    expiresAt,
    idleTimeout: null,
    lastUsedAt: now,
    rotatedAt: null,
    origin: null,
    binding: null,
    meta: {},
    kid: null,
    op: randomUUID()
  }
}

/** No token that can be adopted holds a NUL, so that no mark shares the id of a session. */
function markId (purpose: string, key: string): string {
  return adoptedId(`\0mark ${purpose.length}:${purpose}${key}`)
}
