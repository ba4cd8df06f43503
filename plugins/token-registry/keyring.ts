import { createHash, hkdfSync, timingSafeEqual } from 'node:crypto'
import { TokenOptions } from './errors.ts'
import { Mac } from './mac.ts'
import { weakness } from './secret-strength.ts'

/** Bytes of a MAC: HMAC-SHA-256, truncated. */
export const MAC_BYTES = 16

/** The keys that sign tokens: the first secret signs, all verify. */
export class Keyring {
  /** Names the key that signs. */
  readonly kid: number
  readonly #macs = new Map<number, Mac>()

  /**
   * @param secrets each at least 32 bytes
   * @param length of every message, bytes
   * @throws {TokenOptions} where there is none, one is weak, or two share a kid
   */
  constructor (secrets: readonly string[], length: number) {
    const [first] = secrets
    if (first === undefined) throw new TokenOptions('secret is an empty list: give at least one')
    this.kid = kidOf(first)

    for (const [index, secret] of secrets.entries()) {
      const name = secrets.length === 1 ? 'secret' : `secret.${index}`
      const fault = weakness(secret)
      if (fault !== null) throw new TokenOptions(`${name} ${fault}; make one with: openssl rand -base64 32`)
      const kid = kidOf(secret)
      if (this.#macs.has(kid)) throw new TokenOptions(`${name} has the same key id as one before it: replace it`)
      this.#macs.set(kid, new Mac(Buffer.from(hkdfSync('sha256', secret, '', 'fastify-token-registry token mac', 32)), length, MAC_BYTES))
    }
  }

  has (kid: number): boolean {
    return this.#macs.has(kid)
  }

  /**
   * @param kid one that `has` knows
   * @returns the MAC of a message, which the next call overwrites
   */
  sign (kid: number, message: Buffer): Buffer {
    const mac = this.#macs.get(kid)
    if (mac === undefined) throw new RangeError('no secret of that key id')
    return mac.sign(message)
  }

  /** Compares in constant time; false where the key is unknown. */
  verify (kid: number, message: Buffer, mac: Buffer): boolean {
    return this.has(kid) && timingSafeEqual(this.sign(kid, message), mac)
  }
}

function kidOf (secret: string): number {
  return createHash('sha256').update('fastify-token-registry kid').update(secret).digest().readUInt8(0)
}
