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
  /** `redis://` or, with TLS, `rediss://`: user, password, host, port and database number */
  url?: string
  /** Some nodes of a Cluster: they name the others. */
  nodes?: readonly Address[]
  /** Sentinels; with `name`. */
  sentinels?: readonly Address[]
  /** The group that the Sentinels watch. */
  name?: string
  /** A client of the host's, such as `fastify.redis` of `@fastify/redis`: it is not closed. */
  client?: Client
  /** ACL user; goes with `password`, and with `nodes` or `sentinels`: a `url` has its own. */
  username?: string
  password?: string
  sentinelUsername?: string
  sentinelPassword?: string
  /** 0 by default; a Cluster has only that. */
  database?: number
  /** For `nodes` and `sentinels`, or further settings for a `rediss://` URL. */
  tls?: boolean | ConnectionOptions
  /** Before the name of every key, `'tr:'`. Stores with different ones never meet. */
  keyPrefix?: string
  /** Until a connection counts as failed, 2 s. */
  connectTimeout?: Duration
  /** Until a command counts as failed, and its connection as dead, 1 s. */
  commandTimeout?: Duration
  /** For how long an ending is kept, at most a year; a day by default. */
  keepEndings?: Duration
  /** Whether the server is to be there at start, true. Else the service comes up, and answers 503 until Redis does. */
  requireAtStart?: boolean
}

const DAY = 86_400_000
const address = Type.Object({
  host: Type.String({ minLength: 1, errorMessage: 'a host name or address' }),
  port: Type.Integer({ minimum: 1, maximum: 65535, errorMessage: 'a port, 1 to 65535' })
}, { additionalProperties: false, errorMessage: '{ host, port }' })
const addresses = Type.Optional(Type.Array(address, { minItems: 1, maxItems: 1000, errorMessage: 'a list of { host, port }' }))
const someText = () => Type.Optional(Type.String({ minLength: 1, errorMessage: 'text' }))

const Options = Type.Object({
  url: Type.Optional(Type.String({ pattern: '^rediss?://', errorMessage: 'a URL that begins with redis:// or rediss://' })),
  nodes: addresses,
  sentinels: addresses,
  name: someText(),
  client: Type.Optional(Type.Unknown()),
  username: someText(),
  password: someText(),
  sentinelUsername: someText(),
  sentinelPassword: someText(),
  database: Type.Optional(Type.Integer({ minimum: 0, errorMessage: 'a whole number from 0' })),
  tls: Type.Optional(Type.Union([Type.Boolean(), Type.Object({})], { errorMessage: 'true, false or options of tls.connect' })),
  keyPrefix: Type.String({ minLength: 1, maxLength: 64, pattern: '^[^{}]*$', default: 'tr:', errorMessage: 'text of 1 to 64 characters without braces' }),
  connectTimeout: Type.Unsafe<Duration>({ ...DurationSchema, default: 2000 }),
  commandTimeout: Type.Unsafe<Duration>({ ...DurationSchema, default: 1000 }),
  keepEndings: Type.Unsafe<Duration>({ ...DurationSchema, default: DAY }),
  requireAtStart: Type.Boolean({ default: true, errorMessage: 'true or false' })
}, { additionalProperties: false })

type Defaulted = 'keyPrefix' | 'connectTimeout' | 'commandTimeout' | 'keepEndings' | 'requireAtStart'
type Times = Record<'connectTimeout' | 'commandTimeout' | 'keepEndings', number>

/** Options as they are used: complete, checked, durations in ms. */
export type ResolvedOptions = Omit<RedisStoreOptions, Defaulted> & Times & { keyPrefix: string, requireAtStart: boolean }

const ways = ['url', 'nodes', 'sentinels', 'client'] as const
const secrets = ['url', 'password', 'sentinelPassword', 'username', 'sentinelUsername'] as const

/** @throws {StoreOptions} names the option, what it was and what it may be; never a URL, user or password */
export function resolveOptions (given: RedisStoreOptions): ResolvedOptions {
  const options = Value.Default(Options, { ...given })
  for (const name of secrets) {
    if (given[name] !== undefined && Value.Errors(Options.properties[name], given[name]).First() !== undefined) {
      throw new StoreOptions(`${name} is not what it may be: ${name === 'url' ? 'a URL that begins with redis:// or rediss://' : 'text'}`)
    }
  }
  const fault = faultOf(Options, options, '')
  if (fault !== null) throw new StoreOptions(fault)
  const { connectTimeout, commandTimeout, keepEndings, ...rest } = options as RedisStoreOptions & Required<Pick<RedisStoreOptions, Defaulted>> // no fault was found with it

  const chosen = ways.filter(name => rest[name] !== undefined)
  if (chosen.length !== 1) throw new StoreOptions(`${chosen.length === 0 ? 'none' : chosen.join(' and ')} of url, nodes, sentinels and client is given: give one`)
  const [way] = chosen
  if (rest.url !== undefined && !URL.canParse(rest.url)) throw new StoreOptions('url is not a URL: it may be redis://[user:password@]host[:port][/database], its parts percent-encoded')
  if ((way === 'sentinels') !== (rest.name !== undefined)) throw new StoreOptions('sentinels and name go together: name is the group that they watch')
  if (way === 'nodes' && (rest.database ?? 0) !== 0) throw new StoreOptions('database goes not with nodes: a Cluster has only database 0')
  for (const name of ['username', 'password', 'database', 'tls'] as const) {
    if (way === 'client' && rest[name] !== undefined) throw new StoreOptions(`${name} goes not with client, which has its own`)
  }
  if (rest.username !== undefined && rest.password === undefined) throw new StoreOptions('username goes with password')
  return {
    ...rest,
    connectTimeout: within('connectTimeout', connectTimeout, 10, 60_000),
    commandTimeout: within('commandTimeout', commandTimeout, 10, 60_000),
    keepEndings: within('keepEndings', keepEndings, 1000, 365 * DAY)
  }
}

function within (name: string, duration: Duration, min: number, max: number): number {
  const ms = milliseconds(duration)
  if (!(ms >= min && ms <= max)) throw new StoreOptions(`${name} is ${ms} ms: it may be ${min} to ${max}`)
  return ms
}
