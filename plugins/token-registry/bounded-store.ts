import { within } from './deadline.ts'
import { StoreTimeout, StoreUnavailable } from './errors.ts'
import type { Observers } from './observers.ts'
import type { EndCause, Ending, SessionRecord, Subject } from './record.ts'
import type {
  Documents, EndAllQuery, FoundSessions, InsertOptions, InsertOutcome, Page, Presented, RotateOutcome, SessionPatch, SessionQuery, SessionUse, StoreHealth, TokenStore
} from './store.ts'

/**
 * A store every call of which ends in time, and fails with an error that says whose fault it is: `FST_STORE_TIMEOUT` past the deadline,
 * `FST_STORE_UNAVAILABLE` for whatever the store threw that has no code of its own.
 */
export class BoundedStore implements TokenStore {
  readonly #store: TokenStore
  readonly #timeout: number
  readonly #observers: Observers
  readonly #failed: (error: Error, operation: string) => void

  /**
   * @param timeout ms that a call may take
   * @param failed is told each critical error
   */
  constructor (store: TokenStore, timeout: number, observers: Observers, failed: (error: Error, operation: string) => void) {
    this.#store = store
    this.#timeout = timeout
    this.#observers = observers
    this.#failed = failed
  }

  get name (): string { return this.#store.name }
  get staleness (): number { return this.#store.staleness }
  now (): number { return this.#store.now() }

  insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    return this.#bounded('insert', () => this.#store.insert(records, options))
  }

  get (id: string): Promise<SessionRecord | null> {
    return this.#bounded('get', () => this.#store.get(id))
  }

  update (id: string, patch: SessionPatch, revision?: number): Promise<SessionRecord | null> {
    return this.#bounded('update', () => this.#store.update(id, patch, revision))
  }

  rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome> {
    return this.#bounded('rotate', () => this.#store.rotate(id, presented, op))
  }

  touch (uses: readonly SessionUse[]): Promise<void> {
    return this.#bounded('touch', () => this.#store.touch(uses))
  }

  end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]> {
    return this.#bounded('end', () => this.#store.end(ids, cause))
  }

  endAll (of: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    return this.#bounded('endAll', () => this.#store.endAll(of, cause, told))
  }

  ending (id: string): Promise<Ending | null> {
    return this.#bounded('ending', () => this.#store.ending(id))
  }

  find (query: SessionQuery, page: Page): Promise<FoundSessions> {
    return this.#bounded('find', () => this.#store.find(query, page))
  }

  count (query: SessionQuery): Promise<number> {
    return this.#bounded('count', () => this.#store.count(query))
  }

  async * subjects (tenant?: string): AsyncGenerator<Subject> {
    const all = this.#store.subjects(tenant)[Symbol.asyncIterator]()
    for (;;) {
      const { done, value } = await this.#bounded('subjects', async () => await all.next())
      if (done === true) return
      yield value
    }
  }

  mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    return this.#bounded('mark', () => this.#store.mark(purpose, key, expiresAt))
  }

  marked (purpose: string, key: string, issuedAt?: number): boolean | Promise<boolean> {
    try {
      const answer = this.#store.marked(purpose, key, issuedAt)
      return typeof answer === 'boolean' ? answer : this.#bounded('marked', () => answer)
    } catch (error) {
      throw this.#named(error, 'marked')
    }
  }

  onInvalidate (listener: (ids: readonly string[] | 'all') => void): () => void {
    return this.#store.onInvalidate(listener)
  }

  onExpire (listener: (session: SessionRecord, ending: Ending) => void): () => void {
    return this.#store.onExpire(listener)
  }

  get documents (): Documents | undefined {
    const { documents } = this.#store
    return documents && {
      read: (...of) => this.#bounded('read', () => documents.read(...of)),
      write: (...of) => this.#bounded('write', () => documents.write(...of))
    }
  }

  figures (): Record<string, number> {
    return this.#store.figures()
  }

  async health (): Promise<StoreHealth> {
    const began = performance.now()
    return await this.#bounded('health', () => this.#store.health())
      .catch(({ message }: Error): StoreHealth => ({ status: 'fail', latency: performance.now() - began, detail: message }))
  }

  close (): Promise<void> {
    return this.#bounded('close', () => this.#store.close())
  }

  #bounded<T> (operation: string, call: () => Promise<T>): Promise<T> {
    return this.#observers.run({ layer: 'store', name: operation, request: null }, async () => await this.#inTime(operation, call))
  }

  async #inTime<T> (operation: string, call: () => Promise<T>): Promise<T> {
    try {
      return await within(call(), this.#timeout, () => new StoreTimeout(operation, this.#timeout))
    } catch (error) {
      throw this.#named(error, operation)
    }
  }

  #named (error: unknown, operation: string): Error {
    // A status alone is no sign of an error of ours: a driver that speaks HTTP has its own.
    const known = error instanceof Error && 'critical' in error ? error : new StoreUnavailable(operation, { cause: error })
    if (known.critical === true) this.#failed(known, operation)
    return known
  }
}
