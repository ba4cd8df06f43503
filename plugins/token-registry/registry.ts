import { hkdfSync, randomBytes } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { Admission, TenantCounts, type Admitted } from './admission.ts'
import { BoundedStore } from './bounded-store.ts'
import type { Auth } from './auth.ts'
import { keyOf, type CachedToken } from './cache.ts'
import { Denylist } from './denylist.ts'
import { milliseconds, type Duration } from './duration.ts'
import { TokenInvalid, TokenMismatch, TokenReused, TokenValidation } from './errors.ts'
import { HookRunner, type HookContext, type HookName, type Hooks, type Revocation } from './hooks.ts'
import { checkText, TokenOpener, type TokenType } from './opener.ts'
import type { SessionLifetime } from './lifetimes.ts'
import type { RegistryOptions } from './options.ts'
import type { SessionPolicy } from './policy.ts'
import type { EndCause, EndDetail, Ending, EndReason, SessionRecord } from './record.ts'
import { Stats } from './stats.ts'
import type { Documents, EndedSession, FoundSessions, RotateOutcome, SessionQuery, StoreHealth, TokenStore } from './store.ts'
import { adoptedId, isAdoptable, looksLikeOurs, type OpenedToken, type TokenMint } from './token.ts'
import { checkAdopted, checkDefault, checkQuery, checkRevocation, patchOf, validatorOf, type SessionChange, type SessionData, type Validator } from './validation.ts'
import { differenceOf, Verifier, type Proof } from './verifier.ts'
import { Watches, type WatchListener } from './watch.ts'

export interface IssuedToken {
  /** Kept nowhere: this is the only time that it is seen. */
  token: string
  session: SessionRecord
}

/** A token that the caller made, and what is to be kept of it. */
export interface AdoptedToken {
  token: string
  data: SessionData
  /** The `ttl` option of the plugin where it is left out. */
  ttl?: Duration
}

export interface ListQuery extends SessionQuery {
  /** Every tenant; else `tenant`, which is `''` by default. */
  allTenants?: boolean
  /** 1 to 500, 100 by default */
  limit?: number
  cursor?: string | null
}

/** Whose sessions are brought within the limits. */
export interface EnforceQuery {
  /** Everybody of the tenant where it is left out. */
  sub?: string
  /** `''` by default */
  tenant?: string
  /** Every tenant. */
  allTenants?: boolean
}

export interface RevokeOptions {
  /** Only where the session is this subject's. */
  sub?: string
  /** `''` by default; goes with `sub` */
  tenant?: string
  /** Who does it, for the ending. */
  by?: string | null
  /** What it came of, for the ending. */
  detail?: EndDetail
}

export interface RevokeAllOptions {
  sub: string
  /** `''` by default */
  tenant?: string
  /** ids of sessions to keep */
  except?: readonly string[]
  reason?: EndReason
  by?: string | null
}

const MAX_BATCH = 10_000
/** Subjects, one after the other, whose limits cannot be worked out: then those of others hardly can. */
const FAILURES = 10
const ID = /^[A-Za-z0-9_-]{24}$/

/** A record of every session and token that a service issues. */
export class TokenRegistry {
  readonly denylist: Denylist
  readonly stats = new Stats()
  readonly #store: TokenStore
  readonly #mint: TokenMint
  readonly #options: RegistryOptions
  readonly #hooks: HookRunner
  readonly #opener: TokenOpener
  readonly #verifier: Verifier
  readonly #validate: Validator
  readonly #unsubscribe: ReadonlyArray<() => void>
  readonly #watches: Watches
  readonly #admission: Admission
  readonly #opPrefix = randomBytes(6).toString('base64url')
  #operations = 0

  /**
   * @param options `storeTimeout`: ms that a call of the store may take; null for a store that neither hangs nor fails
   * @param log is told failures that no caller sees
   */
  constructor (store: TokenStore, mint: TokenMint, options: RegistryOptions & { storeTimeout: number | null }, log: (error: unknown, message: string) => void) {
    this.#hooks = new HookRunner(options.hookTimeout, log)
    this.#store = options.storeTimeout === null ? store : new BoundedStore(store, options.storeTimeout, (error, operation) => this.#hooks.tell('onError', error, { operation }))
    this.#mint = mint
    this.#options = options
    this.#validate = validatorOf(options.validator, options.hookTimeout)
    this.#opener = new TokenOpener(mint, options.operationTimeout)
    this.#verifier = new Verifier(this.#store, this.#opener, this.#hooks, this.stats, { ...options, newContext: operation => this.#context(operation), log })
    this.#admission = new Admission(this.#store, options.hookTimeout, subject => this.#verifier.usesOf(subject))
    this.#watches = new Watches(this.#store, log)
    this.#unsubscribe = [
      store.onInvalidate(ids => this.#changed(ids)),
      store.onExpire((session, ending) => this.#tellEnded([session], ending))
    ]
    this.denylist = new Denylist(this.#store)
    this.stats.register('denylist', () => ({ ...this.denylist.stats }))
    this.stats.register('store', () => this.#store.figures())
  }

  /** The clock that sessions live by, ms since the epoch. */
  now (): number {
    return this.#store.now()
  }

  /**
   * Mints a token and records its session.
   *
   * @throws `FST_TOKEN_VALIDATION`, `FST_SESSION_LIMIT`, `FST_TOKEN_REUSED` where the one-time token of its `origin` was, `FST_STORE_*`, what a `preSave` hook throws
   * @example
   * const { token, session } = await fastify.tokenRegistry.issue({ sub: 'alice', ttl: '12h' })
   */
  async issue (data: SessionData): Promise<IssuedToken> {
    const context = this.#context('issue')
    const checked = await this.#checked(data, null, context)
    const { token, id } = this.#mint.mint(checked.use ?? 'session', { tenant: checked.tenant ?? '', sub: checked.sub })
    const session = only(await this.#insert([{ record: this.#recordOf(id, checked, context, this.#mint.kid), data: checked }], context))
    return { token, session }
  }

  /**
   * Adopts a token that the caller made. Only a digest of it is kept.
   *
   * @param token 8 to 512 characters, not beginning with `trs_`, `trr_` or `tro_`, as the registry's own do
   * @param ttl until when it is valid; `data.ttl`, then the `ttl` option of the plugin, where it is left out
   * @throws `FST_TOKEN_VALIDATION`, `FST_TOKEN_EXISTS`, `FST_SESSION_LIMIT`, `FST_STORE_*`, what a `preSave` hook throws
   */
  async save (token: string, data: SessionData, ttl?: Duration): Promise<SessionRecord> {
    const context = this.#context('save')
    const admitted = await this.#adopted(ttl === undefined ? { token, data } : { token, data, ttl }, context)
    return only(await this.#insert([admitted], context))
  }

  /**
   * Adopts many tokens in one round trip. All are checked before any is stored; a subject's are stored all or none.
   *
   * @param list at most 10,000
   * @returns the sessions, in the order given
   * @throws as `save`; where a subject's tokens are refused, those of the others are stored and stand in the error's `saved`
   */
  async saveBatch (list: readonly AdoptedToken[]): Promise<SessionRecord[]> {
    if (!Array.isArray(list) || list.length > MAX_BATCH) throw new TokenValidation(`the batch is not a list of at most ${MAX_BATCH} tokens`)
    if (list.length === 0) return []
    const context = this.#context('save')
    const admitted: Admitted[] = []
    for (const [index, item] of list.entries()) {
      admitted.push(await this.#adopted(item, context).catch((error: unknown) => {
        if (error instanceof TokenValidation) throw new TokenValidation(`token ${index + 1} of ${list.length}: ${error.message}`)
        throw error
      }))
    }
    return await this.#insert(admitted, context)
  }

  /**
   * Who presents a token, as the request hook finds it.
   *
   * @throws `FST_TOKEN_MISSING`, `FST_TOKEN_INVALID`, `FST_TOKEN_EXPIRED`, `FST_TOKEN_REVOKED`, `FST_TOKEN_REUSED`, `FST_STORE_*`
   */
  verify (token: string, proof: Proof = {}): Promise<Auth> {
    return this.#verifier.verify(token, proof, keyOf(token))
  }

  /**
   * As `verify`, for what a request presents.
   *
   * @internal
   */
  verifyPresented ({ token, key }: { token: string, key: string }, binding: string | null): Promise<Auth> {
    return this.#verifier.verify(token, { binding }, key)
  }

  /**
   * The part of `verifyPresented` that waits for nothing: what is known of a token that is not bound to a key.
   *
   * @param key as `keyOf` makes it
   * @internal
   */
  cached (key: string): Auth | undefined {
    return this.#verifier.cached(key)
  }

  /**
   * What a token proved when the store was last heard of, at most `age` ms ago.
   *
   * @param key as `keyOf` makes it
   * @internal
   */
  stale (key: string, age: number): CachedToken | undefined {
    return this.#verifier.stale(key, age)
  }

  /** The session that a token of any use stands for; null where it is none, or no longer. */
  get (token: string): Promise<SessionRecord | null> {
    return this.#verifier.get(token)
  }

  /** The session of an id, of any use; null where there is none, or no longer. */
  async getById (id: string): Promise<SessionRecord | null> {
    return ID.test(id) ? await this.#verifier.getById(id, 'get') : null
  }

  /**
   * Changes what a service keeps with a session: `meta`, `scope`, `idleTimeout`, `version`, each as a whole.
   *
   * @param change `meta` is checked as the default validator does, whatever the option `validator`
   * @param revision changes it only where this is its revision still
   * @returns the session as it is now; null where it does not live
   * @throws `FST_SESSION_CONFLICT`, `FST_TOKEN_VALIDATION`, `FST_STORE_*`
   */
  async update (id: string, change: SessionChange, revision?: number): Promise<SessionRecord | null> {
    const patch = patchOf(change)
    return ID.test(id) ? await this.#store.update(id, patch, revision) : null
  }

  /**
   * Replaces a token by its successor. The replaced one gives the same successor again within `reuseWindow`; later it ends the session.
   *
   * @throws `FST_TOKEN_INVALID`, `FST_TOKEN_EXPIRED`, `FST_TOKEN_REVOKED`, `FST_TOKEN_REUSED`, `FST_STORE_*`, what a `preRotate` hook throws
   */
  async rotate (token: string, proof: Proof = {}): Promise<IssuedToken> {
    checkText(token)
    const opened = this.#mint.open(token)
    if (opened === null || opened.use === 'once') throw new TokenInvalid()
    const session = await this.#advance(opened, proof, this.#context('rotate'))
    return { token: this.#mint.successor(token, session.generation, session.kid), session }
  }

  /**
   * Takes a one-time token: the first to present it wins, a second one ends what came of it.
   *
   * @returns the record of the token; give its id as `origin` to what is issued for it
   * @throws as `rotate`
   */
  async consume (token: string, proof: Proof = {}): Promise<SessionRecord> {
    checkText(token)
    const opened = looksLikeOurs(token) ? this.#mint.open(token) : { id: adoptedId(token), use: 'once' as const, generation: 0 }
    if (opened?.use !== 'once' || !isAdoptable(token)) throw new TokenInvalid()
    return await this.#advance(opened, proof, this.#context('consume'))
  }

  /**
   * Ends the session that a token stands for.
   *
   * @returns false where nothing was there to end
   */
  async revoke (token: string, reason: EndReason = 'revoked', { by = null, detail }: Pick<RevokeOptions, 'by' | 'detail'> = {}): Promise<boolean> {
    checkRevocation({ reason, by, ...detail !== undefined && { detail } })
    const claim = await this.#opener.tryOpen(token)
    return claim !== null && await this.#end(claim.id, { reason, by, ...detail !== undefined && { detail } })
  }

  /**
   * Ends a session.
   *
   * @returns false where nothing was there to end, or it is not the session of the subject that is named
   */
  async revokeById (id: string, reason: EndReason = 'revoked', options: RevokeOptions = {}): Promise<boolean> {
    const { sub, tenant = '', by = null, detail } = options
    checkRevocation({ ...options, reason })
    if (!ID.test(id)) return false
    if (sub !== undefined) {
      // Whose a session is never changes: to look first is no race.
      const session = await this.#store.get(id)
      if (session?.sub !== sub || session.tenant !== tenant) return false
    }
    return await this.#end(id, { reason, by, ...detail !== undefined && { detail } })
  }

  /**
   * Ends every session and one-time token of a subject that exists when it is called; what is issued meanwhile stays.
   *
   * @returns how many sessions were ended, when they are
   */
  async revokeAll (options: RevokeAllOptions): Promise<number> {
    const { sub, tenant = '', except = [], reason = 'revoked', by = null } = options
    checkRevocation({ ...options, sub })
    const context = this.#context('revokeAll')
    const revocation: Revocation = { subject: { sub, tenant }, except, reason, by }
    if (this.#hooks.has('preRevoke')) await this.#hooks.before('preRevoke', revocation, context)

    const cause = { reason, by, op: context.op }
    const tell = (ended: SessionRecord[], at: number) => {
      for (const session of ended) this.#hooks.tell('onEnd', session, { id: session.id, tenant, sub, ...cause, at })
    }
    const count = await this.#store.endAll({ sub, tenant, except }, cause, this.#hooks.has('onEnd') ? tell : undefined).catch(error => {
      // Nobody knows which were ended: nothing is served from the cache before it was read again.
      this.#verifier.invalidate('all')
      throw error
    })
    if (count === 0) return 0
    this.stats.countEnded(reason, count)
    if (this.#hooks.has('postRevoke')) await this.#hooks.after('postRevoke', { ...revocation, count }, context)
    return count
  }

  /** Sessions, newest first, a page at a time. One-time tokens are not listed. */
  async list ({ limit = 100, cursor = null, ...query }: ListQuery): Promise<FoundSessions> {
    if (!Number.isInteger(limit) || limit < 1 || limit > 500) throw new TokenValidation(`limit: is ${String(limit)}, it may be 1 to 500`)
    return await this.#store.find(queryOf(query), { limit, cursor })
  }

  /** How many sessions there are. One-time tokens do not count. */
  async count (query: Omit<ListQuery, 'limit' | 'cursor'>): Promise<number> {
    return await this.#store.count(queryOf(query))
  }

  /**
   * Why a session is no more; null while it lives, and when that is no longer kept.
   *
   * @param proof what was presented where its token was refused: of a session that lives and is bound to something else this tells `mismatch`, and in
   *   `detail.differs` what
   */
  async explain (id: string, proof?: Proof): Promise<Ending | null> {
    if (!ID.test(id)) return null
    const ending = await this.#store.ending(id)
    if (ending !== null || proof === undefined) return ending
    const session = await this.#store.get(id)
    const differs = session && differenceOf(proof, session)
    return differs && session && { id, tenant: session.tenant, sub: session.sub, reason: 'mismatch', by: null, op: '', at: this.now(), detail: { differs } }
  }

  /**
   * Tells when a session ends, in whichever process: for connections that outlive the request that opened them.
   *
   * @param ended is called once, at once where it has ended already; with how, as far as that is known
   * @returns a function that stops it
   * @example
   * const stop = fastify.tokenRegistry.watch(request.requireAuth().session.id, () => socket.close(4401))
   * socket.on('close', stop)
   */
  watch (id: string, ended: WatchListener): () => void {
    return this.#watches.watch(id, ended)
  }

  /**
   * Sets the terms under which sessions are stored: one plugin does.
   *
   * @param options `comparesUses`: whether limits end sessions by last use, which is then known exactly in this process, and to others within 5 s
   * @throws {TokenOptions} where one did already
   */
  setPolicy (policy: SessionPolicy, { comparesUses = false }: { comparesUses?: boolean } = {}): void {
    this.#admission.setPolicy(policy)
    if (comparesUses) this.#verifier.compareUses()
  }

  /**
   * Brings sessions within the limits as they are now. What a limit would refuse ends by last use. Subjects whose limits cannot be worked out are left as they
   * are, and the first of these errors is thrown at the end, or after 10 in a row.
   *
   * @returns how many sessions were ended; an error has it as `ended`
   */
  async enforceLimits ({ allTenants = false, ...query }: EnforceQuery = {}): Promise<number> {
    const { sub, tenant = '' } = query
    checkQuery(query)
    let ended = 0
    let failed: { error: unknown } | null = null
    let inARow = 0
    const subjects = sub === undefined ? this.#store.subjects(allTenants ? undefined : tenant) : [{ tenant, sub }]
    // Of one subject alone, nobody knows how many the tenant has.
    const tooMany = sub === undefined ? new TenantCounts() : null
    for await (const subject of subjects) {
      const { evicted, failure } = await this.#admission.enforce(subject, this.#context('enforce').op, tooMany)
      this.#tellEvicted(evicted)
      ended += evicted.length
      failed ??= failure
      inARow = failure === null ? 0 : inARow + 1
      if (inARow === FAILURES) break
    }
    // Who was not counted may have been the one that is too much.
    if (failed !== null) throw withDetail(failed.error, { ended })
    for (const { ids, limit } of tooMany?.excess() ?? []) ended += await this.#endMany(ids, { reason: 'limit', by: null, detail: { limit } })
    return ended
  }

  /** Sets a mark until a time, ms since the epoch: of all instances one is told true. A lease, or a thing that is done once. */
  async mark (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    return await this.#store.mark(`plugin:${purpose}`, key, expiresAt)
  }

  /** Where plugins keep small texts; undefined where the store has no place for them. */
  get documents (): Documents | undefined {
    return this.#store.documents
  }

  /**
   * Keys of 32 bytes for a plugin, from the option `secret`: the first signs, all verify.
   *
   * @param purpose other keys for each
   */
  deriveKeys (purpose: string): Buffer[] {
    return this.#options.secret.map(secret => Buffer.from(hkdfSync('sha256', secret, '', `fastify-token-registry plugin ${purpose}`, 32)))
  }

  /**
   * Adds a lifetime of sessions to those that may not contradict one another. What it leaves out is as token-registry's options say.
   *
   * @param prefix of the names `ttl` and `idleTimeout`, for messages
   * @returns what is wrong with it, or null
   */
  addSessionLifetime (prefix: string, lifetime: Partial<SessionLifetime>): string | null {
    const { ttl, idleTimeout, lifetimes } = this.#options
    const nameOf = (option: keyof SessionLifetime): string => option in lifetime ? prefix + option : `${option} of token-registry`
    return lifetimes.addSession({ ttl, idleTimeout, ...lifetime }, { ttl: nameOf('ttl'), idleTimeout: nameOf('idleTimeout') })
  }

  /** Likewise for access tokens that prove a session. */
  addAccessTokenLifetime (name: string, ms: number): string | null {
    return this.#options.lifetimes.addAccessToken(name, ms)
  }

  /** @internal */
  async beforeStart (data: SessionData, request: FastifyRequest): Promise<SessionData> {
    return this.#hooks.has('preStart') ? await this.#hooks.preStart(data, request) : data
  }

  /** Lets another kind of token prove sessions. The request hook, its cache and revocation then serve it as they serve the registry's own. */
  addTokenType (type: TokenType): void {
    this.#opener.add(type)
  }

  /**
   * Runs a function before or after operations.
   *
   * @param options `priority`: lower runs first, 0 by default; equal ones in the order in which they were added
   */
  addHook<Name extends HookName> (name: Name, run: Hooks[Name], { priority = 0 }: { priority?: number } = {}): void {
    this.#hooks.add(name, run, priority)
  }

  /** Never rejects: a store that does not answer is `fail`. */
  async health (): Promise<StoreHealth> {
    return await this.#store.health()
  }

  /** Writes what waits, and lets go of the store without closing it. */
  async close (): Promise<void> {
    for (const stop of this.#unsubscribe) stop()
    this.#watches.close()
    await this.#verifier.close()
    await this.#hooks.settled()
  }

  #context (operation: HookContext['operation']): HookContext {
    return { operation, op: this.#opPrefix + (this.#operations++).toString(36) }
  }

  async #checked (data: SessionData, token: string | null, context: HookContext): Promise<SessionData> {
    let checked = data
    if (this.#hooks.has('preSave')) {
      if (this.#options.validator !== 'none') checkDefault({ data, token })
      checked = await this.#hooks.preSave(data, context)
    }
    await this.#validate({ data: checked, token })
    return checked
  }

  async #adopted (adopted: AdoptedToken, context: HookContext): Promise<Admitted> {
    const { token, data, ttl } = adopted ?? {} // callers without types give null
    checkAdopted(token)
    if (this.#opener.isForeign(token)) throw new TokenValidation('the token is of a kind that proves a session by itself: it is not to be saved')
    const checked = await this.#checked(ttl === undefined ? data : { ...data, ttl }, token, context)
    if (checked.use === 'refresh') throw new TokenValidation('use: is "refresh", but only a token of the registry\'s own can be rotated')
    return { record: this.#recordOf(adoptedId(token), checked, context, null), data: checked }
  }

  #recordOf (id: string, data: SessionData, { op }: HookContext, kid: number | null): SessionRecord {
    const now = this.#store.now()
    const usual = data.use === 'once' ? null : this.#options.idleTimeout
    const idleTimeout = data.idleTimeout === undefined ? usual : data.idleTimeout
    const record: SessionRecord = {
      id,
      tenant: data.tenant ?? '',
      sub: data.sub,
      client: data.client ?? null,
      use: data.use ?? 'session',
      scope: data.scope ?? [],
      groups: [],
      generation: 0,
      revision: 0,
      issuedAt: now,
      expiresAt: now + milliseconds(data.ttl ?? this.#options.ttl),
      idleTimeout: idleTimeout === null ? null : milliseconds(idleTimeout),
      lastUsedAt: now,
      rotatedAt: null,
      origin: data.origin ?? null,
      binding: data.binding ?? null,
      meta: data.meta ?? {},
      kid,
      op
    }
    if (data.version !== undefined) record.version = data.version
    return record
  }

  async #insert (admitted: readonly Admitted[], context: HookContext): Promise<SessionRecord[]> {
    const { inserted, evicted, refused, failure } = await this.#admission.store(admitted, context.op)
    this.stats.issued += inserted.length
    this.#tellEvicted(evicted)
    if (this.#hooks.has('postSave')) await Promise.all(inserted.map(async session => await this.#hooks.after('postSave', session, context)))
    if (failure !== null) throw withDetail(failure.error, { saved: inserted })
    const [refusal] = refused
    if (refusal !== undefined) throw withDetail(await this.#admission.errorOf(refusal), { saved: inserted })
    return inserted
  }

  /** Rotates or consumes, and says why not. */
  async #advance ({ id, use, generation }: Pick<OpenedToken, 'id' | 'use' | 'generation'>, { client, binding = null }: Proof, context: HookContext): Promise<SessionRecord> {
    if (this.#hooks.has('preRotate')) await this.#hooks.before('preRotate', { id, generation, client: client ?? null }, context)
    const once = use === 'once'
    const presented = { once, generation, kid: this.#mint.kid, binding, reuseWindow: once ? 0 : this.#options.reuseWindow, by: null }
    const outcome = await this.#store.rotate(id, client === undefined ? presented : { ...presented, client }, context.op)
    return await this.#rotated(outcome, id, context)
  }

  async #rotated (outcome: RotateOutcome, id: string, context: HookContext): Promise<SessionRecord> {
    switch (outcome.status) {
      case 'rotated':
        this.stats.rotated++
        if (outcome.recovered) this.stats.recovered++
        if (this.#hooks.has('postRotate')) await this.#hooks.after('postRotate', outcome.session, context)
        return outcome.session
      case 'repeated':
        return outcome.session
      case 'reused': {
        this.stats.reused++
        this.#tellEnded(outcome.ended, outcome.ending)
        const [session] = outcome.ended
        if (session !== undefined) this.#hooks.tell('onReuse', session, outcome.ending)
        throw new TokenReused()
      }
      case 'refused':
        throw new TokenInvalid({ cause: new TokenMismatch(outcome.by) })
      case 'unknown':
        throw await this.#verifier.whyGone(id)
    }
  }

  async #end (id: string, cause: Omit<EndCause, 'op'>): Promise<boolean> {
    return await this.#endMany([id], cause) > 0
  }

  async #endMany (ids: readonly string[], { reason, by, detail }: Omit<EndCause, 'op'>): Promise<number> {
    let count = 0
    for (const id of ids) {
      const context = this.#context('revoke')
      const revocation: Revocation = { id, reason, by }
      const cause = { reason, by, op: context.op, ...detail !== undefined && { detail } }
      if (this.#hooks.has('preRevoke')) await this.#hooks.before('preRevoke', revocation, context)
      // Where the store did not answer it may have ended the session all the same: this process no longer serves it.
      const ended = await this.#store.end([id], cause).finally(() => this.#changed([id]))
      this.#tellEnded(ended, { ...cause, at: this.now() })
      const [session] = ended
      if (session === undefined) continue
      const { tenant, sub } = session
      if (this.#hooks.has('postRevoke')) await this.#hooks.after('postRevoke', { ...revocation, subject: { tenant, sub }, count: 1 }, context)
      count++
    }
    return count
  }

  #changed (ids: readonly string[] | 'all'): void {
    this.#verifier.invalidate(ids)
    this.#watches.invalidate(ids)
  }

  #tellEvicted (evicted: readonly EndedSession[]): void {
    for (const { session, ending } of evicted) this.#tellEnded([session], ending)
  }

  #tellEnded (ended: readonly SessionRecord[], { reason, by, op, at, detail }: Omit<Ending, 'id' | 'tenant' | 'sub'>): void {
    for (const session of ended) {
      this.stats.countEnded(reason)
      const { id, tenant, sub } = session
      this.#hooks.tell('onEnd', session, { id, tenant, sub, reason, by, op, at, ...detail !== undefined && { detail } })
    }
  }
}

/** Itself, where it is an object. */
function withDetail (error: unknown, detail: object): object {
  return Object.assign(Object(error) as object, detail)
}

function only ([session]: readonly SessionRecord[]): SessionRecord {
  if (session === undefined) throw new TypeError('the store inserted nothing and refused nothing')
  return session
}

function queryOf ({ allTenants = false, ...query }: ListQuery): SessionQuery {
  const own = { tenant: '', ...query }
  checkQuery(own)
  return allTenants ? query : own
}
