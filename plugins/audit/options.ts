import type { KeyObject } from 'node:crypto'
import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { DurationSchema, faultOf, milliseconds, weakness, type Duration } from '../token-registry/index.ts'
import type { Anchor } from './anchors.ts'
import { AuditOptions as OptionFault } from './errors.ts'
import type { Gathering } from './gathering.ts'
import type { Ledger } from './ledger.ts'
import { signingKeyOf } from './signing.ts'
import type { Sink } from './sinks/sink.ts'
import { parseVkey } from './verify/index.ts'

/** How the plugin is registered. Durations are milliseconds, or text such as `'5s'`. */
export interface AuditPluginOptions {
  /** Where the log lies, on which it is ordered and by which it is proved; the memory of the process by default, which it is gone with. */
  ledger?: Ledger
  /** Where copies of entries go. */
  copies?: readonly Sink[]
  /**
   * `'required'` (the default): what cannot be recorded is not done, and what cannot be recorded as done is not answered.
   * `'best-effort'`: it is done, and what is lost is counted and recorded when that is possible again.
   */
  guarantee?: 'required' | 'best-effort'
  /** Entries of up to 10 ms, or 500, are stored in one step. */
  gather?: { time?: Duration, entries?: number }
  /** Entries that may wait, 50,000. */
  maxQueue?: number
  /** How long somebody waits until what they do is on record, 5 s. */
  timeout?: Duration
  /** Names the log in its checkpoints, as a URL without scheme: `'example.com/audit'`. Never two logs alike. */
  origin?: string
  /** Ed25519 private keys (PEM): all sign, so that one can be replaced. Derived from the secret of token-registry where they are left out. */
  signingKeys?: readonly string[]
  /** Public keys (`origin+id+base64`) of what signed before: their checkpoints still count. */
  formerKeys?: readonly string[]
  /** Secrets that wrap the keys of persons, at least 32 bytes: the first wraps, all unwrap, and so do those of token-registry. */
  masterKeys?: readonly string[]
  /** A growing log is signed that often, 1 s. */
  checkpointInterval?: Duration
  /** Where checkpoints are kept out of reach of who can write to the ledger. */
  anchors?: readonly Anchor[]
}

const duration = (ms: number) => Type.Unsafe<Duration>({ ...DurationSchema, default: ms })
const having = (names: readonly string[], errorMessage: string) => Type.Object(Object.fromEntries(names.map(name => [name, Type.Any({ errorMessage })])), { additionalProperties: true, errorMessage })
const text = 'text of at least 32 bytes'
const vkey = 'a public key, as audit.vkeys gives them'

// Lists have no default here: what is given in place of one would be laid over it, and vanish.
const Options = Type.Object({
  ledger: Type.Optional(Type.Unsafe<Ledger>(having(['append', 'entries', 'find', 'tiles'], 'what a ledger has, such as sqlLedger(pool)'))),
  copies: Type.Optional(Type.Unsafe<readonly Sink[]>(Type.Array(having(['name', 'write', 'close'], 'what a sink has, such as fileSink(path)'), { errorMessage: 'a list of sinks, such as fileSink(path)' }))),
  guarantee: Type.Unsafe<'required' | 'best-effort'>(Type.Union([Type.Literal('required'), Type.Literal('best-effort')], { default: 'required', errorMessage: '"required" or "best-effort"' })),
  gather: Type.Object({
    time: duration(10),
    entries: Type.Integer({ minimum: 1, maximum: 500, default: 500, errorMessage: 'a whole number from 1 to 500' })
  }, { additionalProperties: false, default: {}, errorMessage: '{ time, entries }' }),
  maxQueue: Type.Integer({ minimum: 1, maximum: 1_000_000, default: 50_000, errorMessage: 'a whole number from 1 to 1000000' }),
  timeout: duration(5000),
  origin: Type.String({ pattern: '^[!-*,-~]{1,200}$', default: 'fastify-token-registry/audit', errorMessage: '1 to 200 visible ASCII characters, without spaces and +' }),
  signingKeys: Type.Optional(Type.Array(Type.String({ errorMessage: 'an Ed25519 private key in PEM' }), { maxItems: 8, errorMessage: 'a list of Ed25519 private keys in PEM' })),
  formerKeys: Type.Optional(Type.Array(Type.String({ errorMessage: vkey }), { maxItems: 64, errorMessage: 'a list of public keys, as audit.vkeys gives them' })),
  masterKeys: Type.Optional(Type.Array(Type.String({ errorMessage: text }), { maxItems: 16, errorMessage: `a list of secrets, each ${text}` })),
  checkpointInterval: duration(1000),
  anchors: Type.Optional(Type.Unsafe<readonly Anchor[]>(Type.Array(Type.Function([], Type.Unknown(), { errorMessage: 'a function, such as fileAnchor(path)' }), { errorMessage: 'a list of functions, such as fileAnchor(path)' })))
}, { additionalProperties: false })

/** Options as they are used: complete, checked, durations in ms. */
export interface ResolvedOptions extends Pick<Static<typeof Options>, 'ledger' | 'guarantee' | 'maxQueue' | 'origin'>, Required<Pick<AuditPluginOptions, 'copies' | 'formerKeys' | 'anchors'>> {
  gather: Gathering
  timeout: number
  checkpointInterval: number
  signingKeys: readonly KeyObject[]
  masterKeys: readonly Buffer[]
}

/** @throws {OptionFault} names the option, what it was and what it may be */
export function resolveOptions (given: AuditPluginOptions): ResolvedOptions {
  // It writes into lists, and those that are given may be frozen.
  const options = Value.Default(Options, Object.fromEntries(Object.entries(given).map(([name, value]) => [name, Array.isArray(value) ? [...value] : value])))
  const fault = faultOf(Options, options, '')
  if (fault !== null) throw new OptionFault(fault)
  const { gather, timeout, checkpointInterval, copies = [], signingKeys = [], formerKeys = [], masterKeys = [], anchors = [], ...rest } = options as Static<typeof Options> // no fault was found with it
  const wrong = formerKeys.findIndex(key => parseVkey(key) === null)
  if (wrong >= 0) throw new OptionFault(`formerKeys.${wrong} is no public key: it may be ${vkey}`)
  const resolved = {
    ...rest,
    copies,
    formerKeys,
    anchors,
    gather: { time: milliseconds(gather.time), entries: gather.entries },
    timeout: within('timeout', milliseconds(timeout), 1, 3_600_000),
    checkpointInterval: within('checkpointInterval', milliseconds(checkpointInterval), 1, 86_400_000),
    signingKeys: signingKeys.map((pem, index) => signingKeyOf(pem, `signingKeys.${index}`)),
    masterKeys: masterKeys.map((secret, index) => masterKeyOf(secret, `masterKeys.${index}`))
  }
  if (resolved.gather.time >= resolved.timeout) throw new OptionFault(`gather.time is ${resolved.gather.time} ms, and timeout ${resolved.timeout} ms: what waits for others would be given up`)
  return resolved
}

function within (name: string, ms: number, min: number, max: number): number {
  if (ms < min || ms > max) throw new OptionFault(`${name} is ${ms} ms: it may be ${min} to ${max}`)
  return ms
}

function masterKeyOf (secret: string, name: string): Buffer {
  const weak = weakness(secret)
  if (weak !== null) throw new OptionFault(`${name} ${weak}: it may be ${text}, such as openssl rand -base64 32 makes`)
  return Buffer.from(secret)
}
