import fastifyCors from '@fastify/cors'
import fastifyHelmet from '@fastify/helmet'
import fastifyJwt from '@fastify/jwt'
import Fastify, { type FastifyInstance } from 'fastify'
import audit, { auditRoutes } from 'fastify-token-registry/audit'
import tokenRegistry, { type MemoryStoreOptions, memoryStore } from 'fastify-token-registry'
import health, { healthRoutes } from 'fastify-token-registry/health'
import metrics, { metricsRoutes, type MetricsPluginOptions } from 'fastify-token-registry/metrics'
import redisStore, { StoreAbsent } from 'fastify-token-registry/redis-store'
import sessionJwt, { jwtKeys } from 'fastify-token-registry/session-jwt'
import sessionLimits, { isDeviceName, webhookChannel, type LimitOption } from 'fastify-token-registry/session-limits'
import tracing from 'fastify-token-registry/tracing'
import strictInput, { strictServerOptions } from 'fastify-token-registry/strict-input'
import { adminRoutes } from './admin/routes.ts'
import { authRoutes } from './auth/routes.ts'
import { announce } from './announce.ts'
import { serverStart } from './audit/events.ts'
import { auditOptions } from './audit/options.ts'
import { createAuth } from './auth/auth.ts'
import type { Config } from './config.ts'
import { openDatabase } from './database/database.ts'
import { deviceRoutes } from './devices/routes.ts'
import docs from './http/docs.ts'
import errors from './http/errors.ts'
import { logOptions } from './http/log.ts'
import rateLimits from './http/rate-limits.ts'
import { unreadableUrls } from './http/unreadable-urls.ts'
import { loadKeys } from './keys.ts'
import { createMailer } from './mail/mailer.ts'
import { mailChannel } from './notifications/mail-channel.ts'
import { createPasswords } from './passwords/passwords.ts'
import { RedisStart } from './sessions/errors.ts'
import { sessionRoutes } from './sessions/routes.ts'
import { isEmail } from './users/email.ts'
import { createUsers } from './users/users.ts'

/** Access tokens live this long, refresh tokens (and with them the session) that long. */
const ACCESS_TTL = '15m'
const SESSION_TTL = '7d'
/** The same for who asks to stay signed in. */
const REMEMBERED_TTL = '90d'

export interface ServerOptions {
  config: Config
  /** Without it nothing is logged; without a stream, to the standard output. */
  logger?: { level: Config['logLevel'], stream?: NodeJS.WritableStream }
  /** For tests: the clock that sessions in memory live by. */
  now?: MemoryStoreOptions['now']
}

export interface Server {
  app: FastifyInstance
}

/** The whole service: what is registered, in which order, and what depends on what. Ready to listen, or to be injected into. */
export async function createServer ({ config, logger, now }: ServerOptions): Promise<Server> {
  const app = Fastify({
    ...strictServerOptions,
    trustProxy: typeof config.trustProxy === 'boolean' ? config.trustProxy : [...config.trustProxy],
    ...unreadableUrls,
    logger: logger !== undefined && { ...logger, ...logOptions(config.production) },
    // While it closes, requests on open connections are still served.
    return503OnClosing: false
  })
  const keys = await loadKeys(config)
  announce(config, keys, app.log)
  const database = await openDatabase(config, app.log)
  app.addHook('onClose', () => database.close())
  try {
    const users = createUsers(database)
    const passwords = await createPasswords()
    const mailer = createMailer(config, app.log)
    app.addHook('onClose', () => mailer.close())

    await app.register(errors)
    const named = typeof config.corsOrigin === 'object'
    await app.register(fastifyCors, {
      origin: named ? [...config.corsOrigin] : config.corsOrigin,
      // For the cookie that tells devices apart, the only one there is.
      credentials: named,
      methods: ['GET', 'HEAD', 'POST', 'PATCH', 'DELETE'],
      exposedHeaders: ['Retry-After', 'WWW-Authenticate', 'X-Request-Id', 'X-RateLimit-Limit', 'X-RateLimit-Remaining', 'X-RateLimit-Reset']
    })
    await app.register(fastifyHelmet)
    await app.register(rateLimits, { limit: config.rateLimits.global })
    // One definition of an address: whoever registers can be written to, and the first administrator can sign in.
    await app.register(strictInput, { ajv: ajv => ajv.addFormat('email', isEmail).addFormat('device-name', isDeviceName) })
    await app.register(docs, { publicUrl: config.publicUrl })
    // Our own client, not one of @fastify/redis: after a failover that may end, and cannot be replaced.
    if (config.redis !== null) await app.register(redisStore, config.redis)
    await app.register(tokenRegistry, {
      secret: keys.tokenSecrets,
      ttl: SESSION_TTL,
      ...now !== undefined && config.redis === null && { store: memoryStore({ now }) }
    })
    await app.register(tracing)
    await app.register(metrics, metricsOptions(config))
    await app.register(health, { shutdownDelay: config.shutdownDelayMs })
    app.tokenRegistry.healthChecks.add('database', async () => ({ status: await database.isUp() ? 'ok' : 'fail' }))
    await app.register(sessionLimits, {
      limits: limitsOf(config.sessionLimits),
      lifetimes: { default: { ttl: SESSION_TTL, remember: { ttl: REMEMBERED_TTL } } },
      // Browsers take its Secure cookie from localhost too. Where they do not, they get the token in a header.
      devices: true,
      notifications: { channels: [mailChannel(users, mailer), ...config.webhook === null ? [] : [webhookChannel(config.webhook)]] }
    })
    await app.register(audit, auditOptions(config.audit, database))
    await app.audit.record(await serverStart(config, database))
    // What the first of the secrets does not protect yet; then the others can go.
    const rewrapped = await app.audit.rewrapKeys()
    if (rewrapped > 0) app.log.info({ keys: rewrapped }, 'the keys of the audit log are encrypted by the first secret')
    app.log.info({ vkeys: app.audit.vkeys }, 'the audit log is signed: these public keys are for those who check it')
    await app.register(fastifyJwt, { namespace: 'access', ...jwtKeys(keys.jwtKey) })
    await app.register(sessionJwt, { namespace: 'access', ttl: ACCESS_TTL, issuer: config.publicUrl ?? 'fastify-token-registry', audience: 'api' })

    const auth = createAuth({ registry: app.tokenRegistry, audit: app.audit, users, passwords, mailer, sessionJwt: app.sessionJwt, notifications: app.sessionLimits.notifications, urls: config, log: app.log })
    app.addHook('onClose', () => auth.close())
    if (config.administrator !== null) await auth.ensureAdministrator(config.administrator)

    await app.register(authRoutes, { prefix: '/api/auth', auth, rateLimit: config.rateLimits.auth })
    await app.register(sessionRoutes, { prefix: '/api/sessions' })
    await app.register(deviceRoutes, { prefix: '/api/devices' })
    await app.register(adminRoutes, { prefix: '/api/admin', users })
    await app.register(auditRoutes, { prefix: '/audit' })
    await app.register(healthRoutes, { prefix: '/health', operators: keys.operators })
    await app.register(metricsRoutes, keys.operators)
    await app.ready()
  } catch (error) {
    await app.close()
    throw error instanceof StoreAbsent ? new RedisStart(error.cause instanceof Error ? error.cause.message : '', { cause: error }) : error
  }
  return { app }
}

/** At a port of its own, who was named to read them is asked for there, too. */
function metricsOptions ({ host, metrics: { port, tokens, allow } }: Config): MetricsPluginOptions {
  return port === null ? {} : { listen: { port, host, ...tokens !== null && { token: tokens }, ...allow !== null && { allow } } }
}

function limitsOf ({ perUser, perDevice, onExceed }: Config['sessionLimits']): LimitOption[] {
  const limits = [{ per: 'user', max: perUser }, { per: 'device', max: perDevice }] as const
  return limits.flatMap(({ per, max }): LimitOption[] => max === false ? [] : [{ per, max, onExceed }])
}
