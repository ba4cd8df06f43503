import { hkdfSync, randomBytes } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { Admission } from './admission.ts'
import type { Auth } from './auth.ts'
import { BoundedStore } from './bounded-store.ts'
import { keyOf, type CachedToken } from './cache.ts'
import { Denylist } from './denylist.ts'
import { TokenValidation } from './errors.ts'
import { HookContext, HookRunner, type HookLog, type HookName, type HookOptions, type Hooks } from './hooks.ts'
import { HealthChecks } from './health-checks.ts'
import type { SessionLifetime } from './lifetimes.ts'
import { Observers, type Observed, type Observer } from './observers.ts'
import { TokenOpener, type TokenType } from './opener.ts'
import { forget, ID, Operations, tellEnded, withdraw, type Core } from './operations.ts'
import type { RegistryOptions } from './options.ts'
import type { SessionPolicy } from './policy.ts'
import type { Ending, SessionRecord } from './record.ts'
import { Stats } from './stats.ts'
import type { Documents, FoundSessions, SessionQuery, StoreHealth, TokenStore } from './store.ts'
import type { TokenMint } from './token.ts'
import { checkQuery, validatorOf, type SessionData } from './validation.ts'
import { differenceOf, Verifier, type Proof } from './verifier.ts'
import { Watches, type WatchListener } from './watch.ts'

export interface ListQuery extends SessionQuery {
  /** Every tenant; else `tenant`, which is `''` by default. */
  allTenants?: boolean
  /** 1 to 500, 100 by default */
  limit?: number
  cursor?: string | null
}

/** A record of every session and token that a service issues. */
export class TokenRegistry extends Operations {
  readonly denylist: Denylist
  readonly stats: Stats
  /** Whether the parts of the service work: the store, and what plugins and the service add. */
  readonly healthChecks = new HealthChecks()
  readonly #core: Core
  readonly #store: TokenStore
  readonly #options: RegistryOptions
  readonly #verifier: Verifier
  readonly #unsubscribe: ReadonlyArray<() => void>

  /**
   * @param options `storeTimeout`: ms that a call of the store may take; null for a store that neither hangs nor fails
   * @param log is told failures that no caller sees
   */
  constructor (store: TokenStore, mint: TokenMint, options: RegistryOptions & { storeTimeout: number | null }, log: HookLog) {
    const core = coreOf(store, mint, options, log)
    super(core, null)
    this.#core = core
    this.#store = core.store
    this.#options = options
    this.#verifier = core.verifier
    this.#unsubscribe = [
      store.onInvalidate(ids => forget(core, ids)),
      store.onExpire((session, ending) => tellEnded(core, [session], ending))
    ]
    this.stats = core.stats
    this.denylist = new Denylist(core.store, core.hooks, core.observers, core.newOp)
    this.stats.register('denylist', () => this.denylist.stats)
    this.stats.register('store', () => this.#store.figures())
    this.healthChecks.add('store', async () => await this.health())
  }

  /**
   * The operations that change something, on behalf of a request: hooks are told which.
   *
   * @example
   * fastify.delete('/sessions/:id', async request => {
   *   const { session: { sub } } = request.requireAuth()
   *   await fastify.tokenRegistry.for(request).revokeById(request.params.id, 'revoked', { sub, by: sub })
   * })
   */
  for (request: FastifyRequest): Operations {
    return new Operations(this.#core, request)
  }

  get storeName (): string {
    return this.#store.name
  }

  /** The clock that sessions live by, ms since the epoch. */
  now (): number {
    return this.#store.now()
  }

  /**
   * Who presents a token, as the request hook finds it.
   *
   * @throws `FST_TOKEN_MISSING`, `FST_TOKEN_INVALID`, `FST_TOKEN_EXPIRED`, `FST_TOKEN_REVOKED`, `FST_TOKEN_REUSED`, `FST_STORE_*`
   */
  verify (token: string, proof: Proof = {}): Promise<Auth> {
    return this.#verifier.verify(token, proof, keyOf(token), null)
  }

  /**
   * As `verify`, for what a request presents.
   *
   * @internal
   */
  verifyPresented ({ token, key }: { token: string, key: string }, binding: string | null, request: FastifyRequest): Promise<Auth> {
    return this.#verifier.verify(token, { binding }, key, request)
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
    return this.#observed('get', async () => await this.#verifier.get(token))
  }

  /** The session of an id, of any use; null where there is none, or no longer. */
  async getById (id: string): Promise<SessionRecord | null> {
    return await this.#observed('get', async () => ID.test(id) ? await this.#verifier.getById(id, 'get') : null)
  }

  /** Sessions, newest first, a page at a time. One-time tokens are not listed. */
  async list ({ limit = 100, cursor = null, ...query }: ListQuery): Promise<FoundSessions> {
    return await this.#observed('list', async () => {
      if (!Number.isInteger(limit) || limit < 1 || limit > 500) throw new TokenValidation(`limit: is ${String(limit)}, it may be 1 to 500`)
      return await this.#store.find(queryOf(query), { limit, cursor })
    })
  }

  /** How many sessions there are. One-time tokens do not count. */
  async count (query: Omit<ListQuery, 'limit' | 'cursor'>): Promise<number> {
    return await this.#observed('count', async () => await this.#store.count(queryOf(query)))
  }

  /**
   * Why a session is no more; null while it lives, and when that is no longer kept.
   *
   * @param proof what was presented where its token was refused: of a session that lives and is bound to something else this tells `mismatch`, and in
   *   `detail.differs` what
   */
  async explain (id: string, proof?: Proof): Promise<Ending | null> {
    return await this.#observed('explain', async () => await this.#explain(id, proof))
  }

  async #explain (id: string, proof?: Proof): Promise<Ending | null> {
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
    return this.#core.watches.watch(id, ended)
  }

  /**
   * Sets the terms under which sessions are stored: one plugin does.
   *
   * @param options `comparesUses`: whether limits end sessions by last use, which is then known exactly in this process, and to others within 5 s
   * @throws {TokenOptions} where one did already
   */
  setPolicy (policy: SessionPolicy, { comparesUses = false }: { comparesUses?: boolean } = {}): void {
    this.#core.admission.setPolicy(policy)
    if (comparesUses) this.#verifier.compareUses()
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
    return this.#core.hooks.has('preStart') ? await this.#core.hooks.preStart(data, request) : data
  }

  /** Ends sessions whose answer is withheld, as where they cannot be put on record: `preRevoke` and `preChange` are not asked. */
  async withdraw (ids: readonly string[]): Promise<void> {
    await withdraw(this.#core, ids)
  }

  /** Lets another kind of token prove sessions. The request hook, its cache and revocation then serve it as they serve the registry's own. */
  addTokenType (type: TokenType): void {
    this.#core.opener.add(type)
  }

  /**
   * Runs a function before or after operations.
   *
   * @param options `priority`: lower runs first, 0 by default; equal ones in the order in which they were added
   */
  addHook<Name extends HookName> (name: Name, run: Hooks[Name], options: HookOptions = {}): void {
    this.#core.hooks.add(name, run, options)
  }

  /**
   * Lets a function run around operations and calls of the store, for metrics and traces. It calls `work` once, and gives what that gives.
   *
   * @param options `priority`: lower ones run around higher ones, 0 by default
   */
  observe (observer: Observer, { priority = 0 }: { priority?: number } = {}): void {
    this.#core.observers.add(observer, priority)
  }

  /** Runs work of a plugin within what observes, as a layer of its own. */
  observed<T> (observed: Observed, work: () => Promise<T>): Promise<T> {
    return this.#core.observers.run(observed, work)
  }

  /** Never rejects: a store that does not answer is `fail`. */
  async health (): Promise<StoreHealth> {
    return await this.#store.health()
  }

  /** Writes what waits, and lets go of the store without closing it. */
  async close (): Promise<void> {
    for (const stop of this.#unsubscribe) stop()
    this.#core.watches.close()
    await this.#verifier.close()
    await this.#core.hooks.settled()
  }

  #observed<T> (name: string, work: () => Promise<T>): Promise<T> {
    return this.observed({ layer: 'registry', name, request: null }, work)
  }
}

function queryOf ({ allTenants = false, ...query }: ListQuery): SessionQuery {
  const own = { tenant: '', ...query }
  checkQuery(own)
  return allTenants ? query : own
}

function coreOf (given: TokenStore, mint: TokenMint, options: RegistryOptions & { storeTimeout: number | null }, log: HookLog): Core {
  const hooks = new HookRunner(options.hookTimeout, log)
  const observers = new Observers()
  const store = options.storeTimeout === null ? given : new BoundedStore(given, options.storeTimeout, observers, (error, operation) => hooks.tell('onError', error, { operation }))
  const opener = new TokenOpener(mint, options.operationTimeout)
  const stats = new Stats()
  const prefix = randomBytes(6).toString('base64url')
  let operations = 0
  const newOp = (): string => prefix + (operations++).toString(36)
  const verifier = new Verifier(store, opener, hooks, stats, { ...options, newContext: operation => new HookContext(operation, newOp(), null), observers, log })
  const admission = new Admission(store, options.hookTimeout, subject => verifier.usesOf(subject))
  const watches = new Watches(store, log)
  return { store, mint, options, hooks, observers, opener, stats, verifier, admission, watches, validate: validatorOf(options.validator, options.hookTimeout), newOp }
}
