import { createHmac } from 'node:crypto'
import { weakness } from '../../token-registry/index.ts'

/** How Standard Webhooks write a secret: base64 with this before it. */
const PREFIX = 'whsec_'

/** @returns the fault, to be read after the name of the secret, or null */
export function secretFault (secret: string): string | null {
  if (!secret.startsWith(PREFIX)) return weakness(secret)
  const text = secret.slice(PREFIX.length)
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return `begins with ${PREFIX}: base64 must follow`
  const { length } = keyOf(secret)
  return length < 32 ? `has ${length} bytes: at least 32 are needed` : weakness(text)
}

export function keyOf (secret: string): Buffer {
  return secret.startsWith(PREFIX) ? Buffer.from(secret.slice(PREFIX.length), 'base64') : Buffer.from(secret)
}

/**
 * The headers of Standard Webhooks 1.0.0 (`v1`): HMAC-SHA-256 of id, time of the try and body, once for each key.
 *
 * @param at ms since the epoch
 */
export function signed (keys: readonly Buffer[], id: string, at: number, body: string): Record<string, string> {
  const seconds = Math.floor(at / 1000)
  const signatures = keys.map(key => `v1,${createHmac('sha256', key).update(`${id}.${seconds}.${body}`).digest('base64')}`)
  return { 'webhook-id': id, 'webhook-timestamp': String(seconds), 'webhook-signature': signatures.join(' ') }
}
