import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { faultOf, type OperatorOptions } from '../token-registry/index.ts'
import { MetricsOptions } from './errors.ts'
import { newRegister, type MetricsRegister } from './register.ts'

export interface MetricsPluginOptions {
  /** A registry of prom-client that metrics are added to; its own one, of OpenMetrics, where it is left out. Exemplars need one of OpenMetrics. */
  register?: MetricsRegister
  /** How the names of metrics begin, but for those of HTTP and of Node: `token_registry_` by default. */
  namePrefix?: string
  /** Labels that every series has, as `{ region: 'eu' }`. */
  labels?: Readonly<Record<string, string>>
  /** Upper bounds in seconds, ascending. */
  buckets?: { operation?: readonly number[], http?: readonly number[] }
  /** Tenants and clients that are told apart; the rest counts as `other`. 0 to 100, 10 by default. */
  maxTenants?: number
  maxClients?: number
  /** Reasons of endings that the service names itself; others than these and the registry's own count as `other`. */
  reasons?: readonly string[]
  /** Whether requests are measured, true by default. */
  http?: boolean
  /** Whether Node's own metrics are among them: true, unless `register` is given. */
  process?: boolean
  /** A port of its own for `GET /metrics`: for who has the token, or asks from where it is allowed; without either, for anybody who reaches it. */
  listen?: { port: number, host?: string } & OperatorOptions
}

const name = '^[a-zA-Z_][a-zA-Z0-9_]*$'
/** Those that series of ours have, or Prometheus gives. */
const taken = new Set(['le', 'quantile', 'operation', 'outcome', 'store', 'tenant', 'client', 'reason', 'limit', 'check', 'status', 'method', 'route', 'kind', 'type', 'space', 'version', 'major', 'minor', 'patch'])

const defaultBuckets = {
  operation: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5],
  http: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5]
}

// Lists have no default in the schema: what is given in place of one would be laid over it, and vanish.
const bounds = Type.Optional(Type.Array(Type.Number({ errorMessage: 'seconds' }), { minItems: 1, maxItems: 30, errorMessage: 'a list of 1 to 30 upper bounds in seconds, ascending' }))
const most = Type.Integer({ minimum: 0, maximum: 100, default: 10, errorMessage: 'a whole number from 0 to 100' })

const Options = Type.Object({
  register: Type.Optional(Type.Unsafe<MetricsRegister>(Type.Any())),
  namePrefix: Type.String({ pattern: '^([a-zA-Z_:][a-zA-Z0-9_:]*)?$', default: 'token_registry_', errorMessage: 'letters, digits and _, a digit not first' }),
  labels: Type.Record(Type.String(), Type.String({ maxLength: 128, errorMessage: 'text of at most 128 characters' }), { default: {}, errorMessage: 'texts by the names of labels' }),
  buckets: Type.Object({ operation: bounds, http: bounds }, { additionalProperties: false, default: {}, errorMessage: '{ operation, http }' }),
  maxTenants: most,
  maxClients: most,
  reasons: Type.Optional(Type.Array(Type.String({ pattern: '^[a-z0-9_]{1,64}$', errorMessage: 'lower-case letters, digits and _' }), { maxItems: 50, errorMessage: 'a list of at most 50 names' })),
  http: Type.Boolean({ default: true, errorMessage: 'true or false' }),
  process: Type.Optional(Type.Boolean({ errorMessage: 'true or false' })),
  listen: Type.Optional(Type.Object({
    port: Type.Integer({ minimum: 0, maximum: 65535, errorMessage: 'a port, 0 for any' }),
    host: Type.Optional(Type.String({ errorMessage: 'a host name or an address' })),
    // Those who read them check them.
    token: Type.Optional(Type.Unsafe<string | string[]>(Type.Unknown())),
    allow: Type.Optional(Type.Unsafe<string[]>(Type.Unknown()))
  }, { additionalProperties: false, errorMessage: '{ port, host, token, allow }' }))
}, { additionalProperties: false })

const Given = Type.Partial(Options)

/** Options as they are used: complete and checked. */
export interface ResolvedOptions extends Omit<Static<typeof Options>, 'register' | 'buckets' | 'process' | 'reasons'> {
  buckets: { operation: readonly number[], http: readonly number[] }
  register: MetricsRegister
  process: boolean
  reasons: readonly string[]
}

/** @throws {MetricsOptions} names the option, what it was and what it may be */
export function resolveOptions ({ register, ...given }: MetricsPluginOptions): ResolvedOptions {
  if (register !== undefined && typeof Object(register).getSingleMetric !== 'function') throw new MetricsOptions('register: it may be a Registry of prom-client')
  const fault = faultOf(Given, given, '')
  if (fault !== null) throw new MetricsOptions(fault)
  // Defaults are written into it, and what is given may be frozen.
  const options = Value.Default(Options, structuredClone(given)) as Static<typeof Options> // what is given has no fault
  const buckets = { ...defaultBuckets, ...options.buckets }
  for (const [kind, bounds] of Object.entries(buckets)) checkAscending(bounds, `buckets.${kind}`)
  checkLabels(options.labels)
  if (register !== undefined && Object.keys(options.labels).length > 0) throw new MetricsOptions('labels: the registry that is given has its own, set them there')
  return {
    ...options,
    buckets,
    register: register ?? newRegister(),
    process: options.process ?? register === undefined,
    reasons: options.reasons ?? []
  }
}

function checkAscending (bounds: readonly number[], name: string): void {
  const wrong = bounds.findIndex((bound, index) => !(bound > (bounds[index - 1] ?? 0)))
  if (wrong >= 0) throw new MetricsOptions(`${name}.${wrong} is ${bounds[wrong]}: it may be seconds, more than ${bounds[wrong - 1] ?? 0}, since bounds ascend`)
}

function checkLabels (labels: Readonly<Record<string, string>>): void {
  for (const label of Object.keys(labels)) {
    if (!new RegExp(name).test(label) || label.startsWith('__')) throw new MetricsOptions(`labels.${label} is no name of a label: letters, digits and _, neither a digit nor __ first`)
    if (taken.has(label)) throw new MetricsOptions(`labels.${label} is a label that series have already`)
  }
}
