import { hash, randomFillSync } from 'node:crypto'
import { Keyring, MAC_BYTES } from './keyring.ts'
import type { Subject, TokenUse } from './record.ts'

/*
 * A token is `<prefix>_` + base64url of:  kid 1 | tag 3 | secret 18 | generation 4 | MAC 16
 * A session id is base64url of:           tag 3 | first 15 bytes of SHA-256(secret)
 * The MAC covers the prefix and all before it. Offsets here count from the prefix.
 */
const PREFIX = 4
const KID = PREFIX
const TAG = KID + 1
const SECRET = TAG + 3
const GENERATION = SECRET + 18
const MAC = GENERATION + 4
const END = MAC + MAC_BYTES
const LENGTH = PREFIX + (END - PREFIX) / 3 * 4

const prefixes: Record<TokenUse, string> = { session: 'trs_', refresh: 'trr_', once: 'tro_' }
const uses = new Map<string, TokenUse>([['trs_', 'session'], ['trr_', 'refresh'], ['tro_', 'once']])
// 42 bytes fill 56 characters exactly, so that the alphabet alone makes them canonical.
const canonical = /^[A-Za-z0-9_-]+$/

// Tokens are taken apart and put together here: nothing waits in between, so one buffer serves all.
const bytes = Buffer.alloc(END)
const message = bytes.subarray(0, MAC)
const mac = bytes.subarray(MAC)
const secret = bytes.subarray(SECRET, GENERATION)
// An id is made here, so that it is one flat string; what is written beyond its end is left out.
const idBytes = Buffer.alloc(18)

/** What a token whose MAC is right says. */
export interface OpenedToken {
  id: string
  use: TokenUse
  generation: number
}

/** Mints the registry's own tokens, opens them, and makes their successors. */
export class TokenMint {
  readonly #keyring: Keyring

  /** @param secrets as the `secret` option */
  constructor (secrets: readonly string[]) {
    this.#keyring = new Keyring(secrets, MAC)
  }

  /** Names the key that signs new tokens. */
  get kid (): number {
    return this.#keyring.kid
  }

  /** A fresh token of generation 0, and the id of its session. */
  mint (use: TokenUse, subject: Subject): { token: string, id: string } {
    bytes.write(tagOf(subject), TAG, 'base64url')
    drawSecret()
    const token = this.#seal(use, 0, this.#keyring.kid)
    return { token, id: idOf() }
  }

  /** @returns null for what is not a token of ours with the right MAC */
  open (token: string): OpenedToken | null {
    const use = unpack(token)
    if (use === null || !this.#keyring.verify(bytes.readUInt8(KID), message, mac)) return null
    return { id: idOf(), use, generation: bytes.readUInt32BE(GENERATION) }
  }

  /**
   * The token of another generation of the same session: computed, since none is stored.
   *
   * @param token one that `open` accepted
   * @param kid the key that signed that generation first; where it has left the ring, the one that signs
   */
  successor (token: string, generation: number, kid: number | null): string {
    const use = unpack(token)
    if (use === null) throw new TypeError('only a token of the registry has a successor')
    return this.#seal(use, generation, kid !== null && this.#keyring.has(kid) ? kid : this.#keyring.kid)
  }

  #seal (use: TokenUse, generation: number, kid: number): string {
    writePrefix(use)
    bytes.writeUInt8(kid, KID)
    bytes.writeUInt32BE(generation, GENERATION)
    this.#keyring.sign(kid, message).copy(mac)
    return prefixes[use] + bytes.toString('base64url', PREFIX)
  }
}

/** Whether text has the prefix of the registry's own tokens. */
export function looksLikeOurs (token: string): boolean {
  return uses.has(token.slice(0, PREFIX))
}

/** Whether a token that the caller made can be one: 8 to 512 characters, and no NUL, which tells the ids of marks apart. */
export function isAdoptable (token: string): boolean {
  return token.length >= 8 && token.length <= 512 && !token.includes('\0')
}

/** The session id of a token that the caller made: the first 18 bytes of its SHA-256. */
export function adoptedId (token: string): string {
  idBytes.write(hash('sha256', token, 'binary'), 'latin1')
  return idBytes.toString('base64url')
}

/** A string that no other subject has. */
export function subjectKey ({ tenant, sub }: Subject): string {
  return `${tenant.length}:${tenant}${sub.length}:${sub}`
}

/** The first 3 bytes of SHA-256 of the subject, as base64url: all keys of a subject share a slot of a Redis Cluster, and the id alone says which. */
export function tagOf (subject: Subject): string {
  return hash('sha256', subjectKey(subject), 'base64url').slice(0, 4)
}

/** Fills the buffer from a token. @returns what it is for; null where it is not of our form */
function unpack (token: string): TokenUse | null {
  const use = token.length === LENGTH && canonical.test(token) ? uses.get(token.slice(0, PREFIX)) : undefined
  if (use === undefined) return null
  writePrefix(use)
  bytes.write(token.slice(PREFIX), PREFIX, 'base64url')
  return use
}

/** By character: there are four, and a call of `write` costs more. */
function writePrefix (use: TokenUse): void {
  const prefix = prefixes[use]
  for (let i = 0; i < PREFIX; i++) bytes[i] = prefix.charCodeAt(i)
}

/** The id of the session whose token the buffer holds. */
function idOf (): string {
  bytes.copy(idBytes, 0, TAG, SECRET)
  idBytes.write(hash('sha256', secret, 'binary'), SECRET - TAG, 'latin1')
  return idBytes.toString('base64url')
}

// Random bytes cost least by the page. What was drawn is wiped.
const pool = Buffer.alloc(18 * 256)
let drawn = pool.length

function drawSecret (): void {
  if (drawn === pool.length) {
    randomFillSync(pool)
    drawn = 0
  }
  pool.copy(secret, 0, drawn, drawn + secret.length)
  pool.fill(0, drawn, drawn += secret.length)
}
