import { Type, type Static, type TString, type TUnsafe } from '@sinclair/typebox'
import { checkPassword } from '../passwords/policy.ts'
import { isEmail } from '../users/email.ts'
import { redisUrl } from './redis-url.ts'
import { anchorUrl, baseUrl, databaseUrl, delay, logOrigin, operatorNetworks, operatorTokens, origins, pageUrl, privateKey, publicKeys, rateLimit, secret, secrets, sender, sessionLimit, signingKeys, smtpUrl, trustedProxies, webhookSecret, webhookUrl } from './values.ts'

/** What a variable that holds a secret may be. */
export const aSecret = '32 bytes of randomness, as "openssl rand -base64 32" prints them'

const aPort = { minimum: 0, maximum: 65535, mayBe: 'an integer from 0 to 65535' }

/**
 * Every variable of the environment that the server reads. `mayBe` completes the message that refuses a value; the value of a
 * `secret` variable is never shown.
 */
export const variables = Type.Object({
  NODE_ENV: oneOf(['development', 'test', 'production'], {
    default: 'development',
    description: 'production refuses to start on generated secrets'
  }),
  HOST: Type.String({
    default: '127.0.0.1',
    mayBe: 'a host name or an address',
    description: 'where to listen; 0.0.0.0 in a container'
  }),
  PORT: Type.Integer({
    ...aPort,
    default: 3000,
    description: 'the port to listen on; 0 takes any that is free'
  }),
  PUBLIC_URL: Type.Optional(text('base-url', {
    mayBe: 'https://id.example.org, or a path below it',
    description: 'where people reach the server: stands in the docs, in mails, and in access tokens as their issuer'
  })),
  RESET_URL: Type.Optional(text('page-url', {
    mayBe: 'https://app.example.org/reset, without a fragment',
    description: 'the page that mails to reset a password link to; it reads the token from its fragment and POSTs it with the new password to /api/auth/password/reset'
  })),
  DATA_DIR: Type.String({
    default: '.data',
    mayBe: 'a directory',
    description: 'where the embedded database, generated secrets and mails that are not sent are kept'
  }),
  DATABASE_URL: Type.Optional(text('database-url', {
    secret: true,
    mayBe: 'postgresql://user:password@host:5432/database',
    description: 'PostgreSQL in the place of the database in DATA_DIR'
  })),
  REDIS_URL: Type.Optional(text('redis-url', {
    secret: true,
    mayBe: 'redis://user:password@host:6379/0, rediss:// for TLS, redis+sentinel://user:password@host:26379,host:26379/name/0, or redis+cluster://user:password@host:6379,host:6379',
    description: 'Redis, where sessions then outlive the process and are shared; servers on one Redis need the same secrets'
  })),
  TOKEN_SECRET: Type.Optional(text('secrets', {
    secret: true,
    mayBe: `${aSecret}, or several of them, separated by commas`,
    description: 'signs session and refresh tokens, and keeps the audit log where that has no keys of its own; to replace it, put the new one before the old one'
  })),
  JWT_SECRET: Type.Optional(text('secret', {
    secret: true,
    mayBe: aSecret,
    description: 'signs access tokens with HS256'
  })),
  JWT_PRIVATE_KEY: Type.Optional(text('private-key', {
    secret: true,
    mayBe: 'an Ed25519, P-256 or RSA key (2048 bits or more) as PEM, its line ends kept or written as \\n',
    description: 'signs access tokens with EdDSA, ES256 or RS256 in the place of JWT_SECRET'
  })),
  ADMIN_EMAIL: Type.Optional(text('email', {
    mayBe: 'an e-mail address',
    description: 'the first administrator, made at start where absent'
  })),
  ADMIN_PASSWORD: Type.Optional(text('password', {
    secret: true,
    mayBe: '8 to 128 characters, none of the 10,000 most common passwords',
    description: 'the password that the first administrator starts with'
  })),
  SMTP_URL: Type.Optional(text('smtp-url', {
    secret: true,
    mayBe: 'smtps://user:password@host or smtp://host:587?requireTLS=true',
    description: 'sends mails; without it they are written to DATA_DIR/outbox'
  })),
  MAIL_FROM: Type.Optional(text('sender', {
    mayBe: 'an e-mail address, or a name and <an address>',
    description: 'the sender of mails, needed with SMTP_URL'
  })),
  CORS_ORIGIN: text('origins', {
    default: 'off',
    mayBe: 'https://app.example.org and others, separated by commas; * for any; or off',
    description: 'web pages of which origins may call the server'
  }),
  TRUST_PROXY: text('trusted-proxies', {
    default: 'false',
    mayBe: 'the addresses of the proxies in front, separated by commas, true or false',
    description: 'whose X-Forwarded-For is believed; true believes everyone'
  }),
  SESSION_LIMIT: text('session-limit', {
    default: '10',
    mayBe: 'a whole number from 1 to 1000000, or off',
    description: 'how many sessions a user may have'
  }),
  SESSION_LIMIT_DEVICE: text('session-limit', {
    default: '3',
    mayBe: 'a whole number from 1 to 1000000, or off',
    description: 'how many of them on one device'
  }),
  SESSION_LIMIT_STRATEGY: oneOf(['end-oldest', 'end-least-recently-used', 'refuse'], {
    default: 'end-oldest',
    description: 'what a sign-in beyond that does'
  }),
  NOTIFY_WEBHOOK_URL: Type.Optional(text('webhook-url', {
    secret: true,
    mayBe: 'https://hooks.example.org/path, of a public address',
    description: 'is sent what users are told by mail: sign-ins from new devices, sessions that others ended'
  })),
  NOTIFY_WEBHOOK_SECRET: Type.Optional(text('webhook-secret', {
    secret: true,
    mayBe: `${aSecret}, or whsec_ and base64 of as many`,
    description: 'signs what NOTIFY_WEBHOOK_URL is sent (standardwebhooks.com)'
  })),
  AUDIT_GUARANTEE: oneOf(['required', 'best-effort'], {
    default: 'required',
    description: 'required: what the audit log cannot record is not done; best-effort: it is, and what was lost is counted'
  }),
  AUDIT_ORIGIN: text('log-origin', {
    default: 'fastify-token-registry/audit',
    mayBe: 'id.example.org/audit, without spaces and +',
    description: 'names the audit log in what it signs; no two logs are named alike, and none is renamed'
  }),
  AUDIT_SIGNING_KEY: Type.Optional(text('audit-keys', {
    secret: true,
    mayBe: 'an Ed25519 key as PEM, as "openssl genpkey -algorithm ed25519" prints it, its line ends kept or written as \\n, or several of them, one after the other',
    description: 'signs what the audit log is, in the place of a key from TOKEN_SECRET; all of them sign, so that one can be replaced'
  })),
  AUDIT_FORMER_KEYS: Type.Optional(text('audit-vkeys', {
    mayBe: 'public keys as the log tells them at start, separated by commas',
    description: 'what signed the audit log before; set the last one here before it goes'
  })),
  AUDIT_MASTER_KEY: Type.Optional(text('secrets', {
    secret: true,
    mayBe: `${aSecret}, or several of them, separated by commas`,
    description: 'encrypts the keys of persons in the audit log, in the place of TOKEN_SECRET; to replace it, put the new one before the old one and start once'
  })),
  AUDIT_ANCHOR_FILE: Type.Optional(Type.String({
    mayBe: 'a file',
    description: 'is given what the audit log signs; on a disk that the database and this server cannot rewrite it shows what was cut off'
  })),
  AUDIT_ANCHOR_URL: Type.Optional(text('anchor-url', {
    secret: true,
    mayBe: 'https://anchor.example.org/path, or http: to this machine',
    description: 'likewise, by POST'
  })),
  AUDIT_COPY: Type.Optional(Type.String({
    mayBe: 'how the paths of files begin, as /var/log/audit',
    description: 'files with a copy of the audit log, a line an entry, whose paths begin so; servers do not share them'
  })),
  METRICS_TOKEN: Type.Optional(text('operator-tokens', {
    secret: true,
    mayBe: '16 or more letters, digits or -._~+/, as "openssl rand -hex 32" prints them, or several of them, separated by commas',
    description: 'what operators send as "Authorization: Bearer" to read /metrics and the details of /health; one is generated in DATA_DIR, but in production'
  })),
  METRICS_ALLOW: Type.Optional(text('operator-networks', {
    mayBe: 'addresses and networks, as 10.0.0.0/8, separated by commas',
    description: 'from where operators read them; with METRICS_TOKEN both must be right'
  })),
  METRICS_PORT: Type.Optional(Type.Integer({
    ...aPort,
    description: 'a port of its own for /metrics, on HOST: for who has METRICS_TOKEN, from where METRICS_ALLOW says; without either for whoever reaches it'
  })),
  RATE_LIMIT_GLOBAL: text('rate-limit', {
    default: '1000/1h',
    mayBe: 'as 100/15m, or off',
    description: 'how many requests an address may send; /health/* and /metrics are not counted'
  }),
  RATE_LIMIT_AUTH: text('rate-limit', {
    default: '100/15m',
    mayBe: 'as 100/15m, or off',
    description: 'how many of them may register, sign in, or change or reset a password'
  }),
  SHUTDOWN_DELAY: text('delay', {
    default: '1s',
    mayBe: 'as 500ms or 5s, at most 1h',
    description: 'how long requests are still served after SIGTERM, while /health/ready already refuses and every answer ends its connection'
  }),
  LOG_LEVEL: oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: 'info',
    description: 'how much is logged'
  })
})

export type Variables = Static<typeof variables>

interface Annotations {
  readonly description: string
  readonly mayBe: string
  readonly default?: string
  readonly secret?: true
}

function text (format: string, annotations: Annotations): TString {
  return Type.String({ format, ...annotations })
}

function oneOf<const Name extends string> (names: readonly Name[], annotations: { default: Name, description: string }): TUnsafe<Name> {
  return Type.Unsafe<Name>({ type: 'string', enum: names, mayBe: names.join(', '), ...annotations })
}

/** What the formats of the variables accept: what their parsers do not throw for. */
export const formats: Readonly<Record<string, (text: string) => boolean>> = {
  'anchor-url': parsedBy(anchorUrl),
  'audit-keys': parsedBy(signingKeys),
  'audit-vkeys': parsedBy(publicKeys),
  email: isEmail,
  'base-url': parsedBy(baseUrl),
  'database-url': parsedBy(databaseUrl),
  delay: parsedBy(delay),
  'log-origin': parsedBy(logOrigin),
  origins: parsedBy(origins),
  'operator-networks': parsedBy(operatorNetworks),
  'operator-tokens': parsedBy(operatorTokens),
  'page-url': parsedBy(pageUrl),
  password: parsedBy(checkPassword),
  'private-key': parsedBy(privateKey),
  'redis-url': parsedBy(redisUrl),
  'rate-limit': parsedBy(rateLimit),
  secret: parsedBy(secret),
  secrets: parsedBy(secrets),
  'session-limit': parsedBy(sessionLimit),
  sender: parsedBy(sender),
  'smtp-url': parsedBy(smtpUrl),
  'trusted-proxies': parsedBy(trustedProxies),
  'webhook-secret': parsedBy(webhookSecret),
  'webhook-url': parsedBy(webhookUrl)
}

function parsedBy (parse: (text: string) => unknown): (text: string) => boolean {
  return text => {
    try {
      parse(text)
      return true
    } catch {
      return false
    }
  }
}
