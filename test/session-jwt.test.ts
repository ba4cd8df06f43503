import { createHmac, createPublicKey, generateKeyPairSync, randomBytes, type JsonWebKey, type KeyObject } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import fastifyJwt, { type FastifyJWTOptions } from '@fastify/jwt'
import Fastify, { type FastifyInstance } from 'fastify'
import { calculateJwkThumbprint, exportJWK, jwtVerify, SignJWT, type JWTHeaderParameters, type JWTPayload } from 'jose'
import t, { type Test } from 'tap'
import sessionJwt, { denylistTrusted, jwtKeys, type JwtKey, type SessionJwtOptions } from '../plugins/session-jwt/index.ts'
import tokenRegistry, { memoryStore, type SessionRecord, type TokenRegistryOptions } from '../plugins/token-registry/index.ts'
import { newSecret } from './support/build.ts'

const issuer = 'https://id.example'
const audience = 'https://api.example'
const secret = newSecret()

const pairs = {
  EdDSA: generateKeyPairSync('ed25519'),
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  RS256: generateKeyPairSync('rsa', { modulusLength: 2048 })
}
/** Of each kind of key: what `jwtKeys` is given, and what another implementation signs and verifies with. */
const kinds: Array<{ alg: string, key: JwtKey, signing: KeyObject | Uint8Array, verifying: KeyObject | Uint8Array }> = [
  { alg: 'HS256', key: { secret }, signing: Buffer.from(secret), verifying: Buffer.from(secret) },
  ...Object.entries(pairs).map(([alg, { privateKey, publicKey }]) => ({ alg, key: { privateKey: pem(privateKey) }, signing: privateKey, verifying: publicKey }))
]

interface Parts {
  jwt?: Partial<FastifyJWTOptions>
  session?: Partial<SessionJwtOptions>
  registry?: Partial<TokenRegistryOptions>
}

/** A server whose sessions are proved by JWTs; `GET /` says by which. */
async function serve (t: Test, { jwt = jwtKeys({ secret }), session = {}, registry = {} }: Parts = {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(fastifyJwt, { secret, ...jwt })
  await app.register(tokenRegistry, { secret: newSecret(), reuseWindow: 0, ...registry })
  await app.register(sessionJwt, { issuer, audience, ...jwt.namespace !== undefined && { namespace: jwt.namespace }, ...session })
  app.get('/', { config: { session: true } }, async request => {
    const { session, scope, claims } = request.requireAuth()
    return { id: session.id, scope, claims }
  })
  app.get('/files', { config: { session: { scope: 'files' } } }, async () => 'files')
  app.delete('/', { config: { session: true } }, async request => await request.revokeSession())
  app.post('/', { config: { session: true } }, async request => await request.rotateSession())
  return app
}

async function get (app: FastifyInstance, token: string, url = '/'): Promise<{ status: number, body: Record<string, unknown>, challenge: unknown }> {
  const { statusCode: status, body, headers } = await app.inject({ url, headers: { authorization: `Bearer ${token}` } })
  return { status, body: body.startsWith('{') ? JSON.parse(body) : {}, challenge: headers['www-authenticate'] }
}

/** Claims that are accepted for a session. */
function claimsOf ({ id, sub }: SessionRecord, now = Date.now()): JWTPayload & { exp: number, iat: number } {
  const iat = Math.floor(now / 1000)
  return { iss: issuer, aud: audience, sub, sid: id, jti: randomBytes(8).toString('hex'), iat, nbf: iat, exp: iat + 60 }
}

/** A JWS of any header and payload, signed with HS256. */
function compact (header: unknown, payload: unknown, key: string | Buffer = secret, hash = 'sha256'): string {
  const input = [header, payload].map(part => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')).join('.')
  return `${input}.${createHmac(hash, key).update(input).digest('base64url')}`
}

function pem (key: KeyObject): string {
  return key.export({ type: key.type === 'private' ? 'pkcs8' : 'spki', format: 'pem' }).toString()
}

const header = { alg: 'HS256', typ: 'at+jwt' }

t.test('a token of each kind of key authenticates here, and is an access token to another implementation', async t => {
  for (const { alg, key, verifying } of kinds) {
    const app = await serve(t, { jwt: jwtKeys(key) })
    const { session } = await app.tokenRegistry.issue({ sub: 'alice', client: 'web', scope: ['files', 'mail'], ttl: '1h' })
    const { token, jti, expiresIn, expiresAt } = app.sessionJwt.sign(session, { name: 'Alice' })

    t.match(await get(app, token), { status: 200, body: { id: session.id, scope: ['files', 'mail'] } }, alg)

    const { payload, protectedHeader } = await jwtVerify(token, verifying, { issuer, audience, typ: 'at+jwt', algorithms: [alg], requiredClaims: ['exp', 'nbf', 'iat', 'jti'] })
    t.same(protectedHeader, { alg, typ: 'at+jwt', kid: jwtKeys(key).sign.kid })
    const { iat = NaN } = payload
    t.same(payload, {
      iss: issuer, aud: audience, sub: 'alice', client_id: 'web', scope: 'files mail', sid: session.id, jti, iat, nbf: iat, exp: iat + 900, name: 'Alice'
    })
    t.equal(expiresIn, 900)
    t.equal(expiresAt, (iat + 900) * 1000)
  }
})

t.test('a token that another implementation signs opens here, with either form of the type', async t => {
  for (const { alg, key, signing } of kinds) {
    const app = await serve(t, { jwt: jwtKeys(key) })
    const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
    for (const typ of ['at+jwt', 'application/at+jwt', 'AT+JWT']) {
      const token = await new SignJWT({ ...claimsOf(session), aud: ['https://other.example', audience] }).setProtectedHeader({ alg, typ }).sign(signing)
      t.match(await get(app, token), { status: 200, body: { id: session.id } }, `${alg} ${typ}`)
    }
  }
})

t.test('a session says no more in its token than it has, and a bound one names its key', async t => {
  const app = await serve(t)
  const { session: bare } = await app.tokenRegistry.issue({ sub: 'alice' })
  const claims = decode(app.sessionJwt.sign(bare).token)
  t.same(Object.keys(claims).sort(), ['aud', 'exp', 'iat', 'iss', 'jti', 'nbf', 'sid', 'sub'])

  const binding = 'x'.repeat(43)
  const { session: bound } = await app.tokenRegistry.issue({ sub: 'alice', binding })
  const { token } = app.sessionJwt.sign(bound)
  t.same(decode(token)['cnf'], { jkt: binding })
  t.equal((await get(app, token)).status, 401, 'and is no bearer token')
})

t.test('a token is verified once, and served from the cache until its session ends', async t => {
  const app = await serve(t)
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const { token } = app.sessionJwt.sign(session)
  for (let i = 0; i < 3; i++) t.equal((await get(app, token)).status, 200)
  t.match(app.tokenRegistry.stats.read(), { cache: { hits: 2, misses: 1 } })
})

t.test('a token ends with its session, at once, whatever ends it', async t => {
  let now = Date.UTC(2030, 0, 1, 0, 0, 0, 789)
  const app = await serve(t, { registry: { store: memoryStore({ now: () => now }), idleTimeout: '5m' } })
  const { tokenRegistry: registry } = app

  const endings: Record<string, (token: string, session: SessionRecord, refresh: string) => unknown> = {
    'the request that it proves': token => app.inject({ method: 'DELETE', url: '/', headers: { authorization: `Bearer ${token}` } }),
    revoke: token => registry.revoke(token),
    revokeById: (_token, { id }) => registry.revokeById(id),
    revokeAll: (_token, { sub }) => registry.revokeAll({ sub }),
    'reuse of its refresh token': async (_token, _session, refresh) => {
      await registry.rotate(refresh)
      await t.rejects(registry.rotate(refresh), { code: 'FST_TOKEN_REUSED' })
    },
    'its deadline': () => { now += 200_000 },
    'idle time': () => { now += 300_000 }
  }
  for (const [name, end] of Object.entries(endings)) {
    const { session, token: refresh } = await registry.issue({ sub: 'alice', use: 'refresh', ttl: name === 'its deadline' ? 200_000 : '1d' })
    const { token } = app.sessionJwt.sign(session)
    t.equal((await get(app, token)).status, 200, `valid before: ${name}`)
    t.equal((await get(app, token)).status, 200, 'and cached')
    await end(token, session, refresh)
    t.match(await get(app, token), { status: 401, body: { code: 'FST_TOKEN_INVALID' }, challenge: 'Bearer error="invalid_token"' }, `refused after: ${name}`)
  }
})

t.test('a token expires while its session lives on', async t => {
  let now = Date.UTC(2030, 0, 1, 0, 0, 0, 789)
  const app = await serve(t, { session: { ttl: '1m' }, registry: { store: memoryStore({ now: () => now }) } })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice', ttl: '1h' })
  const cached = app.sessionJwt.sign(session)
  const fresh = app.sessionJwt.sign(session)
  t.equal(cached.expiresIn, 60)

  now = cached.expiresAt - 1
  t.equal((await get(app, cached.token)).status, 200)
  now = cached.expiresAt
  t.equal((await get(app, cached.token)).status, 401, 'that was cached')
  t.equal((await get(app, fresh.token)).status, 401, 'that was never seen')
  await t.rejects(app.tokenRegistry.verify(fresh.token), { code: 'FST_TOKEN_EXPIRED' })
  t.equal(await app.tokenRegistry.revoke(fresh.token), false, 'it ends nothing any more')
  t.equal((await get(app, app.sessionJwt.sign(session).token)).status, 200, 'the session gives another')
})

t.test('no token lives longer than its session', async t => {
  let now = Date.UTC(2030, 0, 1, 0, 0, 0, 789)
  const app = await serve(t, { registry: { store: memoryStore({ now: () => now }) } })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice', ttl: '1m' })
  now += 30_000
  const { expiresAt, expiresIn } = app.sessionJwt.sign(session)
  t.equal(expiresAt, Math.floor(session.expiresAt / 1000) * 1000)
  t.equal(expiresIn, 30)
  now = expiresAt
  t.throws(() => app.sessionJwt.sign(session), { code: 'FST_TOKEN_EXPIRED' }, 'not even a second is left')
})

t.test('clocks may differ by the tolerance, and not at all by default', async t => {
  const now = Date.UTC(2030, 0, 1)
  const exact = await serve(t, { registry: { store: memoryStore({ now: () => now }) } })
  const tolerant = await serve(t, { session: { clockTolerance: '30s' }, registry: { store: memoryStore({ now: () => now }) } })
  for (const app of [exact, tolerant]) {
    const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
    const claims = claimsOf(session, now)
    const status = async (change: JWTPayload) => (await get(app, compact(header, { ...claims, ...change }))).status
    const within = app === tolerant ? 200 : 401
    t.equal(await status({}), 200)
    t.equal(await status({ nbf: claims.iat + 30 }), within)
    t.equal(await status({ nbf: claims.iat + 31 }), 401)
    t.equal(await status({ exp: claims.iat - 29 }), within)
    t.equal(await status({ exp: claims.iat - 30 }), 401)
  }
})

t.test('a token narrows the scope of its session and never widens it', async t => {
  const app = await serve(t)
  const { session } = await app.tokenRegistry.issue({ sub: 'alice', scope: ['files', 'mail'] })
  t.equal((await get(app, app.sessionJwt.sign(session).token, '/files')).status, 200)

  const { token } = app.sessionJwt.sign(session, { scope: 'mail' })
  t.match(await get(app, token), { status: 200, body: { scope: ['mail'] } })
  t.match(await get(app, token, '/files'), { status: 403, body: { code: 'FST_SESSION_SCOPE' } })
  t.match(await get(app, app.sessionJwt.sign(session, { scope: '' }).token), { status: 200, body: { scope: [] } })

  t.throws(() => app.sessionJwt.sign(session, { scope: 'mail admin' }), { code: 'FST_TOKEN_VALIDATION', message: /^claims\.scope/ })
  const wide = compact(header, { ...claimsOf(session), scope: 'files mail admin' })
  t.same((await get(app, wide)).body['scope'], ['files', 'mail'], 'nor does one that was signed elsewhere')
})

t.test('a token proves a session whose own token only rotates, and never a one-time token', async t => {
  const app = await serve(t)
  const { session, token } = await app.tokenRegistry.issue({ sub: 'alice', use: 'refresh' })
  t.equal((await get(app, token)).status, 401)
  const signed = app.sessionJwt.sign(session).token
  t.equal((await get(app, signed)).status, 200)
  const rotation = await app.inject({ method: 'POST', url: '/', headers: { authorization: `Bearer ${signed}` } })
  t.match(rotation.json(), { statusCode: 409, code: 'FST_SESSION_NOT_ROTATABLE' })

  const { session: once } = await app.tokenRegistry.issue({ sub: 'alice', use: 'once' })
  t.throws(() => app.sessionJwt.sign(once), { code: 'FST_TOKEN_VALIDATION', message: /one-time/ })
  t.equal((await get(app, compact(header, claimsOf(once)))).status, 401)
})

t.test('a service adds claims, but not those that the session sets, nor more than is taken', async t => {
  const app = await serve(t)
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const { token } = app.sessionJwt.sign(session, { roles: ['editor'] })
  t.match(await get(app, token), { status: 200, body: { claims: { roles: ['editor'] } } })
  for (const name of ['iss', 'aud', 'sub', 'client_id', 'sid', 'jti', 'iat', 'nbf', 'exp', 'cnf']) {
    t.throws(() => app.sessionJwt.sign(session, { [name]: 'x' }), { code: 'FST_TOKEN_VALIDATION', message: new RegExp(`^claims\\.${name}: `) })
  }
  t.throws(() => app.sessionJwt.sign(session, { long: 'x'.repeat(7000) }), { code: 'FST_TOKEN_VALIDATION', message: /at most 8192/ })
})

t.test('it finds its namespace among others, in each of several servers', async t => {
  const first = await serve(t, { jwt: { namespace: 'access', ...jwtKeys({ secret }) } })
  const second = await serve(t, { jwt: jwtKeys({ secret: newSecret() }) })
  await first.register(fastifyJwt, { secret: newSecret(), namespace: 'mail' })
  await second.register(fastifyJwt, { secret: newSecret(), namespace: 'mail' })
  for (const app of [first, second]) {
    const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
    const { token } = app.sessionJwt.sign(session)
    t.equal((await get(app, token)).status, 200)
    t.equal((await get(app === first ? second : first, token)).status, 401)
  }
})

t.test('a JWT that serves the host for something else is no session, and can be adopted as any token', async t => {
  const app = await serve(t)
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const reset = app.getDecorator<{ sign: (claims: object) => string }>('jwt').sign(claimsOf(session))
  t.equal((await get(app, reset)).status, 401)
  const adopted = await app.tokenRegistry.save(reset, { sub: 'bob' })
  t.match(await get(app, reset), { status: 200, body: { id: adopted.id } })
})

t.test('whatever is wrong with a token, it is refused alike', async t => {
  const app = await serve(t)
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const claims = claimsOf(session)
  const good = compact(header, claims)
  const [head = '', body = '', signature = ''] = good.split('.')
  t.equal((await get(app, good)).status, 200, 'all else being equal, it is accepted')

  const refused: Record<string, string> = {}
  for (const typ of ['JWT', 'jwt', 'at+jwt2', 'application/jwt', 'rt+jwt', '', 7, null, ['at+jwt']]) refused[`typ ${JSON.stringify(typ)}`] = compact({ ...header, typ }, claims)
  refused['no typ'] = compact({ alg: 'HS256' }, claims)
  for (const [name, value] of Object.entries({
    crit: ['b64'], b64: false, jwk: { kty: 'oct', k: 'AAAA' }, jku: 'https://evil.example', x5u: 'https://evil.example', x5c: ['AAAA'], cty: 'JWT', zip: 'DEF', 'a\nb': 1
  })) refused[`header ${name}`] = compact({ ...header, [name]: value }, claims)
  refused['header with crit of nothing'] = compact({ ...header, crit: [] }, claims)
  refused['header is a list'] = compact([header], claims)
  refused['header is null'] = compact('null', claims)
  refused['header is no JSON'] = compact('{', claims)

  for (const alg of ['none', 'None', 'NONE', '']) {
    refused[`alg ${alg}`] = compact({ ...header, alg }, claims)
    refused[`alg ${alg}, unsigned`] = `${Buffer.from(JSON.stringify({ ...header, alg })).toString('base64url')}.${body}.`
  }
  for (const bits of ['384', '512']) refused[`alg HS${bits}`] = compact({ ...header, alg: `HS${bits}` }, claims, secret, `sha${bits}`)
  for (const alg of ['RS256', 'EdDSA', 'hs256', 256]) refused[`alg ${alg}`] = compact({ ...header, alg }, claims)
  refused['alg, the last of two'] = compact('{"alg":"HS256","typ":"at+jwt","alg":"none"}', claims)
  refused['typ, the last of two'] = compact('{"alg":"HS256","typ":"at+jwt","typ":"JWT"}', claims)
  refused['another secret'] = compact(header, claims, newSecret())
  refused['no signature'] = `${head}.${body}.`

  for (const name of ['iss', 'aud', 'sub', 'sid', 'jti', 'iat', 'nbf', 'exp']) {
    const { [name]: _, ...rest } = claims
    refused[`no ${name}`] = compact(header, rest)
    for (const value of [null, true, {}, [], '']) refused[`${name} ${JSON.stringify(value)}`] = compact(header, { ...claims, [name]: value })
  }
  for (const name of ['iat', 'nbf', 'exp']) {
    for (const value of [`"${claims.exp}"`, `${claims.iat}.5`, '1e400', '-1', '9e15', `[${claims.exp}]`]) {
      refused[`${name} ${value}`] = compact(header, `${JSON.stringify({ ...claims, [name]: undefined }).slice(0, -1)},"${name}":${value}}`)
    }
  }
  refused['exp, the last of two'] = compact(header, `${JSON.stringify(claims).slice(0, -1)},"exp":1}`)
  refused['exp gone by'] = compact(header, { ...claims, exp: claims.iat - 1 })
  refused['nbf to come'] = compact(header, { ...claims, nbf: claims.iat + 30 })
  for (const aud of ['https://other.example', `${audience}/`, ['https://other.example'], [[audience]], [audience, 7], { 0: audience }]) {
    refused[`aud ${JSON.stringify(aud)}`] = compact(header, { ...claims, aud })
  }
  for (const iss of ['https://evil.example', [issuer], `${issuer}/`]) refused[`iss ${JSON.stringify(iss)}`] = compact(header, { ...claims, iss })
  for (const sid of ['x'.repeat(24), `${session.id}A`, session.id.slice(1), [session.id], 7]) refused[`sid ${JSON.stringify(sid)}`] = compact(header, { ...claims, sid })
  refused['jti of 513'] = compact(header, { ...claims, jti: 'x'.repeat(513) })
  refused['sub of 257'] = compact(header, { ...claims, sub: 'x'.repeat(257) })
  refused['scope as a list'] = compact(header, { ...claims, scope: ['files'] })
  refused['claims in a list'] = compact(header, [claims])
  refused['claims are null'] = compact(header, 'null')
  refused['claims are a JWT'] = compact(header, good)
  refused['claims are nothing'] = compact(header, '')

  refused['unused bits in the signature'] = good.slice(0, -1) + nextCharacter(good.at(-1) ?? '')
  for (const padding of ['=', '==', '+', '/', '.', '..', '\u00e9', '%3D']) refused[`${padding} after it`] = good + padding
  refused['= within'] = `${head}=.${body}.${signature}`
  refused['plain base64'] = `${Buffer.from('{"alg":"HS256","typ":"at+jwt","kid":">>>???"}').toString('base64')}.${body}.${signature}`
  refused['two parts'] = `${head}.${body}`
  refused['four parts'] = `${good}.${signature}`
  refused['five parts, as JWE has'] = `${head}..${body}.${body}.${signature}`
  refused['parts of nothing'] = '..'
  refused['JSON serialization'] = JSON.stringify({ payload: body, protected: head, signature }).replaceAll(' ', '')
  refused['8193 characters'] = compact(header, { ...claims, long: 'x'.repeat(7000) })

  for (const [name, token] of Object.entries(refused)) {
    t.match(await get(app, token), { status: 401, body: { code: 'FST_TOKEN_INVALID' }, challenge: 'Bearer error="invalid_token"' }, name)
  }
  for (let i = 0; i < good.length; i++) {
    const other = good[i] === 'A' ? 'B' : 'A'
    t.equal((await get(app, good.slice(0, i) + other + good.slice(i + 1))).status, 401, `character ${i} changed`)
  }
})

t.test('a log is told why a token was refused', async t => {
  const app = await serve(t)
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const claims = claimsOf(session)
  const reasons: Array<[string, RegExp]> = [
    [compact({ ...header, crit: ['x'] }, claims), /header holds more than alg, typ and kid/],
    [compact(header, { ...claims, exp: '7' }), /claim exp is missing or malformed/],
    [compact(header, { ...claims, sid: 'x' }), /claim sid is missing or malformed/],
    [compact(header, { ...claims, iss: 'x' }), /iss is another issuer/],
    [compact(header, { ...claims, aud: 'x' }), /aud is another audience/],
    [compact(header, { ...claims, nbf: claims.exp }), /nbf lies in the future/]
  ]
  for (const [token, message] of reasons) {
    await t.rejects(app.tokenRegistry.verify(token), { code: 'FST_TOKEN_INVALID', cause: { code: 'FST_SESSION_JWT_REFUSED', message } })
  }
  await t.rejects(app.tokenRegistry.verify(compact(header, claims, 'x')), { code: 'FST_TOKEN_INVALID', cause: { code: 'FAST_JWT_INVALID_SIGNATURE' } })
})

t.test('whoever knows a public key cannot sign with it', async t => {
  for (const [alg, { privateKey, publicKey }] of Object.entries(pairs)) {
    const app = await serve(t, { jwt: jwtKeys({ privateKey: pem(privateKey) }) })
    const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
    const claims = claimsOf(session)
    const jwk = await exportJWK(publicKey)
    const der = publicKey.export({ type: 'spki', format: 'der' })
    for (const key of [pem(publicKey), pem(publicKey).trim(), der, der.toString('base64'), JSON.stringify(jwk)]) {
      t.equal((await get(app, compact(header, claims, key))).status, 401)
      t.equal((await get(app, compact({ ...header, alg }, claims, key))).status, 401)
    }
    // CVE-2018-0114: a key that the token brings along
    const own = generateKeyPairSync('ed25519')
    const brought: JWTHeaderParameters = { alg: 'EdDSA', typ: 'at+jwt', jwk: await exportJWK(own.publicKey) }
    t.equal((await get(app, await new SignJWT(claims).setProtectedHeader(brought).sign(own.privateKey))).status, 401)
  }
})

t.test('tokens of a key that was replaced are valid until they expire, those of no other', async t => {
  const before = { secret: newSecret() }
  const later = { privateKey: pem(pairs.EdDSA.privateKey) }
  const store = memoryStore()
  const old = await serve(t, { jwt: jwtKeys(before), registry: { store } })
  const { session } = await old.tokenRegistry.issue({ sub: 'alice' })
  const { token } = old.sessionJwt.sign(session)

  const rotated = await serve(t, { jwt: jwtKeys(later), session: { previousKeys: [jwtKeys(before), jwtKeys({ publicKey: pem(pairs.RS256.publicKey) })] }, registry: { store } })
  t.equal((await get(rotated, token)).status, 200)
  t.equal((await get(rotated, rotated.sessionJwt.sign(session).token)).status, 200)
  const kid = jwtKeys({ publicKey: pem(pairs.RS256.publicKey) }).sign.kid
  const claims = claimsOf(session)
  t.equal((await get(rotated, await new SignJWT(claims).setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid }).sign(pairs.RS256.privateKey))).status, 200)

  for (const forged of [
    compact({ ...header, kid }, claims, before.secret),
    compact({ ...header, kid }, claims, pem(pairs.RS256.publicKey)),
    compact({ ...header, kid: 'unknown' }, claims, before.secret),
    compact({ ...header, kid: ['x'] }, claims, before.secret),
    compact(header, claims, before.secret)
  ]) t.equal((await get(rotated, forged)).status, 401, 'a key is good for its own kid and algorithm')

  const without = await serve(t, { jwt: jwtKeys(later), registry: { store } })
  t.equal((await get(without, token)).status, 401)
})

t.test('a server that has only the public key verifies and cannot sign', async t => {
  const store = memoryStore()
  const signing = await serve(t, { jwt: jwtKeys({ privateKey: pem(pairs.EdDSA.privateKey) }), registry: { store } })
  const verifying = await serve(t, { jwt: jwtKeys({ publicKey: pem(pairs.EdDSA.publicKey) }), registry: { store } })
  const { session } = await signing.tokenRegistry.issue({ sub: 'alice' })
  t.equal((await get(verifying, signing.sessionJwt.sign(session).token)).status, 200)
  t.throws(() => verifying.sessionJwt.sign(session), /unable to sign/)
})

t.test('who gives @fastify/jwt the type spares parsing the key, and gets the same tokens', async t => {
  const keys = jwtKeys({ secret })
  const app = await serve(t, { jwt: { ...keys, sign: { ...keys.sign, header: { alg: 'HS256', typ: 'at+jwt' } } } })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const { token } = app.sessionJwt.sign(session)
  t.match(await jwtVerify(token, Buffer.from(secret), { typ: 'at+jwt' }), { payload: { sid: session.id } })
  t.equal((await get(app, token)).status, 200)
})

t.test('a registration of @fastify/jwt that is not safe is refused', async t => {
  const keys = jwtKeys({ secret })
  const publicPem = pem(pairs.ES256.publicKey)
  const ec = { private: pem(pairs.ES256.privateKey), public: publicPem }
  const refused: Array<[string, Parts, RegExp]> = [
    ['no algorithm is pinned', { jwt: { secret } }, /verify\.algorithms of @fastify\/jwt is undefined/],
    ['several are', { jwt: { secret, verify: { algorithms: ['HS256', 'HS512'] } } }, /is \["HS256","HS512"\]/],
    ['another is', { jwt: { secret, verify: { algorithms: ['HS512'] } } }, /one of EdDSA, ES256, RS256, HS256/],
    ['the plugin pins another', { jwt: keys, session: { algorithm: 'EdDSA' } }, /algorithm is EdDSA, which verify\.algorithms .* \(HS256\) lacks/],
    ['it signs with another', { jwt: { secret, sign: { algorithm: 'HS512' }, verify: { algorithms: ['HS256'] } } }, /sign\.algorithm of @fastify\/jwt is HS512/],
    ['the public key is another', { jwt: { ...jwtKeys({ privateKey: ec.private }), secret: { ...ec, public: pem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey) } } }, /does not verify/],
    ['the key is of another algorithm', { jwt: { secret }, session: { algorithm: 'ES256' } }, /cannot sign here/],
    ['a public key is the secret', { jwt: { secret: publicPem, verify: { algorithms: ['HS256'] }, sign: { algorithm: 'HS256' } } }, /is a public key/],
    ['a public key is there for HS256', { jwt: { secret: { public: publicPem } }, session: { algorithm: 'HS256' } }, /is a public key/],
    ['the secret is a function', { jwt: { ...keys, secret: async () => secret } }, /is a function/],
    ['exp is set', { jwt: { ...keys, sign: { ...keys.sign, expiresIn: '15m' } } }, /change sub, jti or exp/],
    ['sub is set', { jwt: { ...keys, sign: { ...keys.sign, sub: 'alice' } } }, /change sub, jti or exp/],
    ['jti is set', { jwt: { ...keys, sign: { ...keys.sign, jti: 'x' } } }, /change sub, jti or exp/],
    ['iss is set', { jwt: { ...keys, sign: { ...keys.sign, iss: 'https://other.example' } } }, /does not verify/],
    ['iat is left out', { jwt: { ...keys, sign: { ...keys.sign, noTimestamp: true } } }, /does not verify/],
    ['the header says more', { jwt: { ...keys, sign: { ...keys.sign, header: { alg: 'HS256', cty: 'x' } } } }, /does not verify/],
    ['the header says another type', { jwt: { ...keys, sign: { ...keys.sign, header: { alg: 'HS256', typ: 'JWT' } } } }, /does not verify/],
    ['ours is refused', { jwt: { ...keys, verify: { ...keys.verify, allowedIss: 'https://other.example' } } }, /does not verify/]
  ]
  for (const [name, parts, message] of refused) await t.rejects(serve(t, parts), { code: 'FST_SESSION_JWT_OPTIONS', message }, name)

  const pinned = await serve(t, { jwt: { secret }, session: { algorithm: 'HS256' } })
  const { session } = await pinned.tokenRegistry.issue({ sub: 'alice' })
  t.equal((await get(pinned, pinned.sessionJwt.sign(session).token)).status, 200, 'its own option pins as well')
  t.equal((await get(pinned, compact({ ...header, alg: 'HS512' }, claimsOf(session), secret, 'sha512'))).status, 401)
})

t.test('a registration may take longer than a token lives', async t => {
  let now = Date.UTC(2030, 0, 1)
  const store = memoryStore({
    now () {
      now += 2000
      return now
    }
  })
  await t.resolves(serve(t, { session: { ttl: '1s' }, registry: { store } }))
})

t.test('options of @fastify/jwt that are not for access tokens do not reach them', async t => {
  const keys = jwtKeys({ secret })
  let now = Date.UTC(2020, 0, 1)
  const app = await serve(t, {
    jwt: { ...keys, verify: { ...keys.verify, complete: true, cache: true, ignoreExpiration: true, ignoreNotBefore: true, clockTolerance: 600_000, maxAge: '1h' } },
    registry: { store: memoryStore({ now: () => now }) }
  })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const { token } = app.sessionJwt.sign(session)
  t.equal((await get(app, token)).status, 200)
  now += 900_000
  t.equal((await get(app, token)).status, 401)
})

t.test('options that are not what they may be are refused, and named', async t => {
  const refused: Array<[object, RegExp]> = [
    [{ issuer: undefined }, /issuer is undefined/],
    [{ audience: '' }, /audience is '': it may be text of 1 to 512 characters/],
    [{ audience: ['a', 'b'] }, /audience is \[Array\]/],
    [{ ttl: '15 minutes' }, /ttl is '15 minutes': it may be a number of milliseconds, or text/],
    [{ ttl: 999 }, /ttl is 999 ms: it may be 1000 to 86400000/],
    [{ ttl: '2d' }, /ttl is 172800000 ms/],
    [{ clockTolerance: '6m' }, /clockTolerance is 360000 ms: it may be 0 to 300000/],
    [{ clockTolerance: '1m', ttl: '30s' }, /clockTolerance \(60000 ms\) is not shorter than ttl \(30000 ms\)/],
    [{ algorithm: 'HS512' }, /algorithm is 'HS512': it may be EdDSA, ES256, RS256, HS256/],
    [{ lifetime: '15m' }, /lifetime/],
    [{ previousKeys: [secret] }, /^session-jwt: previousKeys\.0 is not what it may be/],
    [{ namespace: 'acces' }, /namespace is acces: @fastify\/jwt is registered under access/]
  ]
  for (const [session, message] of refused) {
    await t.rejects(serve(t, { jwt: { namespace: 'access', ...jwtKeys({ secret }) }, session }), { code: 'FST_SESSION_JWT_OPTIONS', message })
  }
  // As by spreading jwtKeys over the wrong options.
  for (const wrong of [jwtKeys({ secret }), jwtKeys({ privateKey: pem(pairs.EdDSA.privateKey) }), { secret: 10n }, { issuer: secret.repeat(20) }]) {
    const error: unknown = await serve(t, { session: { ...wrong } as object }).then(() => null, error => error)
    t.match(error, { code: 'FST_SESSION_JWT_OPTIONS' })
    t.notMatch(String(error), secret)
    t.notMatch(String(error), 'PRIVATE KEY')
  }
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret })
  await app.register(fastifyJwt, { ...jwtKeys({ secret }), namespace: 'access' })
  await t.rejects(async () => await app.register(sessionJwt, { issuer, audience }), { message: /namespace is missing: @fastify\/jwt is registered under access/ })

  const bare = await serve(t)
  await t.rejects(async () => await bare.register(sessionJwt, { issuer, audience, namespace: 'access' }), { message: /registered without one/ })
})

t.test('a key is named by its thumbprint, and says what it signs', async t => {
  for (const [alg, { privateKey, publicKey }] of Object.entries(pairs)) {
    const keys = jwtKeys({ privateKey: pem(privateKey) })
    const kid = await calculateJwkThumbprint(await exportJWK(publicKey))
    t.match(keys, { sign: { algorithm: alg, kid }, verify: { algorithms: [alg] }, secret: { public: pem(publicKey) } })
    t.same(jwtKeys({ publicKey: pem(publicKey) }), { ...keys, secret: { public: pem(publicKey) } })
  }
  const sec1 = pairs.ES256.privateKey.export({ type: 'sec1', format: 'pem' }).toString()
  const pkcs1 = pairs.RS256.privateKey.export({ type: 'pkcs1', format: 'pem' }).toString()
  t.equal(jwtKeys({ privateKey: sec1 }).sign.algorithm, 'ES256')
  t.equal(jwtKeys({ privateKey: pkcs1 }).sign.algorithm, 'RS256')
  t.equal(jwtKeys({ secret }).sign.kid, jwtKeys({ secret }).sign.kid)
  t.not(jwtKeys({ secret }).sign.kid, jwtKeys({ secret: newSecret() }).sign.kid)
})

t.test('a weak or unfit key is refused, and never repeated', async t => {
  const { privateKey, publicKey } = pairs.EdDSA
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey
  const encrypted = privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }).toString()
  const jwk = JSON.stringify(publicKey.export({ format: 'jwk' }))
  const refused: Array<[object, RegExp]> = [
    [{ secret: 'short' }, /secret has 5 bytes/],
    [{ secret: 'a'.repeat(64) }, /fewer than 8 different/],
    [{ secret: 'abcd1234XYZ-'.repeat(4) }, /repeats itself/],
    [{ secret: 'change-me-to-something-secret-0123' }, /placeholder/],
    [{ secret: pem(publicKey) }, /secret is a key/],
    [{ secret: `  ${pem(privateKey)}` }, /secret is a key/],
    [{ secret: jwk }, /secret is a key/],
    [{ secret: publicKey.export({ type: 'spki', format: 'der' }).toString('base64') }, /secret is a key/],
    [{ secret: Buffer.from(secret) }, /secret is not text/],
    [{ privateKey: pem(publicKey) }, /privateKey is not the PEM of a private key/],
    [{ privateKey: encrypted }, /privateKey is not the PEM of a private key without a passphrase/],
    [{ privateKey: secret }, /privateKey is not the PEM/],
    [{ privateKey: pem(small) }, /privateKey is rsa of 1024 bits: it may be Ed25519, P-256, or RSA of at least 2048 bits/],
    [{ privateKey: pem(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey) }, /privateKey is ec secp384r1/],
    [{ privateKey: pem(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey) }, /privateKey is ec secp256k1/],
    [{ privateKey: pem(generateKeyPairSync('ed448').privateKey) }, /privateKey is ed448/],
    [{ privateKey: pem(generateKeyPairSync('x25519').privateKey) }, /privateKey is x25519/],
    [{ privateKey: pem(generateKeyPairSync('rsa-pss', { modulusLength: 2048 }).privateKey) }, /privateKey is rsa-pss/],
    [{ publicKey: pem(privateKey) }, /publicKey is the PEM of a private key/],
    [{ publicKey: 'x' }, /publicKey is not the PEM/],
    [{}, /takes one of/],
    [{ secret: undefined }, /takes one of/],
    [{ secret, privateKey: pem(privateKey) }, /takes one of/],
    [{ key: secret }, /key is not known/]
  ]
  for (const [key, message] of refused) {
    t.throws(() => jwtKeys(key as JwtKey), { code: 'FST_SESSION_JWT_OPTIONS', message })
    try {
      jwtKeys(key as JwtKey)
    } catch (error) {
      for (const text of Object.values(key)) if (typeof text === 'string' && text.length > 5) t.notMatch(String(error), text)
    }
  }
})

t.test('a JWT on the denylist is trusted no longer', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(fastifyJwt, { secret, trusted: denylistTrusted() })
  await app.register(tokenRegistry, { secret })
  app.get('/', async request => await request.jwtVerify())
  app.delete('/', async request => {
    const { jti, exp } = await request.jwtVerify<{ jti: string, exp: number }>()
    return await app.tokenRegistry.denylist.add(jti, exp * 1000)
  })
  const exp = Math.floor(Date.now() / 1000) + 60
  const jwt = (claims: object) => compact({ alg: 'HS256' }, { exp, ...claims })

  t.equal((await get(app, jwt({ jti: 'a' }))).status, 200)
  const signOut = await app.inject({ method: 'DELETE', url: '/', headers: { authorization: `Bearer ${jwt({ jti: 'a' })}` } })
  t.equal(signOut.body, 'true')
  t.match(await get(app, jwt({ jti: 'a' })), { status: 401, body: { code: 'FST_JWT_AUTHORIZATION_TOKEN_UNTRUSTED' } })
  t.equal((await get(app, jwt({ jti: 'b' }))).status, 200)
  for (const jti of [undefined, null, '', 7, ['a'], 'x'.repeat(513)]) t.equal((await get(app, jwt({ jti }))).status, 401, `jti ${JSON.stringify(jti)}`)
})

t.test('the denylist tells issuers apart, and lets a JWT without an id pass, where it is asked to', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(fastifyJwt, { secret, trusted: denylistTrusted({ byIssuer: true, allowMissingJti: true }) })
  await app.register(tokenRegistry, { secret })
  app.get('/', async request => await request.jwtVerify())
  const jwt = (claims: object) => compact({ alg: 'HS256' }, claims)

  await app.tokenRegistry.denylist.add('a', Date.now() + 60_000, { issuer })
  t.equal((await get(app, jwt({ jti: 'a', iss: issuer }))).status, 401)
  t.equal((await get(app, jwt({ jti: 'a', iss: 'https://other.example' }))).status, 200)
  t.equal((await get(app, jwt({ jti: 'a' }))).status, 401, 'an id of no issuer')
  t.equal((await get(app, jwt({}))).status, 200)
})

t.test('a denylist that a restart may have emptied refuses what is older, where it is asked to', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(fastifyJwt, { secret, trusted: denylistTrusted({ refuseOlder: true }) })
  await app.register(tokenRegistry, { secret })
  app.get('/', async request => await request.jwtVerify())
  const jwt = (claims: object) => compact({ alg: 'HS256' }, { jti: 'a', ...claims })

  const now = Math.floor(Date.now() / 1000)
  t.equal((await get(app, jwt({ iat: now + 1 }))).status, 200)
  t.equal((await get(app, jwt({ iat: now - 2 }))).status, 401)
  t.equal((await get(app, jwt({}))).status, 401)
})

t.test('a denylist that cannot be read trusts nothing', async t => {
  const store = Object.assign(memoryStore(), { marked: () => Promise.reject(new Error('unreachable')) })
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(fastifyJwt, { secret, trusted: denylistTrusted() })
  app.get('/', async request => await request.jwtVerify())
  await app.register(async scope => {
    await scope.register(tokenRegistry, { secret, store })
    scope.get('/scope', async request => await request.jwtVerify())
  })
  const jwt = compact({ alg: 'HS256' }, { jti: 'a' })
  t.match(await get(app, jwt, '/scope'), { status: 503, body: { code: 'FST_STORE_UNAVAILABLE' } })
  t.match(await get(app, jwt), { status: 500, body: { message: /token-registry is not registered here/ } })
})

// RFC 7515, appendix A: HS256 (A.1), ES256 (A.3), and unsecured (A.5)
const joe = 'eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ'
const rfc7515: Array<Pick<Vector, 'id' | 'jwk' | 'jws'>> = [
  {
    id: 'A.1',
    jwk: { kty: 'oct', k: 'AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow' },
    jws: `eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.${joe}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk`
  },
  {
    id: 'A.3',
    jwk: { kty: 'EC', crv: 'P-256', x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU', y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0' },
    jws: `eyJhbGciOiJFUzI1NiJ9.${joe}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q`
  }
]

t.test('keys verify the examples of RFC 7515, and refuse its unsecured one', async t => {
  for (const { jwk, jws } of [...rfc7515, ...vectors('jws-rfc7515').filter(({ result }) => result === 'valid')]) {
    const jwt = await fastifyJwtOf(t, jwk ?? {})
    t.match(jwt.verify(jws, { ignoreExpiration: true }), { iss: 'joe', exp: 1300819380 })
    t.throws(() => jwt.verify(jws), { code: 'FAST_JWT_EXPIRED' })
    t.throws(() => jwt.verify(`eyJhbGciOiJub25lIn0.${joe}.`, { ignoreExpiration: true }), { code: 'FAST_JWT_MISSING_SIGNATURE' })
  }
})

t.test('no signature, however it is malformed, passes for other claims', async t => {
  // Its own payloads are no JSON objects, and would be refused for that.
  const claims = Buffer.from(JSON.stringify({ sub: 'alice' })).toString('base64url')
  const verifiers = new Map<JsonWebKey, Awaited<ReturnType<typeof fastifyJwtOf>>>()
  for (const { id, jwk = {}, jws } of [...rfc7515, ...vectors('jws-wycheproof')]) {
    const jwt = verifiers.get(jwk) ?? await fastifyJwtOf(t, jwk)
    verifiers.set(jwk, jwt)
    t.throws(() => jwt.verify(jws.replace(/\.[^.]*/, `.${claims}`)), id)
  }
})

interface Vector { id: string, jwk?: JsonWebKey, jws: string, result: string }

function vectors (name: string): Vector[] {
  const file = new URL(`../../shared/vectors/${name}.json`, import.meta.url)
  if (!existsSync(file)) return []
  const { vectors, groups = [] } = JSON.parse(readFileSync(file, 'utf8')) as {
    vectors?: Vector[]
    groups?: Array<{ private?: JsonWebKey, public?: JsonWebKey, tests: Array<{ tcId: number, jws: unknown, result: string }> }>
  }
  return vectors ?? groups.flatMap(({ private: own, public: jwk = own ?? {}, tests }) => tests.flatMap(({ tcId, jws, result }) =>
    typeof jws === 'string' ? [{ id: String(tcId), jwk, jws, result }] : []))
}

/** `@fastify/jwt` for a key as JWK; its secrets are bytes, which `jwtKeys` does not take. */
async function fastifyJwtOf (t: Test, jwk: JsonWebKey): Promise<{ verify: (token: string, options?: object) => unknown }> {
  const app = Fastify()
  t.teardown(() => app.close())
  const keys: Pick<FastifyJWTOptions, 'secret' | 'verify'> = jwk.kty === 'oct'
    ? { secret: Buffer.from(String(jwk['k']), 'base64url'), verify: { algorithms: ['HS256'] } }
    : jwtKeys({ publicKey: pem(createPublicKey({ key: jwk, format: 'jwk' })) })
  await app.register(fastifyJwt, keys)
  return app.getDecorator('jwt')
}

function decode (token: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
}

/** The character of base64url after one, which differs from it in the last bit. */
function nextCharacter (character: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return alphabet[alphabet.indexOf(character) + 1] ?? ''
}

t.test('a token that names another subject than its session proves nothing', async t => {
  const app = await serve(t)
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  t.equal((await get(app, compact(header, { ...claimsOf(session), sub: 'bob' }))).status, 401)
})
