import type { FastifyRequest } from 'fastify'
import { TenantCounts, type Admission, type Admitted } from './admission.ts'
import { milliseconds, type Duration } from './duration.ts'
import { TokenInvalid, TokenMismatch, TokenReused, TokenValidation } from './errors.ts'
import { HookContext, type HookRunner, type OperationName, type Revocation } from './hooks.ts'
import { checkText, type TokenOpener } from './opener.ts'
import type { Observers } from './observers.ts'
import type { RegistryOptions } from './options.ts'
import type { EndCause, EndDetail, Ending, EndReason, SessionRecord, Subject } from './record.ts'
import type { Stats } from './stats.ts'
import type { EndedSession, RotateOutcome, TokenStore } from './store.ts'
import { adoptedId, isAdoptable, looksLikeOurs, type OpenedToken, type TokenMint } from './token.ts'
import { checkAdopted, checkDefault, checkQuery, checkRevocation, patchOf, type SessionChange, type SessionData, type Validator } from './validation.ts'
import type { Proof, Verifier } from './verifier.ts'
import type { Watches } from './watch.ts'

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
export const ID = /^[A-Za-z0-9_-]{24}$/

/** What operations work with: one for a registry. */
export interface Core {
  readonly store: TokenStore
  readonly mint: TokenMint
  readonly options: RegistryOptions
  readonly hooks: HookRunner
  readonly observers: Observers
  readonly opener: TokenOpener
  readonly verifier: Verifier
  readonly validate: Validator
  readonly admission: Admission
  readonly stats: Stats
  readonly watches: Watches
  /** A name that no other operation has, of whichever process. */
  newOp: () => string
}

/** What changes sessions, on behalf of a request or of nobody in particular. */
export class Operations {
  readonly #core: Core
  readonly #request: FastifyRequest | null

  constructor (core: Core, request: FastifyRequest | null) {
    this.#core = core
    this.#request = request
  }

  /**
   * Mints a token and records its session.
   *
   * @throws `FST_TOKEN_VALIDATION`, `FST_SESSION_LIMIT`, `FST_TOKEN_REUSED` where the one-time token of its `origin` was, `FST_STORE_*`, what a `preSave` hook throws
   * @example
   * const { token, session } = await fastify.tokenRegistry.issue({ sub: 'alice', ttl: '12h' })
   */
  async issue (data: SessionData): Promise<IssuedToken> {
    return await this.#run('issue', async context => {
      const checked = await this.#checked(data, null, context)
      const { token, id } = this.#core.mint.mint(checked.use ?? 'session', { tenant: checked.tenant ?? '', sub: checked.sub })
      const session = only(await this.#insert([{ record: this.#recordOf(id, checked, context, this.#core.mint.kid), data: checked }], context))
      return { token, session }
    })
  }

  /**
   * Adopts a token that the caller made. Only a digest of it is kept.
   *
   * @param token 8 to 512 characters, not beginning with `trs_`, `trr_` or `tro_`, as the registry's own do
   * @param ttl until when it is valid; `data.ttl`, then the `ttl` option of the plugin, where it is left out
   * @throws `FST_TOKEN_VALIDATION`, `FST_TOKEN_EXISTS`, `FST_SESSION_LIMIT`, `FST_STORE_*`, what a `preSave` hook throws
   */
  async save (token: string, data: SessionData, ttl?: Duration): Promise<SessionRecord> {
    return await this.#run('save', async context => {
      const admitted = await this.#adopted(ttl === undefined ? { token, data } : { token, data, ttl }, context)
      return only(await this.#insert([admitted], context))
    })
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
    return await this.#run('save', async context => {
      const admitted: Admitted[] = []
      for (const [index, item] of list.entries()) {
        admitted.push(await this.#adopted(item, context).catch((error: unknown) => {
          if (error instanceof TokenValidation) throw new TokenValidation(`token ${index + 1} of ${list.length}: ${error.message}`)
          throw error
        }))
      }
      return await this.#insert(admitted, context)
    })
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
    return await this.#run('update', async context => {
      const patch = patchOf(change)
      if (!ID.test(id)) return null
      return await this.#core.hooks.around({ id }, context, async () => await this.#core.store.update(id, patch, revision), session => session === null ? [] : [session])
    })
  }

  /**
   * Replaces a token by its successor. The replaced one gives the same successor again within `reuseWindow`; later it ends the session.
   *
   * @throws `FST_TOKEN_INVALID`, `FST_TOKEN_EXPIRED`, `FST_TOKEN_REVOKED`, `FST_TOKEN_REUSED`, `FST_STORE_*`, what a `preRotate` hook throws
   */
  async rotate (token: string, proof: Proof = {}): Promise<IssuedToken> {
    return await this.#run('rotate', async context => {
      checkText(token)
      const opened = this.#core.mint.open(token)
      if (opened === null || opened.use === 'once') throw new TokenInvalid()
      const session = await this.#advance(opened, proof, context)
      return { token: this.#core.mint.successor(token, session.generation, session.kid), session }
    })
  }

  /**
   * Takes a one-time token: the first to present it wins, a second one ends what came of it.
   *
   * @returns the record of the token; give its id as `origin` to what is issued for it
   * @throws as `rotate`
   */
  async consume (token: string, proof: Proof = {}): Promise<SessionRecord> {
    return await this.#run('consume', async context => {
      checkText(token)
      const opened = looksLikeOurs(token) ? this.#core.mint.open(token) : { id: adoptedId(token), use: 'once' as const, generation: 0 }
      if (opened?.use !== 'once' || !isAdoptable(token)) throw new TokenInvalid()
      return await this.#advance(opened, proof, context)
    })
  }

  /**
   * Ends the session that a token stands for.
   *
   * @returns false where nothing was there to end
   */
  async revoke (token: string, reason: EndReason = 'revoked', { by = null, detail }: Pick<RevokeOptions, 'by' | 'detail'> = {}): Promise<boolean> {
    return await this.#run('revoke', async context => {
      checkRevocation({ reason, by, ...detail !== undefined && { detail } })
      const claim = await this.#core.opener.tryOpen(token)
      return claim !== null && await this.#end(claim.id, { reason, by, ...detail !== undefined && { detail } }, context)
    })
  }

  /**
   * Ends a session.
   *
   * @returns false where nothing was there to end, or it is not the session of the subject that is named
   */
  async revokeById (id: string, reason: EndReason = 'revoked', options: RevokeOptions = {}): Promise<boolean> {
    return await this.#run('revoke', async context => {
      const { sub, tenant = '', by = null, detail } = options
      checkRevocation({ ...options, reason })
      if (!ID.test(id)) return false
      if (sub !== undefined) {
        // Whose a session is never changes: to look first is no race.
        const session = await this.#core.store.get(id)
        if (session?.sub !== sub || session.tenant !== tenant) return false
      }
      return await this.#end(id, { reason, by, ...detail !== undefined && { detail } }, context)
    })
  }

  /**
   * Ends every session and one-time token of a subject that exists when it is called; what is issued meanwhile stays.
   *
   * @returns how many sessions were ended, when they are
   */
  async revokeAll (options: RevokeAllOptions): Promise<number> {
    return await this.#run('revokeAll', async context => {
      const { sub, tenant = '', except = [], reason = 'revoked', by = null } = options
      checkRevocation({ ...options, sub })
      const revocation: Revocation = { subject: { sub, tenant }, except, reason, by }
      if (this.#core.hooks.has('preRevoke')) await this.#core.hooks.before('preRevoke', revocation, context)

      return await this.#core.hooks.around({ ...revocation }, context, async () => await this.#endAll({ sub, tenant }, revocation, context))
    })
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
    const change = { reason: 'limit', ...sub !== undefined && { subject: { tenant, sub } } }
    return await this.#run('enforce', async context =>
      await this.#core.hooks.around(change, context, async () => await this.#enforce({ ...query, allTenants }, context)))
  }

  async #endAll ({ sub, tenant }: Subject, revocation: Revocation, context: HookContext): Promise<number> {
    const { except = [], reason, by } = revocation
    const cause = { reason, by, op: context.op }
    let told = 0
    const tell = (ended: SessionRecord[], at: number) => {
      told += ended.length
      for (const session of ended) this.#core.hooks.tell('onEnd', session, { id: session.id, tenant, sub, ...cause, at })
    }
    const count = await this.#core.store.endAll({ sub, tenant, except }, cause, this.#core.hooks.has('onEnd') ? tell : undefined).catch(error => {
      // Nobody knows which were ended: nothing is served from the cache before it was read again.
      this.#core.verifier.invalidate('all')
      throw error
    })
    // One-time tokens are told, and not counted.
    const ended = Math.max(told, count)
    if (ended > 0) this.#core.stats.tallies.ended.add(tenant, reason, ended)
    if (count === 0) return 0
    if (this.#core.hooks.has('postRevoke')) await this.#core.hooks.after('postRevoke', { ...revocation, count }, context)
    return count
  }

  async #enforce ({ sub, tenant = '', allTenants = false }: EnforceQuery, { op }: HookContext): Promise<number> {
    let step = 0
    let ended = 0
    let failed: { error: unknown } | null = null
    let inARow = 0
    const subjects = sub === undefined ? this.#core.store.subjects(allTenants ? undefined : tenant) : [{ tenant, sub }]
    // Of one subject alone, nobody knows how many the tenant has.
    const tooMany = sub === undefined ? new TenantCounts() : null
    for await (const subject of subjects) {
      const { evicted, failure } = await this.#core.admission.enforce(subject, `${op}.${step++}`, tooMany)
      this.#tellEvicted(evicted)
      ended += evicted.length
      failed ??= failure
      inARow = failure === null ? 0 : inARow + 1
      if (inARow === FAILURES) break
    }
    // Who was not counted may have been the one that is too much.
    if (failed !== null) throw withDetail(failed.error, { ended })
    for (const { ids, limit } of tooMany?.excess() ?? []) {
      for (const id of ids) ended += Number(await this.#run('revoke', async context => await this.#end(id, { reason: 'limit', by: null, detail: { limit } }, context)))
    }
    return ended
  }

  async #checked (data: SessionData, token: string | null, context: HookContext): Promise<SessionData> {
    let checked = data
    if (this.#core.hooks.has('preSave')) {
      if (this.#core.options.validator !== 'none') checkDefault({ data, token })
      checked = await this.#core.hooks.preSave(data, context)
    }
    await this.#core.validate({ data: checked, token })
    return checked
  }

  async #adopted (adopted: AdoptedToken, context: HookContext): Promise<Admitted> {
    const { token, data, ttl } = adopted ?? {} // callers without types give null
    checkAdopted(token)
    if (this.#core.opener.isForeign(token)) throw new TokenValidation('the token is of a kind that proves a session by itself: it is not to be saved')
    const checked = await this.#checked(ttl === undefined ? data : { ...data, ttl }, token, context)
    if (checked.use === 'refresh') throw new TokenValidation('use: is "refresh", but only a token of the registry\'s own can be rotated')
    return { record: this.#recordOf(adoptedId(token), checked, context, null), data: checked }
  }

  #recordOf (id: string, data: SessionData, { op }: HookContext, kid: number | null): SessionRecord {
    const now = this.#core.store.now()
    const usual = data.use === 'once' ? null : this.#core.options.idleTimeout
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
      expiresAt: now + milliseconds(data.ttl ?? this.#core.options.ttl),
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
    return await this.#core.hooks.around({ sessions: admitted.map(({ record }) => record) }, context, async () => await this.#store(admitted, context), inserted => inserted, async inserted => {
      await withdraw(this.#core, inserted.map(({ id }) => id))
    })
  }

  async #store (admitted: readonly Admitted[], context: HookContext): Promise<SessionRecord[]> {
    const { inserted, evicted, refused, failure } = await this.#core.admission.store(admitted, context.op)
    const { issued, limited } = this.#core.stats.tallies
    for (const { tenant, client } of inserted) issued.add(tenant, client ?? '')
    for (const refusal of refused) if (refusal.reason === 'limit') limited.add(refusal.tenant, refusal.limit.name)
    this.#tellEvicted(evicted)
    if (this.#core.hooks.has('postSave')) await Promise.all(inserted.map(async session => await this.#core.hooks.after('postSave', session, context)))
    if (failure !== null) throw withDetail(failure.error, { saved: inserted })
    const [refusal] = refused
    if (refusal !== undefined) throw withDetail(await this.#core.admission.errorOf(refusal), { saved: inserted })
    return inserted
  }

  /** Rotates or consumes, and says why not. */
  async #advance ({ id, use, generation }: Pick<OpenedToken, 'id' | 'use' | 'generation'>, { client, binding = null }: Proof, context: HookContext): Promise<SessionRecord> {
    if (this.#core.hooks.has('preRotate')) await this.#core.hooks.before('preRotate', { id, generation, client: client ?? null }, context)
    return await this.#core.hooks.around({ id, client: client ?? null }, context, async () => {
      const once = use === 'once'
      const presented = { once, generation, kid: this.#core.mint.kid, binding, reuseWindow: once ? 0 : this.#core.options.reuseWindow, by: null }
      const outcome = await this.#core.store.rotate(id, client === undefined ? presented : { ...presented, client }, context.op)
      return await this.#rotated(outcome, id, context)
    }, session => [session])
  }

  async #rotated (outcome: RotateOutcome, id: string, context: HookContext): Promise<SessionRecord> {
    switch (outcome.status) {
      case 'rotated':
        this.#core.stats.tallies.rotated.add(outcome.session.tenant, outcome.session.client ?? '')
        if (outcome.recovered) this.#core.stats.recovered++
        if (this.#core.hooks.has('postRotate')) await this.#core.hooks.after('postRotate', outcome.session, context)
        return outcome.session
      case 'repeated':
        return outcome.session
      case 'reused': {
        const [session] = outcome.ended
        this.#core.stats.tallies.reused.add(outcome.ending.tenant, session?.client ?? '')
        this.#tellEnded(outcome.ended, outcome.ending)
        if (session !== undefined) this.#core.hooks.tell('onReuse', session, outcome.ending)
        throw new TokenReused()
      }
      case 'refused':
        throw new TokenInvalid({ cause: new TokenMismatch(outcome.by) })
      case 'unknown':
        throw await this.#core.verifier.whyGone(id)
    }
  }

  async #end (id: string, { reason, by, detail }: Omit<EndCause, 'op'>, context: HookContext): Promise<boolean> {
    const revocation: Revocation = { id, reason, by }
    const cause = { reason, by, op: context.op, ...detail !== undefined && { detail } }
    if (this.#core.hooks.has('preRevoke')) await this.#core.hooks.before('preRevoke', revocation, context)
    const ended = await this.#core.hooks.around({ ...revocation }, context, async () => {
      // Where the store did not answer it may have ended the session all the same: this process no longer serves it.
      const ended = await this.#core.store.end([id], cause).finally(() => forget(this.#core, [id]))
      this.#tellEnded(ended, { ...cause, at: this.#core.store.now() })
      const [session] = ended
      if (session !== undefined && this.#core.hooks.has('postRevoke')) {
        const { tenant, sub } = session
        await this.#core.hooks.after('postRevoke', { ...revocation, subject: { tenant, sub }, count: 1 }, context)
      }
      return ended
    }, ended => ended)
    return ended.length > 0
  }

  /** An operation, with a name of its own, and observed. */
  #run<T> (operation: OperationName, work: (context: HookContext) => Promise<T>): Promise<T> {
    const context = new HookContext(operation, this.#core.newOp(), this.#request)
    return this.#core.observers.run({ layer: 'registry', name: operation, request: this.#request }, () => work(context))
  }

  #tellEvicted (evicted: readonly EndedSession[]): void {
    for (const { session, ending } of evicted) this.#tellEnded([session], ending)
  }

  #tellEnded (ended: readonly SessionRecord[], cause: Omit<Ending, 'id' | 'tenant' | 'sub'>): void {
    tellEnded(this.#core, ended, cause)
  }
}

/** Ends sessions whose answer is withheld: no hook can stop it. */
export async function withdraw (core: Core, ids: readonly string[]): Promise<void> {
  const { store, newOp } = core
  const cause = { reason: 'withdrawn', by: null, op: newOp() }
  tellEnded(core, await store.end(ids, cause).finally(() => forget(core, ids)), { ...cause, at: store.now() })
}

/** What a process no longer serves from its cache. */
export function forget ({ verifier, watches }: Pick<Core, 'verifier' | 'watches'>, ids: readonly string[] | 'all'): void {
  verifier.invalidate(ids)
  watches.invalidate(ids)
}

export function tellEnded ({ hooks, stats }: Pick<Core, 'hooks' | 'stats'>, ended: readonly SessionRecord[], { reason, by, op, at, detail }: Omit<Ending, 'id' | 'tenant' | 'sub'>): void {
  for (const session of ended) {
    const { id, tenant, sub } = session
    stats.tallies.ended.add(tenant, reason)
    hooks.tell('onEnd', session, { id, tenant, sub, reason, by, op, at, ...detail !== undefined && { detail } })
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
