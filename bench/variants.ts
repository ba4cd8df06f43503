import cookie from '@fastify/cookie'
import createError from '@fastify/error'
import jwt from '@fastify/jwt'
import session from '@fastify/session'
import type { FastifyInstance } from 'fastify'
import tokenRegistry, { type TokenRegistryOptions } from 'fastify-token-registry'
import metrics from 'fastify-token-registry/metrics'
import redisStore from 'fastify-token-registry/redis-store'
import sessionJwt from 'fastify-token-registry/session-jwt'
import tracing from 'fastify-token-registry/tracing'
import { Redis } from 'ioredis'
import { RedisSessions } from './redis-sessions.ts'
import { redisUrl } from './redis.ts'

declare module 'fastify' {
  interface Session {
    sub?: string
  }
}

/** What a session presents, in the header `Authorization: Bearer` or in the cookie `sessionId`. */
export interface Credentials {
  token?: string
  cookie?: string
}

export interface Variant {
  title: string
  /** Whether it refuses who presents nothing. */
  guarded: boolean
  /** Whether it needs Redis. */
  redis?: true
  /** Makes the server answer GET /me with the subject. Returns the credentials of a session for each subject. */
  open: (app: FastifyInstance, subjects: readonly string[]) => Promise<Credentials[]>
}

const secret = 'kb7Yx0vQ2mZr9TnW4cHs8LfJ6pDa1GeU'

const schema = { response: { 200: { type: 'object', properties: { sub: { type: 'string' } } } } }

const bare: Variant = {
  title: 'bare Fastify',
  guarded: false,
  async open (app, subjects) {
    const sub = subjects[0]
    app.get('/me', { schema }, async () => ({ sub }))
    return subjects.map(() => ({}))
  }
}

const fastifyJwt: Variant = {
  title: '@fastify/jwt, HS256, cache',
  guarded: true,
  async open (app, subjects) {
    // `cache: true` keeps 1,000 tokens: taken in turn, none of 10,000 would ever be found.
    await app.register(jwt, { secret, verify: { cache: subjects.length } })
    app.get('/me', { schema, onRequest: async request => { await request.jwtVerify() } }, async request => ({ sub: (request.user as { sub: string }).sub })) // what was signed below
    return subjects.map(sub => ({ token: app.jwt.sign({ sub }, { expiresIn: '1h' }) }))
  }
}

const SignedOut = createError('BENCH_SIGNED_OUT', 'Sign in first', 401)

const fastifySession: Variant = {
  title: '@fastify/session, memory',
  guarded: true,
  open: async (app, subjects) => await openSessions(app, subjects)
}

const fastifySessionRedis: Variant = {
  title: '@fastify/session, Redis',
  guarded: true,
  redis: true,
  open: async (app, subjects) => await openSessions(app, subjects, new RedisSessions(new Redis(redisUrl())))
}

async function openSessions (app: FastifyInstance, subjects: readonly string[], store?: RedisSessions): Promise<Credentials[]> {
  await app.register(cookie)
  await app.register(session, { secret, rolling: false, saveUninitialized: false, cookie: { secure: false }, ...store !== undefined && { store } })
  app.post<{ Params: { sub: string } }>('/login/:sub', async request => {
    request.session.sub = request.params.sub
  })
  app.get('/me', { schema }, async request => {
    const { sub } = request.session
    if (sub === undefined) throw new SignedOut()
    return { sub }
  })

  const credentials: Credentials[] = []
  for (const sub of subjects) {
    const { cookies } = await app.inject({ method: 'POST', url: `/login/${sub}` })
    credentials.push({ cookie: encodeURIComponent(cookies[0]?.value ?? '') })
  }
  return credentials
}

function sessionToken (title: string, options: Omit<TokenRegistryOptions, 'secret'>, more: (app: FastifyInstance) => Promise<unknown> = async () => {}): Variant {
  return {
    title,
    guarded: true,
    async open (app, subjects) {
      await app.register(tokenRegistry, { secret, ...options })
      await more(app)
      app.get('/me', { schema, config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
      await app.ready()
      return await inParts(subjects, async sub => await app.tokenRegistry.issue({ sub }))
    }
  }
}

/** Some at a time: Redis has a deadline for each. */
async function inParts (subjects: readonly string[], open: (sub: string) => Promise<Credentials>): Promise<Credentials[]> {
  const credentials: Credentials[] = []
  for (let i = 0; i < subjects.length; i += 100) credentials.push(...await Promise.all(subjects.slice(i, i + 100).map(open)))
  return credentials
}

function onRedis (variant: Variant): Variant {
  return {
    ...variant,
    redis: true,
    async open (app, subjects) {
      await app.register(redisStore, { url: redisUrl(), keyPrefix: `${process.pid}:`, commandTimeout: '10s' })
      return await variant.open(app, subjects)
    }
  }
}

function accessToken (title: string, options: Omit<TokenRegistryOptions, 'secret'>): Variant {
  return {
    title,
    guarded: true,
    async open (app, subjects) {
      await app.register(jwt, { secret, sign: { algorithm: 'HS256' }, verify: { algorithms: ['HS256'] } })
      await app.register(tokenRegistry, { secret, ...options })
      await app.register(sessionJwt, { issuer: 'https://issuer.example', audience: 'https://api.example', ttl: '1h' })
      app.get('/me', { schema, config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
      await app.ready()
      return await inParts(subjects, async sub => app.sessionJwt.sign((await app.tokenRegistry.issue({ sub })).session))
    }
  }
}

/** Every variant, by the name that `--only` takes. The same one twice shows how precise the figures are. */
export const variants: Readonly<Record<string, Variant>> = {
  bare,
  again: { ...bare, title: 'bare Fastify, again' },
  jwt: fastifyJwt,
  session: fastifySession,
  'token-hit': sessionToken('session token, cache hit', {}),
  'token-metrics': sessionToken('session token, cache hit, with metrics', {}, async app => await app.register(metrics)),
  'token-tracing': sessionToken('session token, cache hit, with tracing and no SDK', {}, async app => await app.register(tracing)),
  'token-spans': sessionToken('session token, cache hit, with spans alone and no SDK', {}, async app => await app.register(tracing, { requestIds: false, responseHeader: false })),
  'token-both': sessionToken('session token, cache hit, with metrics and tracing', {}, async app => await app.register(metrics).register(tracing)),
  'token-miss': sessionToken('session token, cache miss', { cache: false }),
  'access-hit': accessToken('JWT of a session, cache hit', {}),
  'access-miss': accessToken('JWT of a session, cache miss', { cache: false }),
  'session-redis': fastifySessionRedis,
  'redis-hit': onRedis(sessionToken('session token on Redis, cache hit', {})),
  'redis-miss': onRedis(sessionToken('session token on Redis, cache miss', { cache: false }))
}
