import type { ConnectionOptions } from 'node:tls'
import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { DurationSchema, faultOf, milliseconds, type Duration } from '../token-registry/index.ts'
import type { Client } from './connection.ts'
import { StoreOptions } from './errors.ts'

export interface Address {
  host: string
  port: number
}

/** Which Redis, and how it is used: one of `url`, `nodes`, `sentinels`, `client`. Durations are milliseconds, or text such as `'500ms'`. */
export interface RedisStoreOptions {
  /** `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS. */
  url?: string
  /** Some nodes of a Cluster: they name the others. */
  nodes?: readonly Address[]
  /** Sentinels; with `name`. */
  sentinels?: readonly Address[]
  /** The group that the Sentinels watch. */
  name?: string
  /** A client of the host's, such as `fastify.redis` of `@fastify/redis`: it is not closed. */
  client?: Client
  /** ACL user, with `password`; beside a `url` that names none. */
  username?: string
  /** Beside a `url` that has none. */
  password?: string
  sentinelUsername?: string
  sentinelPassword?: string
  /** 0 by default; a Cluster has only that. Beside a `url` that names none. */
  database?: number
  /** For `nodes` and `sentinels` (Sentinels too), or further settings for a `rediss://` URL. */
  tls?: boolean | ConnectionOptions
  /** Before the name of every key, `'tr:'`. Stores with different ones never meet. */
  keyPrefix?: string
  /** Until a connection counts as failed, 2 s. */
  connectTimeout?: Duration
  /** Until a command counts as failed, and its connection as dead, 1 s. */
  commandTimeout?: Duration
  /** For how long an ending is kept, at most a year; a day by default. */
  keepEndings?: Duration
  /** Between two passes that end what has expired and nobody asks for, one minute; over all processes together at most twice as often. `false`: this one makes none. */
  cleanupInterval?: Duration | false
  /** What can be searched for across subjects without reading everything: `'ip'`, `'client'`. None by default; each costs an issue a round trip. */
  indexes?: ReadonlyArray<'ip' | 'client'>
  /**
   * `'replicas'`: an ending or a rotation is answered when all replicas that are connected have it, so that no failover loses it, and else fails with
   * `FST_STORE_UNCONFIRMED`. `'none'` by default.
   */
  durability?: 'none' | 'replicas'
  /** Whether the server is to be there at start, true. Else the service comes up, and answers 503 until Redis does. */
  requireAtStart?: boolean
}

const DAY = 86_400_000
const aUrl = 'redis://[user:password@]host[:port][/database], or rediss:// for TLS; what is no letter, digit, - or _ in user and password is percent-encoded'
const address = Type.Object({
  // Not a URL by mistake, which might hold a password and is told in messages.
  host: Type.String({ pattern: '^[^/@\\s]{1,255}$', errorMessage: 'a host name or address' }),
  port: Type.Integer({ minimum: 1, maximum: 65535, errorMessage: 'a port, 1 to 65535' })
}, { additionalProperties: false, errorMessage: '{ host, port }' })
const addresses = Type.Optional(Type.Array(address, { minItems: 1, maxItems: 1000, errorMessage: 'a list of { host, port }' }))
const someText = Type.Optional(Type.String({ minLength: 1, errorMessage: 'text' }))

const Options = Type.Object({
  url: Type.Optional(Type.String({ pattern: '^rediss?://', errorMessage: aUrl })),
  nodes: addresses,
  sentinels: addresses,
  name: someText,
  client: Type.Optional(Type.Unknown()),
  username: someText,
  password: someText,
  sentinelUsername: someText,
  sentinelPassword: someText,
  database: Type.Optional(Type.Integer({ minimum: 0, errorMessage: 'a whole number from 0' })),
  tls: Type.Optional(Type.Union([Type.Boolean(), Type.Object({})], { errorMessage: 'true, false or options of tls.connect' })),
  keyPrefix: Type.String({ minLength: 1, maxLength: 64, pattern: '^[^{}]*$', default: 'tr:', errorMessage: 'text of 1 to 64 characters without braces' }),
  connectTimeout: Type.Unsafe<Duration>({ ...DurationSchema, default: 2000 }),
  commandTimeout: Type.Unsafe<Duration>({ ...DurationSchema, default: 1000 }),
  keepEndings: Type.Unsafe<Duration>({ ...DurationSchema, default: DAY }),
  cleanupInterval: Type.Union([...DurationSchema.anyOf, Type.Literal(false)], { default: 60_000, errorMessage: `${DurationSchema.errorMessage}, or false` }),
  indexes: Type.Array(Type.Union([Type.Literal('ip'), Type.Literal('client')], { errorMessage: '"ip" or "client"' }), { uniqueItems: true, default: [], errorMessage: 'a list of "ip" and "client"' }),
  durability: Type.Union([Type.Literal('none'), Type.Literal('replicas')], { default: 'none', errorMessage: '"none" or "replicas"' }),
  requireAtStart: Type.Boolean({ default: true, errorMessage: 'true or false' })
}, { additionalProperties: false })

type Defaulted = 'keyPrefix' | 'connectTimeout' | 'commandTimeout' | 'keepEndings' | 'cleanupInterval' | 'indexes' | 'durability' | 'requireAtStart'
type Times = Record<'connectTimeout' | 'commandTimeout' | 'keepEndings', number>
type Given = RedisStoreOptions & Required<Pick<RedisStoreOptions, Defaulted>>

/** Options as they are used: complete, checked, durations in ms. */
export type ResolvedOptions = Omit<RedisStoreOptions, Defaulted> & Times & { cleanupInterval: number | false, keyPrefix: string, indexes: ReadonlyArray<'ip' | 'client'>, durability: 'none' | 'replicas', requireAtStart: boolean }

const ways = ['url', 'nodes', 'sentinels', 'client'] as const
/** What is not repeated in a message: it is a secret, or one could stand there by mistake. */
const unshown = ['url', 'nodes', 'sentinels', 'name', 'username', 'password', 'sentinelUsername', 'sentinelPassword', 'tls'] as const

/** @throws {StoreOptions} names the option, what it was and what it may be; never a URL, user or password */
export function resolveOptions (given: RedisStoreOptions): ResolvedOptions {
  const options = checked(given)
  const { connectTimeout, commandTimeout, keepEndings, cleanupInterval, ...rest } = options
  checkWay(options)
  if (options.client !== undefined) checkClient(options)
  if (options.url !== undefined) checkUrl(options.url, options)
  return {
    ...rest,
    connectTimeout: within('connectTimeout', connectTimeout, 10, 60_000),
    commandTimeout: within('commandTimeout', commandTimeout, 10, 60_000),
    keepEndings: within('keepEndings', keepEndings, 1000, 365 * DAY),
    cleanupInterval: cleanupInterval !== false && within('cleanupInterval', cleanupInterval, 100, DAY)
  }
}

/** Each option for itself. */
function checked (given: RedisStoreOptions): Given {
  const { client, nodes, sentinels, tls, indexes, ...plain } = given
  // Where defaults are filled in, objects are changed or copied: they may be frozen, or be none without their methods.
  const options: Partial<RedisStoreOptions> = { ...given, ...Value.Default(Options, plain) as object, ...indexes !== undefined && { indexes } } // it adds to an object
  for (const name of unshown) {
    const fault = options[name] === undefined ? undefined : Value.Errors(Options.properties[name], options[name]).First()
    if (fault !== undefined) refuse(`${name}${fault.path.replaceAll('/', '.')} is not what it may be: ${String(fault.schema.errorMessage)}`)
  }
  const fault = faultOf(Options, options, '')
  if (fault !== null) refuse(fault)
  return options as Given // no fault was found with it
}

/** Which Redis, and what goes with that. */
function checkWay (options: Given): void {
  const [way, ...others] = ways.filter(name => options[name] !== undefined)
  if (way === undefined) refuse('none of url, nodes, sentinels and client is given: give one')
  if (others.length > 0) refuse(`${[way, ...others].join(' and ')} are given: give one`)
  if ((way === 'sentinels') !== (options.name !== undefined)) refuse('sentinels and name go together: name is the group that they watch')
  for (const name of ['sentinelUsername', 'sentinelPassword'] as const) {
    if (way !== 'sentinels' && options[name] !== undefined) refuse(`${name} goes only with sentinels`)
  }
  if (options.sentinelUsername !== undefined && options.sentinelPassword === undefined) refuse('sentinelUsername goes with sentinelPassword')
  if (way === 'nodes' && (options.database ?? 0) !== 0) refuse('database goes not with nodes: a Cluster has only database 0')
  if (way !== 'url' && options.username !== undefined && options.password === undefined) refuse('username goes with password')
}

function checkClient (options: Given): void {
  for (const name of ['username', 'password', 'database', 'tls'] as const) {
    if (options[name] !== undefined) refuse(`${name} goes not with client, which has its own`)
  }
  const client: unknown = options.client
  if (!isClient(client)) return refuse('client is no client of ioredis: with @fastify/redis it is fastify.redis, or fastify.redis.<namespace>')
  if (client.options.keyPrefix) refuse('client has a keyPrefix of its own, which scripts would not see: give keyPrefix to redis-store instead')
}

function isClient (client: unknown): client is Client {
  return typeof client === 'object' && client !== null && ['evalsha', 'duplicate', 'options'].every(name => name in client)
}

function checkUrl (text: string, { username, password, database, tls }: Given): void {
  const url = parsed(text)
  if (url === null) refuse(`url is not what it may be: ${aUrl}`)
  const [user, secure] = [username ?? url.username, url.protocol === 'rediss:']
  if (username !== undefined && url.username !== '') refuse('username is given, and url names a user too: one of them')
  if (password !== undefined && url.password !== '') refuse('password is given, and url has one too: one of them')
  if (database !== undefined && /\d/.test(url.pathname)) refuse('database is given, and url names one too: one of them')
  if (user !== '' && password === undefined && url.password === '') refuse('a user is given without a password')
  if (tls !== undefined && secure !== (tls !== false)) refuse(secure ? 'tls is false, and url begins with rediss://: with TLS or without' : 'tls is given, and url begins with redis://: with TLS it is rediss://')
}

/** Null where ioredis would make something else of it: it takes every option from a query. */
function parsed (text: string): URL | null {
  try {
    const url = new URL(text)
    decodeURIComponent(url.username + url.password)
    const sound = url.hostname !== '' && /^\/?\d{0,9}$/.test(url.pathname) && /^(\?family=[046])?$/.test(url.search) && url.hash === ''
    return sound ? url : null
  } catch {
    return null
  }
}

function within (name: string, duration: Duration, min: number, max: number): number {
  const ms = milliseconds(duration)
  return ms >= min && ms <= max ? ms : refuse(`${name} is ${ms} ms: it may be ${min} to ${max}`)
}

function refuse (fault: string): never {
  throw new StoreOptions(fault)
}
