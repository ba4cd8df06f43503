import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import { randomBytes } from '../random.ts'

const NONCE = 12
const TAG = 16

/** A key that seals, and the proof of which key it was. */
export interface SealingKey {
  /** AES-256 */
  readonly key: Buffer
  /** Of it no other key has this: AES-GCM alone lets two keys open one box. */
  readonly commitment: string
}

/** @param secret 32 bytes */
export function sealingKey (secret: Buffer): SealingKey {
  const derived = (purpose: string): Buffer => createHmac('sha256', secret).update(`fastify-token-registry audit ${purpose}`).digest()
  return { key: derived('seal'), commitment: derived('commitment').toString('base64url') }
}

/**
 * AES-256-GCM (NIST SP 800-38D) with a random nonce: at most 2^32 texts a key.
 *
 * @param bound what it is bound to: it opens only with the same
 * @returns nonce, ciphertext and tag, as base64url
 */
export function seal (key: Buffer, text: string, bound: string): string {
  const nonce = randomBytes(NONCE)
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(bound))
  return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64url')
}

/** @returns null where it is not what was sealed */
export function open (key: Buffer, box: string, bound: string): string | null {
  const bytes = Buffer.from(box, 'base64url')
  if (bytes.length < NONCE + TAG) return null
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE)).setAAD(Buffer.from(bound)).setAuthTag(bytes.subarray(-TAG))
  try {
    return decipher.update(bytes.subarray(NONCE, -TAG)).toString('utf8') + decipher.final('utf8')
  } catch {
    return null
  }
}
