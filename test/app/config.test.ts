import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { secret as aSecret } from '../../app/config/values.ts'
import { variables } from '../../app/config/variables.ts'
import { environment, loadConfig } from '../../app/config.ts'
import { loadKeys } from '../../app/keys.ts'
import { vkeyOf } from '../../plugins/audit/verify/index.ts'
import { temporaryDirectory } from '../support/embedded.ts'

const secret = (): string => randomBytes(32).toString('base64')
const pem = (key: { export (options: { type: 'pkcs8', format: 'pem' }): string | Buffer }): string => String(key.export({ type: 'pkcs8', format: 'pem' }))

/** The lines that refuse a configuration. */
function faults (env: Record<string, string>): string[] {
  try {
    loadConfig(env)
    return []
  } catch (error) {
    const { code, message } = Object(error)
    t.equal(code, 'APP_CONFIG_INVALID')
    return String(message).split('\n').slice(1).map(line => line.trim())
  }
}

t.test('without any configuration the server is embedded and listens on this machine only', async t => {
  t.strictSame(loadConfig({ DATABASE_URL: '' }), {
    production: false,
    host: '127.0.0.1',
    port: 3000,
    publicUrl: null,
    resetUrl: null,
    dataDir: resolve('.data'),
    databaseUrl: null,
    redis: null,
    tokenSecrets: null,
    jwtKey: null,
    administrator: null,
    mail: { smtpUrl: null, from: 'fastify-token-registry <no-reply@localhost>' },
    corsOrigin: false,
    trustProxy: false,
    rateLimits: { global: { max: 1000, timeWindowMs: 3_600_000 }, auth: { max: 100, timeWindowMs: 900_000 } },
    sessionLimits: { perUser: 10, perDevice: 3, onExceed: 'end-oldest' },
    audit: { guarantee: 'required', origin: 'fastify-token-registry/audit', signingKeys: [], formerKeys: [], masterKeys: [], anchor: { file: null, url: null }, copy: null },
    metrics: { tokens: null, allow: null, port: null },
    webhook: null,
    shutdownDelayMs: 1000,
    logLevel: 'info'
  })
})

t.test('every variable is read into what the server works with', async t => {
  const [first, second, jwt] = [secret(), secret(), secret()]
  const [one, two] = [generateKeyPairSync('ed25519').privateKey, generateKeyPairSync('ed25519').privateKey]
  t.match(loadConfig({
    NODE_ENV: 'production',
    HOST: '0.0.0.0',
    PORT: '0',
    PUBLIC_URL: 'https://ID.example.org/auth/',
    RESET_URL: 'https://app.example.org/reset?lang=de',
    DATA_DIR: '/var/lib/app',
    DATABASE_URL: 'postgresql://u:p@db/app',
    REDIS_URL: 'rediss://u:p@redis:6380/1',
    TOKEN_SECRET: `${first}, ${second}`,
    JWT_SECRET: jwt,
    ADMIN_EMAIL: 'root@example.org',
    ADMIN_PASSWORD: 'long enough',
    SMTP_URL: 'smtps://u:p@mail',
    MAIL_FROM: 'Us <us@example.org>',
    CORS_ORIGIN: 'https://a.example, http://localhost:8080',
    TRUST_PROXY: 'loopback, 10.0.0.0/8, fd00::/8, 192.0.2.1',
    RATE_LIMIT_GLOBAL: 'off',
    RATE_LIMIT_AUTH: '5/30s',
    SESSION_LIMIT: '3',
    SESSION_LIMIT_DEVICE: 'off',
    SESSION_LIMIT_STRATEGY: 'refuse',
    NOTIFY_WEBHOOK_URL: 'https://hooks.example.org/a',
    NOTIFY_WEBHOOK_SECRET: jwt,
    AUDIT_GUARANTEE: 'best-effort',
    AUDIT_ORIGIN: 'id.example.org/audit',
    AUDIT_SIGNING_KEY: `${pem(one)}${pem(two).replaceAll('\n', '\\n')}`,
    AUDIT_FORMER_KEYS: `${vkeyOf('id.example.org/audit', one)}, ${vkeyOf('id.example.org/audit', two)}`,
    AUDIT_MASTER_KEY: `${second},${first}`,
    AUDIT_ANCHOR_FILE: '/mnt/anchor',
    AUDIT_ANCHOR_URL: 'http://localhost:8080/anchor',
    AUDIT_COPY: 'audit',
    METRICS_TOKEN: '0123456789abcdef, fedcba9876543210=',
    METRICS_ALLOW: '10.0.0.0/8, ::1',
    METRICS_PORT: '9464',
    SHUTDOWN_DELAY: '500ms',
    LOG_LEVEL: 'silent'
  }), {
    production: true,
    host: '0.0.0.0',
    port: 0,
    publicUrl: 'https://id.example.org/auth',
    resetUrl: 'https://app.example.org/reset?lang=de',
    dataDir: '/var/lib/app',
    databaseUrl: 'postgresql://u:p@db/app',
    redis: { url: 'rediss://u:p@redis:6380/1' },
    tokenSecrets: [first, second],
    jwtKey: { secret: jwt },
    administrator: { email: 'root@example.org', password: 'long enough' },
    mail: { smtpUrl: 'smtps://u:p@mail', from: 'Us <us@example.org>' },
    corsOrigin: ['https://a.example', 'http://localhost:8080'],
    trustProxy: ['loopback', '10.0.0.0/8', 'fd00::/8', '192.0.2.1'],
    rateLimits: { global: false, auth: { max: 5, timeWindowMs: 30_000 } },
    sessionLimits: { perUser: 3, perDevice: false, onExceed: 'refuse' },
    audit: {
      guarantee: 'best-effort',
      origin: 'id.example.org/audit',
      signingKeys: [one, two].map(key => pem(key).trim()),
      formerKeys: [one, two].map(key => vkeyOf('id.example.org/audit', key)),
      masterKeys: [second, first],
      anchor: { file: '/mnt/anchor', url: 'http://localhost:8080/anchor' },
      copy: resolve('audit')
    },
    metrics: { tokens: ['0123456789abcdef', 'fedcba9876543210='], allow: ['10.0.0.0/8', '::1'], port: 9464 },
    webhook: { url: 'https://hooks.example.org/a', secret: jwt },
    shutdownDelayMs: 500,
    logLevel: 'silent'
  })
  t.match(loadConfig({ CORS_ORIGIN: '*' }), { corsOrigin: '*' })
  t.match(loadConfig({ TRUST_PROXY: 'true' }), { trustProxy: true })
  t.match(loadConfig({ SHUTDOWN_DELAY: '1h' }), { shutdownDelayMs: 3_600_000 })
  for (const from of ['us@example.org', 'Us <us@example.org>', '"Us, Inc." <us@example.org>', '<us@example.org>']) t.match(loadConfig({ MAIL_FROM: from }), { mail: { from } })
})

t.test('the configuration cannot be changed', async t => {
  const config = loadConfig({})
  t.throws(() => Object.assign(config, { production: true }), TypeError)
  t.throws(() => Object.assign(config.rateLimits, { auth: false }), TypeError)
})

t.test('a private key is taken on one line or on many', async t => {
  const keys = [generateKeyPairSync('ed25519'), generateKeyPairSync('ec', { namedCurve: 'P-256' }), generateKeyPairSync('rsa', { modulusLength: 2048 })]
  for (const key of keys) {
    const expected = { privateKey: pem(key.privateKey) }
    t.strictSame(loadConfig({ JWT_PRIVATE_KEY: expected.privateKey }).jwtKey, expected)
    t.strictSame(loadConfig({ JWT_PRIVATE_KEY: expected.privateKey.replaceAll('\n', '\\n') }).jwtKey, expected)
  }
  const others = [generateKeyPairSync('ec', { namedCurve: 'P-384' }), generateKeyPairSync('rsa', { modulusLength: 1024 }), generateKeyPairSync('x25519')]
  for (const { privateKey } of others) t.match(faults({ JWT_PRIVATE_KEY: pem(privateKey) }), [/^JWT_PRIVATE_KEY .* Ed25519, P-256 or RSA/])
})

t.test('what is no value of a variable is refused: the variable, what it was, what it may be', async t => {
  const bad: Record<string, string[]> = {
    NODE_ENV: ['prod', 'Production'],
    PORT: ['65536', '-1', '3000.5', 'http'],
    PUBLIC_URL: ['id.example.org', 'ftp://id.example.org', 'https:id.example.org', 'https:///id.example.org', ' https://id.example.org', 'https://id.example.org?a=b', 'https://id.example.org/#a', 'https://ada@id.example.org', 'https://ada:pw@id.example.org'],
    RESET_URL: ['app.example.org/reset', '/reset', 'https://app.example.org/#/reset', 'https://ada@app.example.org/reset'],
    METRICS_ALLOW: ['localhost', '10.0.0.0/33', '::1,'],
    METRICS_PORT: ['65536', 'x'],
    CORS_ORIGIN: ['https://a.example/path', 'https://a.example,', '*, https://a.example', 'null', 'a.example'],
    TRUST_PROXY: ['yes', '0', '1', '10.0.0.0/33', '::1/129', '0.0.0.0/0', '10.0.0.0/00', '::/0', '10.0.0.0/8/8', '10.0.0', '127.0.0.1,'],
    SESSION_LIMIT: ['0', '-1', '1.5', '1000001', 'none', '1e3'],
    SESSION_LIMIT_DEVICE: ['0', ' 3'],
    SESSION_LIMIT_STRATEGY: ['end-newest'],
    RATE_LIMIT_AUTH: ['100', '0/1h', '100/0s', '100/1h/1h', '1e3/1h', '-1/1h', '100/15', '100/15min', 'on'],
    AUDIT_GUARANTEE: ['none'],
    AUDIT_ORIGIN: ['my audit', 'a+b', 'a,b', 'ö', 'x'.repeat(201)],
    AUDIT_FORMER_KEYS: ['a', 'a+12345678+AQ==', 'a+1,'],
    SHUTDOWN_DELAY: ['5', '-5s', '1w', '61m', '30d'],
    LOG_LEVEL: ['loud'],
    ADMIN_EMAIL: ['root', 'a@b, c@d', 'a@b\r\nBcc: c@d'],
    MAIL_FROM: ['us', '@', 'us@', 'Us <us>', 'Us <us@example.org', 'Us <us@example.org>, them@example.org', 'Us, Inc. <us@example.org>', 'us@example.org\nBcc: them@example.org', 'Us\n<us@example.org>']
  }
  for (const [name, values] of Object.entries(bad)) {
    for (const value of values) {
      const [line] = faults({ ADMIN_PASSWORD: 'long enough', ADMIN_EMAIL: 'a@b', [name]: value })
      t.ok(line?.startsWith(`${name} is ${JSON.stringify(value)}: it may be `), `${name}=${value}`)
    }
  }
})

t.test('Redis is one server, a group that Sentinels watch, or a Cluster, with a user or without', async t => {
  const places: Record<string, object> = {
    'redis://localhost': { url: 'redis://localhost' },
    'redis://:p@[::1]:6379/15?family=6': { url: 'redis://:p@[::1]:6379/15?family=6' },
    'redis+sentinel://a:26379,b:26380/primary': { sentinels: [{ host: 'a', port: 26379 }, { host: 'b', port: 26380 }], name: 'primary', database: 0 },
    'redis+sentinel://u%40:p%3A%2F@[::1]:26379/a%20b/2': { sentinels: [{ host: '::1', port: 26379 }], name: 'a b', database: 2, username: 'u@', password: 'p:/' },
    'redis+cluster://a:6379,127.0.0.1:6380': { nodes: [{ host: 'a', port: 6379 }, { host: '127.0.0.1', port: 6380 }] },
    'redis+cluster://:p@a:6379/': { nodes: [{ host: 'a', port: 6379 }], password: 'p' }
  }
  for (const [url, redis] of Object.entries(places)) t.strictSame(loadConfig({ REDIS_URL: url }).redis, redis, url)
})

t.test('what is no value of a secret variable is refused and not shown', async t => {
  const good = secret()
  const bad: Record<string, string[]> = {
    DATABASE_URL: ['mysql://root:hunter2@db/app', 'hunter2'],
    REDIS_URL: [
      'hunter2', 'redis:hunter2', 'http://:hunter2@redis', 'redis://:hunter2@', 'redis://:hunter2@redis/x', 'redis://hunter2@redis', 'redis://:hun/ter2@redis', 'redis://:hunter2%zz@redis',
      'redis://:hunter2@a:1,b:2', 'redis://:hunter2@redis?keyPrefix=x', 'redis://:hunter2@redis:0', 'redis://:hunter2@redis:65536',
      'redis+sentinel://:hunter2@a:1,b:2', 'redis+sentinel://:hunter2@a,b:2/primary', 'redis+sentinel://:hunter2@a:1,/primary', 'redis+sentinel://:hunter2@a:1/primary/x',
      'redis+sentinel://:hunter2@a:1/primary/0/0', 'redis+sentinel://:hunter2@a:1/%zz', 'redis+cluster://:hunter2@a:1,b', 'redis+cluster://:hunter2@a:1/1', 'redis+cluster://a:b:hunter2@a:1'
    ],
    METRICS_TOKEN: ['hunter2', 'hunter2 with spaces in it', 'hunter2-0123456789,'],
    NOTIFY_WEBHOOK_URL: ['http://hooks.example.org/hunter2', 'hunter2', 'https:hunter2', 'https://u:hunter2@hooks.example.org', 'https://10.0.0.1/hunter2', 'https://[::1]/hunter2'],
    NOTIFY_WEBHOOK_SECRET: ['hunter2', 'whsec_hunter2', 'whsec_hunter2-hunter3-MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
    AUDIT_SIGNING_KEY: ['hunter2', '-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----', `${pem(generateKeyPairSync('ed25519').privateKey)}hunter2`, pem(generateKeyPairSync('x25519').privateKey)],
    AUDIT_MASTER_KEY: ['hunter2', `${good},hunter2`],
    AUDIT_ANCHOR_URL: ['http://anchor.example.org/hunter2', 'hunter2', 'ftp://hunter2@localhost'],
    SMTP_URL: ['http://root:hunter2@mail', 'hunter2', 'smtp:', 'smtp:hunter2', 'smtps://'],
    JWT_PRIVATE_KEY: ['-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----'],
    ADMIN_PASSWORD: ['hunter2', 'hunter2'.repeat(20), 'password1', 'Password1'],
    JWT_SECRET: [
      'hunter2',
      'a'.repeat(64),
      'hunter2!'.repeat(8),
      'hunter2-hunter3-hunter2-hunter3-hunter2-',
      'abcdefghijklmnopqrstuvwxyz-hunter2',
      'change-me-please-0123456789-hunter2-hunter2'
    ],
    TOKEN_SECRET: ['hunter2', `${good},hunter2`, `${good},${good}`, `${good},`]
  }
  for (const [name, values] of Object.entries(bad)) {
    for (const value of values) {
      const lines = faults({ ADMIN_EMAIL: 'a@b', MAIL_FROM: 'a@b', ADMIN_PASSWORD: 'long enough', NOTIFY_WEBHOOK_URL: 'https://hooks.example.org', NOTIFY_WEBHOOK_SECRET: good, [name]: value })
      t.match(lines, [new RegExp(`^${name} is refused, .*: it may be `)])
      t.notMatch(lines.join(), /hunter2|mysql/)
      t.notOk(lines.join().includes(good))
    }
  }
})

t.test('generated secrets are random enough for the check of the given ones', async t => {
  const encodings = ['hex', 'base64', 'base64url'] as const
  t.doesNotThrow(() => {
    for (let i = 0; i < 3000; i++) aSecret(randomBytes(32).toString(encodings[i % 3]))
  })
})

t.test('one error names all that is wrong, conflicts included', async t => {
  t.match(faults({ PORT: 'x', LOG_LEVEL: 'x', JWT_SECRET: secret(), JWT_PRIVATE_KEY: pem(generateKeyPairSync('ed25519').privateKey), ADMIN_EMAIL: 'a@b', SMTP_URL: 'smtp://mail', NOTIFY_WEBHOOK_URL: 'https://hooks.example.org' }), [
    /^PORT /, /^LOG_LEVEL /, /^JWT_SECRET and JWT_PRIVATE_KEY are both set/, /^ADMIN_EMAIL and ADMIN_PASSWORD go together/, /^NOTIFY_WEBHOOK_URL and NOTIFY_WEBHOOK_SECRET go together/, /^MAIL_FROM is not set/
  ])
  for (const env of [{ METRICS_PORT: '3000' }, { METRICS_PORT: '8080', PORT: '8080' }]) t.strictSame(faults(env), ['METRICS_PORT is that of PORT: it may be another one'])
  t.strictSame(faults({ METRICS_PORT: '0', PORT: '0' }), [])
  t.equal(loadConfig({ METRICS_PORT: ' ' }).metrics.port, null, 'blanks are no port')
})

t.test('production does not start on generated secrets', async t => {
  t.match(faults({ NODE_ENV: 'production' }), [/^TOKEN_SECRET is not set: .*openssl/, /^JWT_SECRET is not set, nor is JWT_PRIVATE_KEY: .*openssl/])
  t.strictSame(faults({ NODE_ENV: 'production', TOKEN_SECRET: secret(), JWT_SECRET: secret() }), [])
})

t.test('.env.example says of every variable what it is, what it may be and its default', async t => {
  const lines = Object.entries(variables.properties).map(([name, { description, mayBe, default: value = '' }]) => `# ${description}\n# (${mayBe})\n${name}=${value}\n`)
  t.equal(readFileSync('.env.example', 'utf8'), lines.join('\n'))
  t.strictSame(loadConfig(environment('.env.example', {})), loadConfig({}), 'and can be used as it is')
})

t.test('the environment wins over the file, which need not be there', async t => {
  const file = join(await temporaryDirectory(t), '.env')
  writeFileSync(file, 'PORT=1\nHOST="::1"\n')
  t.strictSame(environment(file, { PORT: '2' }), { PORT: '2', HOST: '::1' })
  t.strictSame(environment(`${file}.none`, { PORT: '2' }), { PORT: '2' })
  t.throws(() => environment('/'), { code: 'EISDIR' })
})

const metrics = { tokens: null, allow: null, port: null }
const generated = { tokenSecrets: null, jwtKey: null, metrics, production: false }

t.test('servers that start at once on an empty directory get the same keys, which others cannot read', async t => {
  const dataDir = join(await temporaryDirectory(t), 'a', 'b')
  const all = await Promise.all(Array.from({ length: 20 }, () => loadKeys({ dataDir, ...generated })))
  const [keys] = all
  for (const others of all) t.strictSame(others, keys)
  t.match(keys, { tokenSecrets: [/^[\w-]{43}$/], jwtKey: { secret: /^[\w-]{43}$/ }, operators: { token: /^[\w-]{43}$/ }, generated: ['TOKEN_SECRET', 'JWT_SECRET'] })
  t.not(keys?.tokenSecrets[0], Object(keys?.jwtKey).secret)
  t.equal(statSync(dataDir).mode & 0o777, 0o700)
  t.strictSame(readdirSync(dataDir), ['jwt-secret.key', 'metrics-token.key', 'token-secret.key'], 'no draft is left')
  for (const name of readdirSync(dataDir)) t.equal(statSync(join(dataDir, name)).mode & 0o777, 0o600)
})

t.test('keys that are given are used, and none is made', async t => {
  const dataDir = await temporaryDirectory(t)
  const given = { tokenSecrets: ['a', 'b'], jwtKey: { secret: 'c' } }
  t.strictSame(await loadKeys({ dataDir, ...given, metrics: { tokens: ['d'], allow: ['::1'], port: null }, production: false }), { ...given, operators: { token: ['d'], allow: ['::1'] }, generated: [] })
  for (const [production, port] of [[true, null], [false, 9464]] as const) t.strictSame(await loadKeys({ dataDir, ...given, metrics: { ...metrics, port }, production }), { ...given, operators: {}, generated: [] })
  t.strictSame(readdirSync(dataDir), [])
})

t.test('a kept key that was cut short, emptied or opened to others is refused, with what to do', async t => {
  const dataDir = await temporaryDirectory(t)
  const { tokenSecrets: [key] } = await loadKeys({ dataDir, ...generated })
  const file = join(dataDir, 'token-secret.key')
  const refusal = { code: 'APP_KEY_FILE_INVALID', message: file }
  for (const content of ['', String(key), String(key).slice(0, 20) + '\n', `${key}\n${key}\n`]) {
    writeFileSync(file, content)
    await t.rejects(loadKeys({ dataDir, ...generated }), refusal)
  }
  writeFileSync(file, `${key}\n`)
  chmodSync(file, 0o640)
  const error = await loadKeys({ dataDir, ...generated }).catch(error => error)
  t.match(error, { ...refusal, message: /chmod 600/ })
  t.notOk(error.message.includes(key))
  chmodSync(file, 0o600)
  t.match(await loadKeys({ dataDir, ...generated }), { tokenSecrets: [key] })
})
