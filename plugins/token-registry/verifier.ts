import type { FastifyRequest } from 'fastify'
import { authFrom, type Auth } from './auth.ts'
import { SessionCache, type CachedToken, type Read } from './cache.ts'
import { isThenable } from './deadline.ts'
import { TokenExpired, TokenInvalid, TokenMismatch, TokenReused, TokenRevoked } from './errors.ts'
import type { HookContext, HookRunner } from './hooks.ts'
import { LastUse } from './last-use.ts'
import type { Observers } from './observers.ts'
import type { Ending, SessionRecord, Subject } from './record.ts'
import { authenticates, provesUntil, type Claim, type TokenOpener } from './opener.ts'
import type { Stats } from './stats.ts'
import type { SessionUse, TokenStore } from './store.ts'

/** Who presents a token, besides the token itself. */
export interface Proof {
  /** The OAuth client; not compared where it is left out. */
  client?: string | null
  /** RFC 7638 thumbprint of the key that the caller proved to hold. */
  binding?: string | null
}

export interface VerifierOptions {
  cache: { max: number, maxStaleness: number }
  /** ms */
  reuseWindow: number
  newContext: (operation: HookContext['operation']) => HookContext
  observers: Observers
  log: (error: unknown, message: string) => void
}

/** `#notedFor`, unless each use counts */
const NOTED_FOR = 60_000

/** From a token to who presents it: cache → store → cache. */
export class Verifier {
  readonly #store: TokenStore
  readonly #opener: TokenOpener
  readonly #hooks: HookRunner
  readonly #stats: Stats
  readonly #options: VerifierOptions
  readonly #cache: SessionCache
  readonly #lastUse: LastUse
  /** ms for which a use of a session that cannot go idle stands for those after it */
  #notedFor = NOTED_FOR

  constructor (store: TokenStore, opener: TokenOpener, hooks: HookRunner, stats: Stats, options: VerifierOptions) {
    this.#store = store
    this.#opener = opener
    this.#hooks = hooks
    this.#stats = stats
    this.#options = options
    this.#cache = new SessionCache(store, options.cache.max, options.cache.maxStaleness)
    // A use that could not be written is noted again by the next one.
    this.#lastUse = new LastUse(async uses => await store.touch(uses).catch(error => options.log(error, 'last uses were not written')))
    stats.register('cache', () => ({ ...this.#cache.stats, tokens: this.#cache.size, staleness: store.staleness }))
  }

  /** From now on each use counts, and `usesOf` knows. */
  compareUses (): void {
    this.#notedFor = -Infinity
    this.#lastUse.compare()
  }

  /** Last uses of a subject's sessions in this process that the store may not know, where they are compared. */
  usesOf (subject: Subject): SessionUse[] {
    return this.#lastUse.usesOf(subject)
  }

  invalidate (ids: readonly string[] | 'all'): void {
    this.#cache.invalidate(ids)
  }

  /** What a token proves, by its key, where that is known for certain and the token alone proves it: the part of `verify` that waits for nothing. */
  cached (key: string): Auth | undefined {
    const fresh = this.#cache.fresh(key)
    if (fresh !== undefined) return fresh.auth
    const cached = this.#cache.lookup(key, true)
    if (cached === undefined) return undefined
    this.#noteUse(cached)
    return cached.auth
  }

  /** What a token proved, by its key, when the store was last heard of, at most `age` ms ago. */
  stale (key: string, age: number): CachedToken | undefined {
    return this.#cache.stale(key, age)
  }

  /** @param key of the token, as `keyOf` makes it */
  async verify (token: string, proof: Proof, key: string, request: FastifyRequest | null): Promise<Auth> {
    const known = this.#cache.lookup(key)
    const cached = known !== undefined && differenceOf(proof, known.auth.session) === null
      ? known
      : await this.#options.observers.run({ layer: 'registry', name: 'verify', request }, async () => matching(proof, known ?? await this.#read(token, key)))
    this.#noteUse(cached)
    return cached.auth
  }

  /** The session that a token of any use stands for; null where it is none, or no longer. */
  async get (token: string): Promise<SessionRecord | null> {
    const claim = await this.#opener.tryOpen(token)
    const session = claim === null ? null : await this.getById(claim.id, 'get')
    if (claim === null || session === null) return null
    return provesUntil(claim, session, this.#options.reuseWindow, this.#store.now()) === null ? null : session
  }

  getById (id: string, operation: 'get' | 'verify'): Promise<SessionRecord | null> {
    const hooked = this.#hooks.has('preGet') || this.#hooks.has('postGet')
    return hooked ? this.#getHooked(id, this.#options.newContext(operation)) : this.#store.get(id)
  }

  /** Why the token of a session that does not live is refused. */
  async whyGone (id: string): Promise<Error> {
    return errorOf(await this.#store.ending(id))
  }

  async close (): Promise<void> {
    await this.#lastUse.flush()
  }

  async #getHooked (id: string, context: HookContext): Promise<SessionRecord | null> {
    if (this.#hooks.has('preGet')) await this.#hooks.before('preGet', id, context)
    const session = await this.#store.get(id)
    if (this.#hooks.has('postGet')) await this.#hooks.after('postGet', session, context)
    return session
  }

  async #read (token: string, key: string): Promise<CachedToken> {
    const opening = this.#opener.open(token)
    const claim = isThenable(opening) ? await opening : opening
    if (claim.kind === 'minted' && claim.use !== 'session') throw new TokenInvalid()

    const read = this.#cache.read(claim.id, () => this.getById(claim.id, 'verify'))
    try {
      const record = await read.record
      if (record !== null) return this.#prove(key, claim, record, read)
    } finally {
      this.#cache.done(read)
    }
    throw await this.whyGone(claim.id)
  }

  /** Nothing may be awaited in here: an invalidation would be missed. */
  #prove (key: string, claim: Claim, record: SessionRecord, read: Read): CachedToken {
    if (!authenticates(claim, record)) throw new TokenInvalid()
    const validUntil = provesUntil(claim, record, this.#options.reuseWindow, this.#store.now())
    if (validUntil === null) throw claim.kind === 'minted' ? new TokenReused() : new TokenExpired()
    if (claim.generation !== null && claim.generation > record.generation) this.#stats.recovered++

    return this.#cache.keep(key, authFrom(record, claim.claims), validUntil, read)
  }

  #noteUse (cached: CachedToken): void {
    const now = this.#store.now()
    const { session } = cached.auth
    this.#lastUse.note(session, now)
    // An idle timeout counts from the very last use, and a binding is proved each time: those are never fresh.
    this.#cache.used(cached, now, session.idleTimeout === null && session.binding === null ? now + this.#notedFor : -Infinity)
  }
}

function matching (proof: Proof, cached: CachedToken): CachedToken {
  const differs = differenceOf(proof, cached.auth.session)
  if (differs !== null) throw new TokenInvalid({ cause: new TokenMismatch(differs) })
  return cached
}

/** What of a proof is not what the session is bound to. */
export function differenceOf ({ client, binding = null }: Proof, session: Pick<SessionRecord, 'client' | 'binding'>): 'client' | 'binding' | null {
  if (client !== undefined && client !== session.client) return 'client'
  return binding === session.binding ? null : 'binding'
}

function errorOf (ending: Ending | null): Error {
  switch (ending?.reason) {
    case undefined: return new TokenInvalid()
    case 'expired': case 'idle': return new TokenExpired()
    case 'reuse_recent': case 'reuse_stale': return new TokenReused()
    default: return new TokenRevoked()
  }
}
