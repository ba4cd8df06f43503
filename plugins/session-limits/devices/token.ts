import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

const PREFIX = 'dev_'
const ID_BYTES = 16
const MAC_BYTES = 16

// Base64url has one form (RFC 4648, section 3.5): the bits that a last character does not need are zero.
const form = /^dev_([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])$/
const idForm = /^[A-Za-z0-9_-]{21}[AQgw]$/

/** Whether a text has the form of a device's id. */
export function isDeviceId (id: unknown): id is string {
  return typeof id === 'string' && idForm.test(id)
}

/** A new id, of a device that was never seen. */
export function newDeviceId (): string {
  return randomBytes(ID_BYTES).toString('base64url')
}

/**
 * Tokens by which clients show which device they are: `dev_`, then base64url of the id's 16 bytes and 16 bytes of HMAC-SHA-256 over all before.
 * The MAC proves that we gave the id out; it does not prove who asks.
 */
export class DeviceTokens {
  readonly #first: Buffer
  readonly #keys: readonly Buffer[]

  /** @param keys 32 bytes each: the first signs, all verify */
  constructor (keys: readonly Buffer[]) {
    const [first] = keys
    if (first === undefined || keys.some(key => key.length !== 32)) throw new RangeError('device tokens need keys of 32 bytes, at least one')
    this.#first = first
    this.#keys = keys
  }

  /** @param id as `isDeviceId` knows it */
  sign (id: string): string {
    const bytes = Buffer.from(id, 'base64url')
    return PREFIX + Buffer.concat([bytes, macOf(bytes, this.#first)]).toString('base64url')
  }

  /** @returns the id of the device; null for a token that we did not sign */
  open (token: string): string | null {
    const [, encoded] = form.exec(token) ?? []
    if (encoded === undefined) return null
    const bytes = Buffer.from(encoded, 'base64url')
    const id = bytes.subarray(0, ID_BYTES)
    const mac = bytes.subarray(ID_BYTES)
    return this.#keys.some(key => timingSafeEqual(mac, macOf(id, key))) ? id.toString('base64url') : null
  }
}

function macOf (id: Buffer, key: Buffer): Buffer {
  return createHmac('sha256', key).update(PREFIX).update(id).digest().subarray(0, MAC_BYTES)
}
