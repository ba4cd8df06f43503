import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseEnv } from 'node:util'
import createError from '@fastify/error'
import { envSchema } from 'env-schema'
import type { JwtKey } from 'fastify-token-registry/session-jwt'
import { baseUrl, delay, list, origins, pageUrl, privateKey, publicKeys, rateLimit, secrets, sessionLimit, signingKeys, trustedProxies, webhookUrl, type RateLimit } from './config/values.ts'
import { redisUrl, type RedisPlace } from './config/redis-url.ts'
import { aSecret, formats, variables, type Variables } from './config/variables.ts'

export type { RateLimit } from './config/values.ts'

/** Variables of the environment are not what they may be. */
export const ConfigInvalid = createError<[string]>('APP_CONFIG_INVALID', 'The server does not start with this configuration:\n%s', 500)

export interface Config {
  readonly production: boolean
  readonly host: string
  readonly port: number
  readonly publicUrl: string | null
  /** The page that a reset token is given to. null: the mail holds the token alone. */
  readonly resetUrl: string | null
  /** An absolute path. */
  readonly dataDir: string
  /** null: embedded in `dataDir`. */
  readonly databaseUrl: string | null
  /** null: sessions live in the memory of the process. */
  readonly redis: RedisPlace | null
  /** The first signs. null: generated in `dataDir`, never in production. */
  readonly tokenSecrets: readonly string[] | null
  /** null: generated in `dataDir`, never in production. */
  readonly jwtKey: JwtKey | null
  readonly administrator: { readonly email: string, readonly password: string } | null
  readonly mail: { readonly smtpUrl: string | null, readonly from: string }
  /** The `origin` of @fastify/cors. */
  readonly corsOrigin: readonly string[] | '*' | false
  readonly trustProxy: readonly string[] | boolean
  readonly rateLimits: { readonly global: RateLimit | false, readonly auth: RateLimit | false }
  readonly sessionLimits: {
    /** false for any number */
    readonly perUser: number | false
    readonly perDevice: number | false
    readonly onExceed: Variables['SESSION_LIMIT_STRATEGY']
  }
  readonly audit: {
    readonly guarantee: Variables['AUDIT_GUARANTEE']
    readonly origin: string
    /** PEM: all sign. Empty: derived from the first of the token secrets. */
    readonly signingKeys: readonly string[]
    readonly formerKeys: readonly string[]
    /** The first wraps, all unwrap, and so do the token secrets. */
    readonly masterKeys: readonly string[]
    readonly anchor: { readonly file: string | null, readonly url: string | null }
    /** How the paths of files with copies begin. */
    readonly copy: string | null
  }
  /** Who reads metrics, and where. All null: whoever has a generated token; nobody, in production. */
  readonly metrics: {
    readonly tokens: readonly string[] | null
    readonly allow: readonly string[] | null
    readonly port: number | null
  }
  readonly webhook: { readonly url: string, readonly secret: string } | null
  readonly shutdownDelayMs: number
  readonly logLevel: Variables['LOG_LEVEL']
}

type Environment = Readonly<Record<string, string | undefined>>

/** The environment of the process, and what a file of `NAME=value` lines adds to it where there is one. */
export function environment (file = '.env', env: Environment = process.env): Environment {
  try {
    return { ...parseEnv(readFileSync(file, 'utf8')), ...env }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return env
    throw error
  }
}

/**
 * The configuration in an environment. A variable that is set to nothing, or blanks, counts as absent.
 *
 * @throws {ConfigInvalid} naming every variable that is not what it may be, missing, or at odds with another
 */
export function loadConfig (env: Environment): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value.trim() !== ''))
  const { values, refusals } = checked(given)
  const faults = [...refusals, ...conflicts(given)]
  if (values === null || faults.length > 0) throw new ConfigInvalid(faults.map(fault => `  ${fault}`).join('\n'))

  return deepFreeze({
    production: values.NODE_ENV === 'production',
    host: values.HOST,
    port: values.PORT,
    publicUrl: values.PUBLIC_URL === undefined ? null : baseUrl(values.PUBLIC_URL),
    resetUrl: values.RESET_URL === undefined ? null : pageUrl(values.RESET_URL),
    dataDir: resolve(values.DATA_DIR),
    databaseUrl: values.DATABASE_URL ?? null,
    redis: values.REDIS_URL === undefined ? null : redisUrl(values.REDIS_URL),
    tokenSecrets: values.TOKEN_SECRET === undefined ? null : secrets(values.TOKEN_SECRET),
    jwtKey: jwtKey(values),
    administrator: administrator(values),
    mail: { smtpUrl: values.SMTP_URL ?? null, from: values.MAIL_FROM ?? 'fastify-token-registry <no-reply@localhost>' },
    corsOrigin: origins(values.CORS_ORIGIN),
    trustProxy: trustedProxies(values.TRUST_PROXY),
    rateLimits: { global: rateLimit(values.RATE_LIMIT_GLOBAL), auth: rateLimit(values.RATE_LIMIT_AUTH) },
    sessionLimits: { perUser: sessionLimit(values.SESSION_LIMIT), perDevice: sessionLimit(values.SESSION_LIMIT_DEVICE), onExceed: values.SESSION_LIMIT_STRATEGY },
    audit: audit(values),
    metrics: metrics(values),
    webhook: webhook(values),
    shutdownDelayMs: delay(values.SHUTDOWN_DELAY),
    logLevel: values.LOG_LEVEL
  })
}

function jwtKey ({ JWT_SECRET: secret, JWT_PRIVATE_KEY: pem }: Variables): JwtKey | null {
  if (pem !== undefined) return privateKey(pem)
  return secret === undefined ? null : { secret }
}

function audit (values: Variables): Config['audit'] {
  const { AUDIT_SIGNING_KEY: pems, AUDIT_FORMER_KEYS: vkeys, AUDIT_MASTER_KEY: masters, AUDIT_ANCHOR_FILE: file, AUDIT_ANCHOR_URL: url, AUDIT_COPY: copy } = values
  return {
    guarantee: values.AUDIT_GUARANTEE,
    origin: values.AUDIT_ORIGIN,
    signingKeys: pems === undefined ? [] : signingKeys(pems),
    formerKeys: vkeys === undefined ? [] : publicKeys(vkeys),
    masterKeys: masters === undefined ? [] : secrets(masters),
    anchor: { file: file === undefined ? null : resolve(file), url: url ?? null },
    copy: copy === undefined ? null : resolve(copy)
  }
}

function metrics ({ METRICS_TOKEN: tokens, METRICS_ALLOW: allow, METRICS_PORT: port }: Variables): Config['metrics'] {
  return { tokens: tokens === undefined ? null : list(tokens), allow: allow === undefined ? null : list(allow), port: port ?? null }
}

function webhook ({ NOTIFY_WEBHOOK_URL: url, NOTIFY_WEBHOOK_SECRET: secret }: Variables): Config['webhook'] {
  return url === undefined || secret === undefined ? null : { url: webhookUrl(url), secret }
}

function administrator ({ ADMIN_EMAIL: email, ADMIN_PASSWORD: password }: Variables): Config['administrator'] {
  return email === undefined || password === undefined ? null : { email, password }
}

/** The variables, or null and what is wrong with them. */
function checked (given: Environment): { values: Variables | null, refusals: string[] } {
  try {
    const values = envSchema<Variables>({
      schema: variables,
      data: given,
      env: false,
      ajv: {
        customOptions (ajv) {
          ajv.addVocabulary(['mayBe', 'secret'])
          for (const [name, accepts] of Object.entries(formats)) ajv.addFormat(name, accepts)
          return ajv
        }
      }
    })
    return { values, refusals: [] }
  } catch (error) {
    const paths = refusedPaths(error)
    const refused = Object.entries(variables.properties).filter(([name]) => paths.includes(`/${name}`))
    const refusals = refused.map(([name, { secret, mayBe }]) =>
      `${name} is ${secret === true ? 'refused, its value is not shown' : JSON.stringify(given[name])}: it may be ${mayBe}`)
    return { values: null, refusals }
  }
}

/** Where Ajv found faults; anything else that went wrong is thrown on. */
function refusedPaths (error: unknown): string[] {
  if (!(error instanceof Error && 'errors' in error && Array.isArray(error.errors))) throw error
  return error.errors.map(({ instancePath }) => String(instancePath))
}

/** What no single variable tells: which exclude, need or lack one another. */
function conflicts (env: Environment): string[] {
  const isSet = (name: keyof Variables): boolean => env[name] !== undefined
  const faults: string[] = []
  if (isSet('JWT_SECRET') && isSet('JWT_PRIVATE_KEY')) faults.push('JWT_SECRET and JWT_PRIVATE_KEY are both set: set one of them')
  if (isSet('ADMIN_EMAIL') !== isSet('ADMIN_PASSWORD')) faults.push('ADMIN_EMAIL and ADMIN_PASSWORD go together: set both or none')
  if (isSet('NOTIFY_WEBHOOK_URL') !== isSet('NOTIFY_WEBHOOK_SECRET')) faults.push('NOTIFY_WEBHOOK_URL and NOTIFY_WEBHOOK_SECRET go together: set both or none')
  const [port, metricsPort] = [Number(env['PORT'] ?? variables.properties.PORT.default), Number(env['METRICS_PORT'] ?? 0)]
  if (metricsPort !== 0 && metricsPort === port) faults.push('METRICS_PORT is that of PORT: it may be another one')
  if (isSet('SMTP_URL') && !isSet('MAIL_FROM')) faults.push('MAIL_FROM is not set: SMTP_URL needs a sender')
  if (env['NODE_ENV'] === 'production') {
    if (!isSet('TOKEN_SECRET')) faults.push(`TOKEN_SECRET is not set: production does not start on a generated secret, set ${aSecret}`)
    if (!isSet('JWT_SECRET') && !isSet('JWT_PRIVATE_KEY')) faults.push(`JWT_SECRET is not set, nor is JWT_PRIVATE_KEY: production does not start on a generated secret, set ${aSecret}`)
  }
  return faults
}

function deepFreeze<T extends object> (value: T): T {
  for (const part of Object.values(value)) {
    if (typeof part === 'object' && part !== null) deepFreeze(part)
  }
  return Object.freeze(value)
}
