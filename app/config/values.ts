import { createPrivateKey, randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import { milliseconds, Operators, weakness } from 'fastify-token-registry'
import { webhookAnchor } from 'fastify-token-registry/audit'
import { parseVkey } from 'fastify-token-registry/audit/verify'
import { jwtKeys, type JwtKey } from 'fastify-token-registry/session-jwt'
import { webhookChannel } from 'fastify-token-registry/session-limits'
import { isEmail } from '../users/email.ts'

const HOUR = 3_600_000

/** How many requests are let through in a window of time. */
export interface RateLimit {
  readonly max: number
  readonly timeWindowMs: number
}

/** `15m` → 900000. */
export function duration (text: string): number {
  const ms = milliseconds(text)
  return Number.isNaN(ms) ? refuse('not a duration') : ms
}

/** A duration of an hour at most: orchestrators wait no longer, and timers overflow after 24 days. */
export function delay (text: string): number {
  const ms = duration(text)
  return ms <= HOUR ? ms : refuse('too long')
}

/** `100/15m`, or `off`. */
export function rateLimit (text: string): RateLimit | false {
  if (text === 'off') return false
  const [max, window, ...rest] = text.split('/')
  const limit = { max: Number(max), timeWindowMs: duration(window ?? '') }
  const valid = /^\d{1,9}$/.test(max ?? '') && rest.length === 0 && limit.max > 0 && limit.timeWindowMs > 0
  return valid ? limit : refuse('not a rate limit')
}

/** A number of sessions, or `off`. */
export function sessionLimit (text: string): number | false {
  if (text === 'off') return false
  return /^[1-9]\d{0,6}$/.test(text) && Number(text) <= 1_000_000 ? Number(text) : refuse('not a number of sessions')
}

/** `https://a.example,https://b.example`, or `*`, or `off`. */
export function origins (text: string): readonly string[] | '*' | false {
  if (text === 'off') return false
  if (text === '*') return '*'
  return list(text).map(origin => httpUrl(origin).origin === origin ? origin : refuse('more than an origin'))
}

/** `true`, `false`, or the addresses of the proxies in front. */
export function trustedProxies (text: string): boolean | readonly string[] {
  if (text === 'true' || text === 'false') return text === 'true'
  return list(text).map(proxy => isProxy(proxy) ? proxy : refuse('not an address'))
}

/** What operators prove themselves by. */
export function operatorTokens (text: string): Operators {
  return new Operators({ token: list(text) }, 'METRICS_TOKEN')
}

/** From where operators ask. */
export function operatorNetworks (text: string): Operators {
  return new Operators({ allow: list(text) }, 'METRICS_ALLOW')
}

function isProxy (text: string): boolean {
  if (['loopback', 'linklocal', 'uniquelocal'].includes(text)) return true
  const [address, bits, ...rest] = text.split('/')
  const version = isIP(address ?? '')
  if (version === 0 || rest.length > 0) return false
  // Fastify refuses 0 bits: `true` is how to trust everyone.
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) > 0 && Number(bits) <= (version === 4 ? 32 : 128))
}

/** Where a server is: `https://id.example.org`, or a path below it. Without a slash at the end. */
export function baseUrl (text: string): string {
  const { origin, pathname, search, hash } = httpUrl(text)
  return search === '' && hash === '' ? (origin + pathname).replace(/\/+$/, '') : refuse('more than a place')
}

/** A page that is given something in the fragment of its URL. */
export function pageUrl (text: string): string {
  const { href, hash } = httpUrl(text)
  return hash === '' ? href.replace(/#$/, '') : refuse('a fragment of its own')
}

function httpUrl (text: string): URL {
  const url = urlOf(text, ['http:', 'https:'])
  // WHATWG's parser takes `https:host` too.
  return /^https?:\/\/[^/\s]/i.test(text) && url.username === '' && url.password === '' ? url : refuse('not of the form https://host')
}

/** Where notifications are posted. What a name leads to is checked with each of them. */
export function webhookUrl (text: string): string {
  const { href: url } = httpUrl(text)
  webhookChannel({ url, secret: randomBytes(32).toString('base64') })
  return url
}

export function webhookSecret (text: string): string {
  webhookChannel({ url: 'https://hooks.example.org', secret: text })
  return text
}

export function databaseUrl (text: string): URL {
  return urlOf(text, ['postgres:', 'postgresql:'])
}

export function smtpUrl (text: string): URL {
  const url = urlOf(text, ['smtp:', 'smtps:'])
  return url.hostname === '' ? refuse('no host') : url
}

/** `us@example.org`, or `Us <us@example.org>`. */
export function sender (text: string): string {
  const [, address = text] = /^(?:"[^"\\\p{Cc}]*"|[^"\\<>()[\]:;,@\p{Cc}]*) ?<([^<>]*)>$/u.exec(text) ?? []
  return isEmail(address) ? text : refuse('not a sender')
}

function urlOf (text: string, protocols: readonly string[]): URL {
  const url = new URL(text)
  return protocols.includes(url.protocol) ? url : refuse('another protocol')
}

/** Secrets to sign with, strong and different; the first signs. */
export function secrets (text: string): readonly string[] {
  const given = list(text)
  return new Set(given).size === given.length && !given.some(isWeak) ? given : refuse('weak or repeated')
}

/** One secret to sign with. */
export function secret (text: string): string {
  return isWeak(text) ? refuse('weak') : text
}

/** A private key as PEM, on one line with `\n` where the file has line ends. */
export function privateKey (text: string): JwtKey {
  const key = { privateKey: text.replaceAll('\\n', '\n') }
  jwtKeys(key)
  return key
}

/** Private keys as PEM, one after the other. */
export function signingKeys (text: string): readonly string[] {
  const keys = text.replaceAll('\\n', '\n').trim().split(/(?<=-----END PRIVATE KEY-----)\s+/)
  return keys.every(isEd25519) ? keys : refuse('not an Ed25519 key')
}

function isEd25519 (pem: string): boolean {
  return pem.endsWith('-----END PRIVATE KEY-----') && createPrivateKey(pem).asymmetricKeyType === 'ed25519'
}

/** What signed a log, as `origin+id+base64`. */
export function publicKeys (text: string): readonly string[] {
  return list(text).map(key => parseVkey(key) === null ? refuse('not a public key') : key)
}

/** The name of a log. Without a comma, which separates public keys. */
export function logOrigin (text: string): string {
  return /^[!-*\--~]{1,200}$/.test(text) ? text : refuse('not a name')
}

/** Where checkpoints are posted. */
export function anchorUrl (text: string): string {
  webhookAnchor(text)
  return text
}

function isWeak (text: string): boolean {
  return weakness(text) !== null
}

export function list (text: string): string[] {
  const items = text.split(',').map(item => item.trim())
  return items.includes('') ? refuse('an empty item') : items
}

function refuse (why: string): never {
  throw new Error(why)
}
