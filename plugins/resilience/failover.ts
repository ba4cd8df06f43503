import {
  StoreUnavailable, type Documents, type EndAllQuery, type EndCause, type Ending, type FoundSessions, type InsertOptions, type InsertOutcome, type Page, type Presented,
  type RotateOutcome, type SessionPatch, type SessionQuery, type SessionRecord, type SessionUse, type StoreHealth, type Subject, type TokenStore
} from '../token-registry/index.ts'
import { mergedFind } from './merged-find.ts'
import { resolveOptions, type FailoverOptions, type ResolvedFailover } from './options.ts'
import { Watch, within } from './watch.ts'

/**
 * A store on two: while the primary is away, new sessions live on the secondary.
 *
 * Each session stays where it was issued, until it ends. The primary is asked first, and the secondary for what that does not know; so no
 * session is ever moved, copied, or rotated in two places. While the primary is away the secondary alone is asked, and what it does not know
 * is `FST_STORE_UNAVAILABLE`: the primary may know it.
 */
export class FailoverStore implements TokenStore {
  readonly name: string
  readonly #primary: TokenStore
  readonly #secondary: TokenStore
  readonly #watch: Watch
  readonly #options: ResolvedFailover
  readonly #listeners = new Set<(ids: 'all') => void>()
  /** By the clock that sessions are issued by. */
  #switchedAt = -Infinity
  #reason = ''
  #switches = 0
  /** Whether anything is known to live on the secondary. Before, its state is nobody's concern. */
  #used = false

  constructor (options: ResolvedFailover) {
    const { primary, secondary } = options
    this.name = `failover(${primary.name}, ${secondary.name})`
    this.#primary = primary
    this.#secondary = secondary
    this.#options = options
    this.#watch = new Watch(options, ({ to, reason, done }) => {
      // The cache may be used again from here on: what it knows of the primary is of before.
      if (to === 'primary') for (const listener of this.#listeners) listener('all')
      done()
      this.#switchedAt = this.now()
      this.#switches++
      this.#reason = reason
      // At once; and whether it throws or rejects, the switch stands.
      new Promise<unknown>(resolve => resolve(options.onSwitch({ to, reason }))).catch((error: unknown) => {
        process.emitWarning(error instanceof Error ? error : String(error))
      })
    })
  }

  /** Which store new sessions are issued on. */
  get active (): 'primary' | 'secondary' {
    return this.#watch.away ? 'secondary' : 'primary'
  }

  /** While the primary is away it proves nothing, whatever it says: so nothing is served from the cache, but where a route allows it (`serveCachedFor`). */
  get staleness (): number {
    const away = this.#watch.away ? performance.now() - this.#watch.healthyAt : 0
    return Math.max(this.#primary.staleness, this.#used ? this.#secondary.staleness : 0, away)
  }

  /** Of the primary, which knows it also while it is away: one clock for all sessions. */
  now (): number {
    return this.#primary.now()
  }

  async insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    // It may be a repetition, and the other store may have these sessions: then they would live twice.
    if (records.some(({ issuedAt }) => issuedAt <= this.#switchedAt)) throw new StoreUnavailable('insert was begun before another store took over')
    return this.#watch.away ? await this.#insertWhileAway(records, options) : await this.#insert(records, options)
  }

  async get (id: string): Promise<SessionRecord | null> {
    return await this.#run('get', id, store => store.get(id), isNull)
  }

  async update (id: string, patch: SessionPatch, revision?: number): Promise<SessionRecord | null> {
    return await this.#run('update', id, store => store.update(id, patch, revision), isNull)
  }

  async rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome> {
    return await this.#run('rotate', id, store => store.rotate(id, presented, op), ({ status }) => status === 'unknown')
  }

  async touch (uses: readonly SessionUse[]): Promise<void> {
    const there = this.#secondary.touch(uses)
    // Where nothing lives there nobody waits for it, and whether it fails is no matter.
    there.catch(() => {})
    if (!this.#watch.away) await this.#watch.ask(primary => primary.touch(uses))
    if (this.#used) await there
  }

  async end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]> {
    const { away } = this.#watch
    const here = away ? [] : await this.#watch.ask(primary => primary.end(ids, cause))
    const rest = without(ids, here)
    const there = rest.length === 0 ? [] : await this.#secondary.end(rest, cause)
    if (away) for (const id of without(rest, there)) await this.#needEnding('end', id)
    return inOrderOf(ids, [...here, ...there])
  }

  /** Throws where it could not reach both, having ended what it reached. */
  async endAll (of: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number> {
    const { away } = this.#watch
    const [here, there] = await bothDone(
      async () => {
        if (away) throw unavailable('endAll')
        return await this.#watch.ask(primary => primary.endAll(of, cause, told))
      },
      async () => await this.#secondary.endAll(of, cause, told)
    )
    return here + there
  }

  async ending (id: string): Promise<Ending | null> {
    return await this.#run('ending', id, store => store.ending(id), isNull)
  }

  async find (query: SessionQuery, page: Page): Promise<FoundSessions> {
    if (this.#watch.away) throw unavailable('find')
    return await mergedFind([
      (...asked) => this.#watch.ask(primary => primary.find(...asked)),
      (...asked) => this.#secondary.find(...asked)
    ], query, page)
  }

  async count (query: SessionQuery): Promise<number> {
    if (this.#watch.away) throw unavailable('count')
    return await this.#watch.ask(primary => primary.count(query)) + await this.#secondary.count(query)
  }

  async * subjects (tenant?: string): AsyncGenerator<Subject> {
    if (this.#watch.away) throw unavailable('subjects')
    yield * this.#primary.subjects(tenant)
    yield * this.#secondary.subjects(tenant)
  }

  /** On the primary alone, as marks are. */
  get documents (): Documents | undefined {
    const { documents } = this.#primary
    const reach = async <T> (call: () => Promise<T>): Promise<T> => {
      if (this.#watch.away) throw unavailable('documents')
      return await this.#watch.ask(call)
    }
    return documents && { read: async (...of) => await reach(() => documents.read(...of)), write: async (...of) => await reach(() => documents.write(...of)) }
  }

  figures (): Record<string, number> {
    return { ...this.#primary.figures(), away: Number(this.#watch.away), switches: this.#switches }
  }

  /** Marks live on the primary alone: that one stands on no list proves something only where every process writes it on the same. */
  async mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    if (this.#watch.away) throw unavailable('mark')
    return await this.#watch.ask(primary => primary.mark(purpose, key, expiresAt))
  }

  marked (purpose: string, key: string, issuedAt?: number): boolean | Promise<boolean> {
    if (this.#watch.away) throw unavailable('marked')
    return this.#primary.marked(purpose, key, issuedAt)
  }

  onInvalidate (listener: (ids: readonly string[] | 'all') => void): () => void {
    // A function of its own: one that listens twice may stop once.
    const own = (ids: readonly string[] | 'all'): void => listener(ids)
    const stops = [this.#primary.onInvalidate(own), this.#secondary.onInvalidate(own)]
    this.#listeners.add(own)
    return () => {
      this.#listeners.delete(own)
      for (const stop of stops) stop()
    }
  }

  onExpire (listener: (session: SessionRecord, ending: Ending) => void): () => void {
    const stops = [this.#primary.onExpire(listener), this.#secondary.onExpire(listener)]
    return () => { for (const stop of stops) stop() }
  }

  /** `degraded` while the secondary is in use, and while it could not be. */
  async health (): Promise<StoreHealth> {
    if (this.#watch.away) {
      const health = await this.#secondary.health()
      const detail = `the primary (${this.#primary.name}) is away since ${new Date(this.#switchedAt).toISOString()}: ${this.#reason}`
      return { ...health, status: health.status === 'fail' ? 'fail' : 'degraded', detail: [detail, health.detail].filter(Boolean).join('; ') }
    }
    const [primary, secondary] = await Promise.all([this.#primary.health(), this.#healthOfSecondary()])
    if (primary.status !== 'ok' || secondary.status === 'ok') return primary
    return { ...primary, status: 'degraded', detail: `the secondary (${this.#secondary.name}) could not take over: ${secondary.detail ?? `its health is "${secondary.status}"`}` }
  }

  /** Ends the checks, and closes both stores. */
  async close (): Promise<void> {
    this.#watch.close()
    await bothDone(async () => await this.#primary.close(), async () => await this.#secondary.close())
  }

  async #healthOfSecondary (): Promise<Pick<StoreHealth, 'status' | 'detail'>> {
    return await within(() => this.#secondary.health(), this.#options.checkTimeout).catch(({ message }: Error) => ({ status: 'fail', detail: message }))
  }

  async #insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    const outcome = await this.#watch.ask(primary => primary.insert(records, options))
    // What comes of a one-time token lives where that does.
    const moved = new Set<string>()
    const refused: InsertOutcome['refused'] = []
    for (const refusal of outcome.refused) {
      if (refusal.reason === 'origin' && await this.#secondaryKnows(refusal.id)) for (const id of refusal.ids) moved.add(id)
      else refused.push(refusal)
    }
    if (moved.size === 0) return outcome
    const there = await this.#secondary.insert(records.filter(({ id }) => moved.has(id)), options)
    return {
      inserted: inOrderOf(records.map(({ id }) => id), [...outcome.inserted, ...there.inserted]),
      evicted: [...outcome.evicted, ...there.evicted],
      refused: [...refused, ...there.refused]
    }
  }

  async #insertWhileAway (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome> {
    for (const { kid, origin } of records) {
      // The id of an adopted token comes from the token: the primary may know that it was saved, and that it was ended.
      if (kid === null) throw unavailable('insert of an adopted token')
      if (origin !== null && !await this.#secondaryKnows(origin)) throw unavailable('insert')
    }
    this.#used = true
    return await this.#secondary.insert(records, options)
  }

  /** Makes a call that is about one session where that lives. */
  async #run<T> (operation: string, id: string, call: (store: TokenStore) => Promise<T>, isUnknown: (answer: T) => boolean): Promise<T> {
    const { away } = this.#watch
    if (!away) {
      const answer = await this.#watch.ask(call)
      if (!isUnknown(answer)) return answer
    }
    const answer = await call(this.#secondary)
    if (!isUnknown(answer)) this.#used = true
    else if (away && !await this.#secondaryKnows(id)) throw unavailable(operation)
    return answer
  }

  /** Whether a session lives there, or its ending is still kept. */
  async #secondaryKnows (id: string): Promise<boolean> {
    return await this.#secondary.get(id) !== null || await this.#secondary.ending(id) !== null
  }

  /** What did not end on the secondary just now had ended there before, or is not known. */
  async #needEnding (operation: string, id: string): Promise<void> {
    if (await this.#secondary.ending(id) === null) throw unavailable(operation)
  }
}

/**
 * Keeps a service running while its store is away: sign-ins go on on a second store, and sessions that live on the first are answered 503, never 401.
 *
 * @returns a store; `active` tells which of the two is in use
 * @throws {ResilienceOptions}
 * @example
 * const primary = await createRedisStore({ url: 'redis://127.0.0.1' })
 * const store = failover({ primary, secondary: memoryStore({ now: () => primary.now() }), onSwitch: event => fastify.log.warn(event) })
 * await fastify.register(tokenRegistry, { secret, store })
 */
export function failover (options: FailoverOptions): FailoverStore {
  return new FailoverStore(resolveOptions(options))
}

function unavailable (operation: string): Error {
  return new StoreUnavailable(`${operation} while the primary is away`)
}

/** Does both to the end, also where one of them fails. */
async function bothDone<T> (one: () => Promise<T>, other: () => Promise<T>): Promise<[T, T]> {
  const [first, second] = await Promise.allSettled([one(), other()])
  if (first.status === 'rejected') throw first.reason
  if (second.status === 'rejected') throw second.reason
  return [first.value, second.value]
}

function isNull (answer: unknown): boolean {
  return answer === null
}

/** Each once. */
function without (ids: readonly string[], sessions: readonly SessionRecord[]): string[] {
  const gone = new Set(sessions.map(({ id }) => id))
  return [...new Set(ids)].filter(id => !gone.has(id))
}

function inOrderOf (ids: readonly string[], sessions: readonly SessionRecord[]): SessionRecord[] {
  const byId = new Map(sessions.map(session => [session.id, session]))
  return [...new Set(ids)].map(id => byId.get(id)).filter(session => session !== undefined)
}
