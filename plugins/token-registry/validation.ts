import { isIP } from 'node:net'
import { FormatRegistry, Type, type Static, type TSchema } from '@sinclair/typebox'
import { TypeCompiler, type TypeCheck } from '@sinclair/typebox/compiler'
import { isThenable, within } from './deadline.ts'
import { DurationSchema, milliseconds, type Duration } from './duration.ts'
import { HookTimeout, TokenOptions, TokenValidation } from './errors.ts'
import { checkMeta } from './meta.ts'
import type { EndDetail, EndReason, SessionMeta } from './record.ts'
import type { SessionPatch, SessionQuery } from './store.ts'
import { looksLikeOurs } from './token.ts'

const MIN_TTL = 1000
const MAX_TTL = 365 * 86_400_000

FormatRegistry.Set('token-registry:text', value => value.isWellFormed() && !value.includes('\0'))
FormatRegistry.Set('token-registry:ip', value => isIP(value) !== 0)

const text = (maxLength: number, minLength = 1) => Type.String({ minLength, maxLength, format: 'token-registry:text' })
const nullable = <Schema extends TSchema>(schema: Schema) => Type.Union([schema, Type.Null()])

const sub = text(256)
const tenant = text(256, 0)
const client = text(256)
const deviceId = text(256)
const ipAddress = Type.String({ format: 'token-registry:ip' })

const changeable = {
  // RFC 6749, section 3.3: scope-token
  scope: Type.Optional(Type.Array(Type.String({ pattern: '^[\\x21\\x23-\\x5B\\x5D-\\x7E]{1,128}$' }), { maxItems: 256 })),
  idleTimeout: Type.Optional(nullable(DurationSchema)),
  meta: Type.Optional(Type.Object({
    deviceId: Type.Optional(deviceId),
    ipAddress: Type.Optional(ipAddress),
    userAgent: Type.Optional(text(1024, 0)),
    remember: Type.Optional(Type.Boolean())
  })),
  version: Type.Optional(text(64))
}

/** What a session is made from. */
const SessionDataSchema = Type.Object({
  sub,
  tenant: Type.Optional(tenant),
  client: Type.Optional(nullable(client)),
  use: Type.Optional(Type.Union([Type.Literal('session'), Type.Literal('refresh'), Type.Literal('once')])),
  ttl: Type.Optional(DurationSchema),
  origin: Type.Optional(nullable(Type.String({ pattern: '^[A-Za-z0-9_-]{24}$' }))),
  binding: Type.Optional(nullable(Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }))),
  // Of sessions of the same subject, to end in the step that stores this one; ids of others do nothing.
  endOthers: Type.Optional(Type.Array(Type.String({ pattern: '^[A-Za-z0-9_-]{24}$' }), { maxItems: 100 })),
  ...changeable
}, { additionalProperties: false })

/** What a session is made from, for `issue` and `save`; `meta` takes what the service adds. */
export type SessionData = Omit<Static<typeof SessionDataSchema>, 'meta' | 'scope'> & { meta?: SessionMeta, scope?: readonly string[] }

const sessionData = TypeCompiler.Compile(SessionDataSchema)
const sessionPatch = TypeCompiler.Compile(Type.Object(changeable, { additionalProperties: false }))
const sessionQuery = TypeCompiler.Compile(Type.Object({
  sub: Type.Optional(sub),
  tenant: Type.Optional(tenant),
  client: Type.Optional(client),
  deviceId: Type.Optional(deviceId),
  ipAddress: Type.Optional(ipAddress),
  issuedAfter: Type.Optional(Type.Number()),
  issuedBefore: Type.Optional(Type.Number())
}, { additionalProperties: false }))
const revocation = TypeCompiler.Compile(Type.Object({
  reason: text(64),
  by: nullable(text(256)),
  sub: Type.Optional(sub),
  tenant: Type.Optional(tenant),
  except: Type.Optional(Type.Array(Type.String({ maxLength: 256 }), { maxItems: 10_000 })),
  detail: Type.Optional(Type.Object({
    limit: Type.Optional(text(256)),
    session: Type.Optional(text(256)),
    device: Type.Optional(text(256)),
    differs: Type.Optional(text(256))
  }, { additionalProperties: false }))
}, { additionalProperties: false }))

/** What a validator is told: the data, and the token where the caller made it. */
export interface Candidate {
  data: SessionData
  token: string | null
}

/** Throws where a session may not be saved. */
export type Validator = (candidate: Candidate) => void | Promise<void>

/** A function runs after the checks of `'default'`. */
export type ValidatorOption = 'default' | 'strict' | 'none' | Validator

/** @param timeout ms that a function may take */
export function validatorOf (option: ValidatorOption, timeout: number): Validator {
  switch (option) {
    case 'default': return checkDefault
    case 'strict': return checkStrict
    case 'none': return () => {}
  }
  if (typeof option !== 'function') throw new TokenOptions(`validator is ${JSON.stringify(option)}: it may be 'default', 'strict', 'none' or a function`)
  return async candidate => {
    checkDefault(candidate)
    await checkOwn(candidate, option, timeout)
  }
}

/** What may change of a session; `idleTimeout` null takes the timeout away. */
export type SessionChange = Omit<SessionPatch, 'idleTimeout'> & { idleTimeout?: Duration | null }

/** @throws {TokenValidation} */
export function patchOf (change: SessionChange): SessionPatch {
  check(sessionPatch, change)
  const { idleTimeout, ...patch } = change
  if (patch.meta !== undefined) checkMeta(patch.meta)
  if (idleTimeout === undefined) return patch
  if (idleTimeout === null) return { ...patch, idleTimeout }
  checkLifetime(idleTimeout, 'idleTimeout')
  return { ...patch, idleTimeout: milliseconds(idleTimeout) }
}

/**
 * A key that is undefined would ask for more than was meant: for everybody's.
 *
 * @throws {TokenValidation}
 */
export function checkQuery (query: SessionQuery): void {
  check(sessionQuery, query)
  checkSet(query)
}

/**
 * A subject that is undefined or misspelt would be anybody.
 *
 * @throws {TokenValidation}
 */
export function checkRevocation ({ reason = 'revoked', by = null, ...of }: { reason?: EndReason, by?: string | null, sub?: string | undefined, tenant?: string, detail?: EndDetail }): void {
  check(revocation, { reason, by, ...of })
  checkSet(of)
  if (of.tenant !== undefined && of.sub === undefined) throw new TokenValidation('tenant: goes with sub')
}

export function checkDefault ({ data }: Candidate): void {
  check(sessionData, data)
  checkLifetime(data.ttl, 'ttl')
  if (data.idleTimeout !== null) checkLifetime(data.idleTimeout, 'idleTimeout')
  if (data.meta !== undefined) checkMeta(data.meta)
}

function checkSet (of: object): void {
  const unset = Object.entries(of).find(([, value]) => value === undefined)
  if (unset !== undefined) throw new TokenValidation(`${unset[0]}: is undefined: leave it out, or give it a value`)
}

function checkStrict (candidate: Candidate): void {
  checkDefault(candidate)
  const { data: { meta = {} }, token } = candidate
  for (const key of ['deviceId', 'ipAddress', 'userAgent'] as const) {
    if (!meta[key]) throw new TokenValidation(`meta.${key}: is required by the strict validator`)
  }
  if (token !== null && tokenBits(token) < 128) throw new TokenValidation('the token is too easy to guess: make it of at least 128 random bits')
}

async function checkOwn (candidate: Candidate, own: Validator, timeout: number): Promise<void> {
  try {
    const checking = own(candidate)
    if (isThenable(checking)) await within(checking, timeout, () => new HookTimeout('validator', timeout))
  } catch (error) {
    if (error instanceof Error && 'statusCode' in error) throw error
    throw new TokenValidation(error instanceof Error ? error.message : 'the validator refused the session', { cause: error })
  }
}

/**
 * Lets pass a token that can be adopted, whatever the validator: others would never be found again.
 *
 * @throws {TokenValidation}
 */
export function checkAdopted (token: string): void {
  if (typeof token !== 'string') throw new TokenValidation('the token is not text')
  if (token.length < 8 || token.length > 512) throw new TokenValidation(`the token has ${token.length} characters: it may have 8 to 512`)
  if (!token.isWellFormed() || token.includes('\0')) throw new TokenValidation('the token is not well-formed text')
  if (looksLikeOurs(token)) throw new TokenValidation('the token begins as the registry\'s own tokens do: choose another prefix, or issue one')
}

function checkLifetime (duration: Duration | undefined, name: string): void {
  if (duration === undefined) return
  const ms = milliseconds(duration)
  if (!(ms >= MIN_TTL && ms <= MAX_TTL)) throw new TokenValidation(`${name}: is ${JSON.stringify(duration)}, it may be 1000 ("1s") to ${MAX_TTL} ("365d")`)
}

const alphabets = [[/^\d+$/, 10], [/^(?:[\da-f]+|[\dA-F]+)$/, 16], [/^(?:[\da-z]+|[\dA-Z]+)$/, 36], [/^[\dA-Za-z]+$/, 62], [/^[\w+/=.~-]+$/, 64]] as const

/** The bits that a token can hold at most: length × log2 of the smallest usual alphabet that contains it. */
function tokenBits (token: string): number {
  const size = alphabets.find(([pattern]) => pattern.test(token))?.[1] ?? 94
  const distinct = new Set(token).size
  // Few different characters are an alphabet of their own; many tell nothing, since a short random token never shows all of its alphabet.
  return token.length * Math.log2(distinct < 8 ? distinct : size)
}

function check (compiled: TypeCheck<TSchema>, value: unknown): void {
  const fault = compiled.Check(value) ? undefined : compiled.Errors(value).First()
  if (fault === undefined) return
  const path = fault.path.slice(1).replaceAll('/', '.')
  throw new TokenValidation(`${path === '' ? 'the argument' : path}: ${complaint(fault)}`)
}

function complaint ({ schema, message }: { schema: TSchema, message: string }): string {
  if (schema.format === 'token-registry:text') return `is not well-formed text of ${String(schema.minLength)} to ${String(schema.maxLength)} characters without NUL`
  if (schema.format === 'token-registry:ip') return 'is no IPv4 or IPv6 address'
  return typeof schema.errorMessage === 'string' ? `is not ${schema.errorMessage}` : message.charAt(0).toLowerCase() + message.slice(1)
}
