import type { FastifyRequest } from 'fastify'
import { TokenValidation } from './errors.ts'
import { HookContext, type HookRunner } from './hooks.ts'
import type { Observers } from './observers.ts'
import type { TokenStore } from './store.ts'

/** Which JWT is meant where several issuers share the list. */
export interface DenylistOptions {
  /** The `iss` claim; ids of different issuers never meet. */
  issuer?: string
}

/** ms for which expiries are counted together */
const TOGETHER = 600_000

/** Ids of JWTs, issued elsewhere, that are no longer to be accepted: each kept until its JWT expires by itself. */
export class Denylist {
  readonly #stats = { added: 0, refused: 0 }
  /** How many this process added, by when they expire. */
  readonly #expiring = new Map<number, number>()
  readonly #store: TokenStore
  readonly #hooks: HookRunner
  readonly #observers: Observers
  readonly #newOp: () => string

  constructor (store: TokenStore, hooks: HookRunner, observers: Observers, newOp: () => string) {
    this.#store = store
    this.#hooks = hooks
    this.#observers = observers
    this.#newOp = newOp
  }

  /** `size`: entries that this process added and that have not expired, give or take ten minutes. */
  get stats (): { added: number, refused: number, size: number } {
    const now = this.#store.now()
    let size = 0
    for (const [expiresAt, count] of this.#expiring) {
      if (expiresAt <= now) this.#expiring.delete(expiresAt)
      else size += count
    }
    return { ...this.#stats, size }
  }

  /**
   * Refuses a JWT from now on. Nothing is written where it has expired.
   *
   * @param jti the `jti` claim, 1 to 512 characters
   * @param expiresAt ms since the epoch (`exp × 1000`)
   * @param options `request`: on whose behalf, for hooks
   * @returns false where it stood on the list already
   * @throws {TokenValidation}
   */
  async add (jti: string, expiresAt: number, { issuer, request = null }: DenylistOptions & { request?: FastifyRequest | null } = {}): Promise<boolean> {
    checkJti(jti)
    if (!Number.isSafeInteger(expiresAt)) throw new TokenValidation('expiresAt: is not a time in ms since the epoch (exp × 1000)')
    if (expiresAt <= this.#store.now()) return false
    const context = new HookContext('deny', this.#newOp(), request)
    const added = await this.#observers.run({ layer: 'registry', name: 'deny', request }, async () =>
      await this.#hooks.around({ id: jti }, context, async () => await this.#store.mark(purposeOf(issuer), keyOf(jti, issuer), expiresAt)))
    if (!added) return false
    this.#stats.added++
    const until = Math.ceil(expiresAt / TOGETHER) * TOGETHER
    this.#expiring.set(until, (this.#expiring.get(until) ?? 0) + 1)
    return true
  }

  /**
   * Whether a JWT is refused. The memory store answers at once, others may give a promise.
   *
   * @param options `issuedAt`, ms since the epoch: refuses as well what is older than the list itself, which a restart may have emptied
   */
  has (jti: string, options?: DenylistOptions & { issuedAt?: number }): boolean | Promise<boolean> {
    checkJti(jti)
    const issuer = options?.issuer
    const marked = this.#store.marked(purposeOf(issuer), keyOf(jti, issuer), options?.issuedAt)
    return typeof marked === 'boolean' ? this.#counted(marked) : marked.then(late => this.#counted(late))
  }

  #counted (refused: boolean): boolean {
    if (refused) this.#stats.refused++
    return refused
  }
}

function checkJti (jti: string): void {
  if (typeof jti !== 'string' || jti.length === 0 || jti.length > 512) throw new TokenValidation('jti: is not text of 1 to 512 characters')
}

function purposeOf (issuer: string | undefined): string {
  return issuer === undefined ? 'denylist' : 'denylist of issuer'
}

function keyOf (jti: string, issuer: string | undefined): string {
  return issuer === undefined ? jti : `${issuer.length}:${issuer}${jti}`
}
