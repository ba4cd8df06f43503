import { createPrivateKey, type KeyObject } from 'node:crypto'
import type { TokenRegistry } from '../token-registry/index.ts'
import { AuditOptions } from './errors.ts'
import type { Head } from './ledger.ts'
import { checkpointText, Frontier, signNote, vkeyOf } from './verify/index.ts'

/** The start of an Ed25519 private key in PKCS #8 (RFC 8410 §7), before its 32 bytes. */
const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex')

/** Says what a log is, for those who check it: the statement, and by whom. */
export class Signer {
  readonly #origin: string
  readonly #keys: readonly KeyObject[]

  /** @param keys Ed25519: each signs, so that who knows an older one can follow while keys are replaced */
  constructor (origin: string, keys: readonly KeyObject[]) {
    this.#origin = origin
    this.#keys = keys
  }

  /** Public keys, as checkers take them: `<origin>+<id>+<base64>` (C2SP signed-note). */
  get vkeys (): string[] {
    return this.#keys.map(key => vkeyOf(this.#origin, key))
  }

  /** A checkpoint (C2SP tlog-checkpoint). */
  sign ({ size, frontier }: Pick<Head, 'size' | 'frontier'>): string {
    const root = Frontier.from(size, frontier).root()
    return signNote(checkpointText({ origin: this.#origin, size, root }), this.#keys.map(privateKey => ({ name: this.#origin, privateKey })))
  }
}

/** The keys that sign a log: its own, or else from the secret of the registry. */
export function signingKeysOf (registry: Pick<TokenRegistry, 'deriveKeys'>, own: readonly KeyObject[]): readonly KeyObject[] {
  return own.length > 0 ? own : registry.deriveKeys('audit signing').map(ed25519Of)
}

/** @param seed 32 bytes */
export function ed25519Of (seed: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: 'der', type: 'pkcs8' })
}

/** @param pem PKCS #8 @throws {AuditOptions} */
export function signingKeyOf (pem: string, option: string): KeyObject {
  let key: KeyObject | null = null
  try {
    key = createPrivateKey(pem)
  } catch {} // what is wrong with it may be part of the key
  if (key?.asymmetricKeyType !== 'ed25519') throw new AuditOptions(`${option} is no Ed25519 private key in PEM: make one with openssl genpkey -algorithm ed25519`)
  return key
}
