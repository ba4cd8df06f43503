import { isThenable, within } from './deadline.ts'
import { StoreTimeout, TokenInvalid, TokenMissing, TokenValidation } from './errors.ts'
import type { SessionRecord, TokenUse } from './record.ts'
import { generationValidUntil } from './rotation.ts'
import { adoptedId, isAdoptable, looksLikeOurs, type TokenMint } from './token.ts'

/** Another kind of token that proves a session, such as a JWT. */
export interface TokenType {
  name: string
  /** Whether a token is of this kind, by its looks. */
  matches (token: string): boolean
  /** Checks a token. Throws where it is not valid: the caller then gets `FST_TOKEN_INVALID`, and an error of this package that is `critical` as it is. */
  open (token: string): ForeignToken | Promise<ForeignToken>
}

export interface ForeignToken {
  /** Id of the session that it proves. */
  sid: string
  /** ms since the epoch, by when the token itself expires */
  expiresAt: number
  /** A `scope` among them narrows that of the session, and `sub` must be the session's. */
  claims: Record<string, unknown>
}

/** What a token says of itself, before the store is asked. */
export interface Claim {
  /** Id of the session. */
  id: string
  kind: 'minted' | 'adopted' | 'foreign'
  /** null where only the record tells */
  use: TokenUse | null
  /** null where the token has none */
  generation: number | null
  /** Deadline of the token itself, ms since the epoch. */
  expiresAt: number
  claims: Record<string, unknown>
}

const NO_CLAIMS: Record<string, unknown> = Object.freeze({})

/** Tells the kinds of tokens apart, and checks what can be checked without the store. */
export class TokenOpener {
  readonly #mint: TokenMint
  readonly #timeout: number
  readonly #types: TokenType[] = []

  /** @param timeout ms that a token type may take to open a token */
  constructor (mint: TokenMint, timeout: number) {
    this.#mint = mint
    this.#timeout = timeout
  }

  add (type: TokenType): void {
    if (this.#types.some(({ name }) => name === type.name)) throw new TokenValidation(`the token type ${type.name} is there already`)
    this.#types.push(type)
  }

  /** Whether a token is of a kind that was added. */
  isForeign (token: string): boolean {
    return this.#types.some(type => type.matches(token))
  }

  /** @throws {TokenMissing | TokenInvalid} */
  open (token: string): Claim | Promise<Claim> {
    checkText(token)
    if (looksLikeOurs(token)) {
      const opened = this.#mint.open(token)
      if (opened === null) throw new TokenInvalid()
      return { id: opened.id, kind: 'minted', use: opened.use, generation: opened.generation, expiresAt: Infinity, claims: NO_CLAIMS }
    }
    const type = this.#types.find(type => type.matches(token))
    if (type !== undefined) return this.#openForeign(type, token)
    if (!isAdoptable(token)) throw new TokenInvalid()
    return { id: adoptedId(token), kind: 'adopted', use: null, generation: null, expiresAt: Infinity, claims: NO_CLAIMS }
  }

  /** As `open`, but null for a token that is not valid. */
  async tryOpen (token: string): Promise<Claim | null> {
    try {
      return await this.open(token)
    } catch (error) {
      if (error instanceof Error && 'critical' in error && error.critical === true) throw error
      return null
    }
  }

  async #openForeign (type: TokenType, token: string): Promise<Claim> {
    const late = () => new StoreTimeout(`the token type ${type.name}`, this.#timeout)
    try {
      const opening = type.open(token)
      const { sid, expiresAt, claims } = isThenable(opening) ? await within(opening, this.#timeout, late) : opening
      // A deadline of NaN would never pass.
      if (claims.scope !== undefined && typeof claims.scope !== 'string') throw new TypeError(`the token type ${type.name} gave a scope that is no text`)
      if (typeof sid !== 'string' || typeof expiresAt !== 'number' || Number.isNaN(expiresAt)) throw new TypeError(`the token type ${type.name} gave no sid or expiresAt`)
      return { id: sid, kind: 'foreign', use: null, generation: null, expiresAt, claims }
    } catch (error) {
      if (error instanceof Error && 'critical' in error) throw error
      throw new TokenInvalid({ cause: error })
    }
  }
}

/**
 * Bodies and other callers without types give anything for a token.
 *
 * @throws {TokenMissing | TokenInvalid}
 */
export function checkText (token: unknown): asserts token is string {
  if (token === undefined || token === null || token === '') throw new TokenMissing()
  if (typeof token !== 'string') throw new TokenInvalid()
}

/** Whether what was claimed may make requests as the session that was found. */
export function authenticates (claim: Claim, { use, sub }: SessionRecord): boolean {
  switch (claim.kind) {
    case 'minted': return claim.use === 'session'
    case 'adopted': return use === 'session'
    // A JWT is made for requests, also where the session's own token only rotates.
    case 'foreign': return use !== 'once' && (claim.claims.sub === undefined || claim.claims.sub === sub)
  }
}

/** Until when a claim proves the session that was found, ms since the epoch; null where it does not, or no longer. */
export function provesUntil (claim: Claim, session: SessionRecord, reuseWindow: number, now: number): number | null {
  if (session.use === 'once' && session.generation > 0) return null // consumed
  const until = claim.generation === null ? session.expiresAt : generationValidUntil(session, claim.generation, reuseWindow, now)
  return until === null || claim.expiresAt <= now ? null : Math.min(until, claim.expiresAt)
}
