import { lookup as systemLookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { DurationSchema, faultOf, type Duration } from '../../token-registry/index.ts'
import { Undeliverable, type Channel, type Notification } from './event.ts'
import { msBetween, refuse } from './options.ts'
import { post } from './post.ts'
import { isPublic, publicOnly } from './public-address.ts'
import { keyOf, secretFault, signed } from './webhook-signature.ts'

export interface WebhookOptions {
  /** `https:`, without user and password; with `allowPrivate` also `http:`. */
  url: string
  /**
   * Signs: at least 32 bytes, as text, or as `whsec_` and base64. Each of a list signs, so that a receiver can change from one to the next. One for each
   * receiver: who has it can sign for the others.
   */
  secret: string | readonly string[]
  /** Whether it may lead to private, loopback and other special addresses, false. */
  allowPrivate?: boolean
  /** For all of a try, 5 s. */
  timeout?: Duration
  /** Certificates (PEM) that are trusted in place of the usual ones. */
  ca?: string
  /** Finds addresses, as `dns.lookup` does, which is used where it is left out. What it finds is checked. */
  lookup?: LookupFunction
}

const name = 'webhookChannel'
const Options = Type.Object({
  // Not shown in messages, and so checked by hand: they are secrets, or hold some.
  url: Type.Unknown(),
  secret: Type.Unknown(),
  ca: Type.Optional(Type.String({ errorMessage: 'certificates in PEM' })),
  allowPrivate: Type.Boolean({ default: false, errorMessage: 'true or false' }),
  timeout: Type.Unsafe<Duration>({ ...DurationSchema, default: 5000 }),
  lookup: Type.Optional(Type.Unsafe<LookupFunction>(Type.Function([], Type.Unknown(), { errorMessage: 'a function like dns.lookup' })))
}, { additionalProperties: false })

/**
 * Posts notifications as JSON to a URL, signed as Standard Webhooks 1.0.0 says.
 *
 * A 2xx is success. 408, 429, 5xx and no answer are worth another try, any other status is not; redirects are not followed. Unless `allowPrivate`, the
 * addresses that the host has at the time of the try must all be public.
 *
 * @throws {LimitOptions} names the option; never shows URL or secret
 */
export function webhookChannel (given: WebhookOptions): Channel {
  const options = Value.Default(Options, { ...given })
  refuse(faultOf(Options, options, name))
  const { url: address, secret, allowPrivate, ca, lookup = systemLookup, ...rest } = options as Static<typeof Options> // no fault was found with it
  const url = checkedUrl(address, allowPrivate)
  const keys = checkedKeys(secret)
  const timeout = msBetween(`${name}.timeout`, rest.timeout, 10, 60_000)
  const connection = { lookup: allowPrivate ? lookup : publicOnly(lookup), timeout, ca }

  return async function webhook (notification, { signal }) {
    const body = JSON.stringify(payloadOf(notification))
    const headers = { 'content-type': 'application/json', 'user-agent': 'fastify-token-registry', ...signed(keys, notification.id, Date.now(), body) }
    const status = await post(url, headers, body, { ...connection, signal }).catch(error => { throw unreached(url, error) })
    if (status >= 200 && status < 300) return
    const answer = `the webhook at ${url.host} answered ${status}`
    throw status === 408 || status === 429 || status >= 500 ? new Error(answer) : new Undeliverable(answer)
  }
}

/** Type, time and data, as Standard Webhooks recommends. */
function payloadOf ({ type, at, ...data }: Notification): unknown {
  return { type, timestamp: new Date(at).toISOString(), data }
}

/** Without the original, which holds certificates or what was answered. */
function unreached ({ host }: URL, error: Error & { code?: string }): Error {
  return error instanceof Undeliverable ? error : new Error(`the webhook at ${host} was not reached: ${error.code ?? error.message}`)
}

function checkedUrl (given: unknown, allowPrivate: boolean): URL {
  const url = typeof given === 'string' && URL.canParse(given) ? new URL(given) : null
  if (url === null || !(url.protocol === 'https:' || (allowPrivate && url.protocol === 'http:'))) return refuse(`${name}.url is no https: URL (http: goes only with allowPrivate)`)
  if (url.username !== '' || url.password !== '') refuse(`${name}.url holds a user or password: it may hold none, since the signature proves who sends`)
  const address = url.hostname.replace(/^\[|\]$/g, '')
  if (!allowPrivate && isIP(address) !== 0 && !isPublic(address)) refuse(`${name}.url leads to ${address}, which is not public: that goes only with allowPrivate`)
  return url
}

function checkedKeys (given: unknown): Buffer[] {
  const secrets: unknown[] = Array.isArray(given) ? given : [given]
  if (secrets.length === 0) refuse(`${name}.secret is an empty list: it may be text, or a list`)
  return secrets.map(secret => {
    if (typeof secret !== 'string') return refuse(`${name}.secret is of type ${typeof secret}: it may be text of at least 32 bytes; make one with: openssl rand -base64 32`)
    const fault = secretFault(secret)
    if (fault !== null) refuse(`${name}.secret ${fault}`)
    return keyOf(secret)
  })
}
