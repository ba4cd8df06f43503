import { hash } from 'node:crypto'
import { TENANT_GROUP, within, type SessionLifetime, type SessionLimit, type SessionPolicy, type SessionRecord, type SessionTerms, type Terms } from '../token-registry/index.ts'
import type { Device } from './devices/list.ts'
import { LimitsFailed } from './errors.ts'
import type { LimitedSession, ResolvedLifetime, ResolvedLimit, ResolvedOptions } from './options.ts'

/** Characters of a digest: those of one subject, or tenant, do not meet. */
const DIGEST = 11

/** Digests that are remembered. */
const REMEMBERED = 10_000

/** How the names of groups begin, by what is counted. */
const kinds = { device: 'd-', function: 'f-', client: 'c-', user: 'u-', tenant: TENANT_GROUP } as const
/** Of the sessions of one device, which make room for a new one of its own. */
const OWN = 'o-'

export interface PolicyParts {
  options: Pick<ResolvedOptions, 'limits' | 'lifetimes'>
  deviceOf: (session: SessionRecord) => Promise<Device | null>
  /** Is told why a limit could not be worked out. */
  log: (error: unknown, message: string) => void
}

/** What a limit is told of a session. */
interface Answers {
  /** What sessions that count together share; null where it counts in nothing. */
  key: string | null
  /** What `group` says. */
  named: string | null
  max: number
}

/** What a limit is for one session: which sessions it counts, and how many may live. */
interface Applied extends Omit<Answers, 'key'> {
  limit: ResolvedLimit
  /** Its place among the limits. */
  rank: number
  group: string | null
}

/**
 * From the options to the terms of sessions: which limits count them, and how long they live.
 *
 * The policy rejects with {@link LimitsFailed} where a function of a limit does not say what it should.
 */
export function createPolicy ({ options: { limits, lifetimes }, deviceOf, log }: PolicyParts): SessionPolicy {
  const replacing = limits.some(({ onExceed }) => onExceed === 'refuse')
  const digest = digests()

  /** What the limits are for one session: at once, unless one of them asks a function. */
  function appliedTo (session: SessionRecord, { timeout, devices }: { timeout: number, devices: KnownDevices }): Applied[] | Promise<Applied[]> {
    const own = limited(session, devices)
    const answers = allOf(limits.map(limit => ask(limit, session, own, { timeout, log })))
    const applied = (answers: readonly Answers[]) => answers.map((answer, rank) => apply(limits[rank] as ResolvedLimit, rank, answer)).filter(one => one !== null) // an answer each
    return answers instanceof Promise ? answers.then(applied) : applied(answers)
  }

  function apply (limit: ResolvedLimit, rank: number, { key, named, max }: Answers): Applied | null {
    if (key === null) return null
    // All sessions of a subject are counted without a name.
    const group = limit.per === 'user' && named === null ? null : kinds[kindOf(limit)] + digest(JSON.stringify([limit.name, key, named]))
    return { limit, rank, named, group, max }
  }

  function ownGroup (session: SessionRecord): string | null {
    const deviceId = deviceIdOf(session)
    return !replacing || deviceId === null ? null : OWN + digest(deviceId)
  }

  function termsOf (sessions: readonly SessionRecord[], all: ReadonlyArray<readonly Applied[]>): Terms {
    const asked = new Map<string, { rank: number, limit: SessionLimit }>()
    const terms = sessions.map((session, index): SessionTerms => {
      const [applied, own] = [all[index] as readonly Applied[], ownGroup(session)] // there are as many
      for (const { limit, rank, group, max } of applied) {
        const name = `${rank} ${group ?? ''}`
        asked.set(name, { rank, limit: limitOf(limit, group, Math.min(max, asked.get(name)?.limit.max ?? Infinity), own) })
      }
      const groups = [...applied.map(({ group }) => group), own].filter(group => group !== null)
      const names = applied.map(({ named }) => named).filter(name => name !== null)
      return { groups, ...lifetimes.size > 0 && lifetimeOf(names, session.meta.remember === true, lifetimes) }
    })
    const inOrder = [...asked.values()].sort((a, b) => a.rank - b.rank).map(({ limit }) => limit)
    return { limits: inOrder.filter(({ max }) => max < Infinity), sessions: terms }
  }

  return (sessions, timeout) => {
    const devices = knownDevices(deviceOf)
    const all = allOf(sessions.map(session => appliedTo(session, { timeout, devices })))
    return all instanceof Promise ? all.then(all => termsOf(sessions, all)) : termsOf(sessions, all)
  }
}

function limitOf ({ name, onExceed, per }: ResolvedLimit, group: string | null, max: number, replaces: string | null): SessionLimit {
  return {
    name,
    max,
    onExceed,
    ...group !== null && { group },
    ...per === 'tenant' && { across: 'tenant' },
    ...onExceed === 'refuse' && replaces !== null && { replaces }
  }
}

/** What a limit has to know of a session; asks its functions, where it has some. */
function ask (limit: ResolvedLimit, session: SessionRecord, own: () => LimitedSession, asking: Asking): Answers | Promise<Answers> {
  const { per, max, group } = limit
  if (typeof per !== 'function' && typeof max !== 'function' && group === undefined) return { key: keyOf(per, session), named: null, max }
  return askInTime(limit, own(), asking)
}

interface Asking {
  /** ms */
  timeout: number
  log: PolicyParts['log']
}

async function askInTime (limit: ResolvedLimit, session: LimitedSession, { timeout, log }: Asking): Promise<Answers> {
  try {
    return await within(askFunctions(limit, session), timeout, () => new Error(`it took longer than hookTimeout, ${timeout} ms`))
  } catch (error) {
    log(error, `the limit "${limit.name}" could not be worked out: nobody signs in under it`)
    throw new LimitsFailed(limit.name, { cause: error })
  }
}

async function askFunctions ({ per, max, group }: ResolvedLimit, session: LimitedSession): Promise<Answers> {
  const key = typeof per === 'function' ? checkedKey(await per(session)) : keyOf(per, session)
  if (key === null) return { key, named: null, max: Infinity }
  return {
    key,
    named: group === undefined ? null : checkedText(await group(session), 'group'),
    max: typeof max === 'function' ? checkedMax(await max(session)) : max
  }
}

function keyOf (per: 'user' | 'device' | 'client' | 'tenant', session: SessionRecord): string | null {
  if (per === 'device') return deviceIdOf(session)
  return per === 'client' ? JSON.stringify(session.client) : ''
}

/** Where nobody validated it, it may be anything. */
function deviceIdOf ({ meta: { deviceId } }: SessionRecord): string | null {
  return typeof deviceId === 'string' ? deviceId : null
}

function kindOf ({ per }: ResolvedLimit): keyof typeof kinds {
  return typeof per === 'function' ? 'function' : per
}

/** Digests of texts, of which the last ones are remembered: most sign-ins have theirs in common with others. */
function digests (): (text: string) => string {
  const known = new Map<string, string>()
  return text => {
    const before = known.get(text)
    if (before !== undefined) return before
    if (known.size >= REMEMBERED) known.clear()
    const digest = hash('sha256', text, 'base64url').slice(0, DIGEST)
    known.set(text, digest)
    return digest
  }
}

type KnownDevices = (session: SessionRecord) => Promise<Device | null>

/** Each is read once. */
function knownDevices (deviceOf: KnownDevices): KnownDevices {
  const known = new Map<string | null, Promise<Device | null>>()
  return async session => {
    const id = deviceIdOf(session)
    const device = known.get(id) ?? deviceOf(session)
    known.set(id, device)
    return await device
  }
}

/** A copy for functions, made where one is asked. */
function limited (session: SessionRecord, deviceOf: KnownDevices): () => LimitedSession {
  let own: LimitedSession | null = null
  return () => (own ??= { ...structuredClone(session), device: async () => await deviceOf(session) })
}

function checkedKey (key: unknown): string | null {
  return key === null ? null : checkedText(key, 'per')
}

function checkedMax (max: unknown): number {
  if (max === Infinity || (Number.isSafeInteger(max) && Number(max) >= 1)) return Number(max)
  throw new TypeError(`max gave ${typeof max === 'number' ? max : `a value of type ${typeof max}`}: it may give a whole number from 1, or Infinity`)
}

function checkedText (text: unknown, from: string): string {
  if (typeof text === 'string' && text.length >= 1 && text.length <= 256) return text
  throw new TypeError(`${from} gave ${typeof text === 'string' ? `text of ${text.length} characters` : `a value of type ${typeof text}`}: it may give text of 1 to 256`)
}

/** The shorter one of each that the groups say. */
function lifetimeOf (names: readonly string[], remembered: boolean, lifetimes: ReadonlyMap<string, ResolvedLifetime>): Partial<SessionLifetime> {
  const own = names.map(name => lifetimes.get(name)).filter(lifetime => lifetime !== undefined)
  const fallback = lifetimes.get('default')
  const found = (own.length > 0 || fallback === undefined ? own : [fallback]).map(({ remember, ...plain }) => remembered && remember !== undefined ? { ...plain, ...remember } : plain)
  const ttls = found.map(({ ttl }) => ttl).filter(ttl => ttl !== undefined)
  const idles = found.map(({ idleTimeout }) => idleTimeout).filter(idle => idle !== undefined)
  return {
    ...ttls.length > 0 && { ttl: Math.min(...ttls) },
    ...idles.length > 0 && { idleTimeout: shortest(idles) }
  }
}

function shortest (idles: ReadonlyArray<number | null>): number | null {
  const finite = idles.filter(idle => idle !== null)
  return finite.length === 0 ? null : Math.min(...finite)
}

/** At once, where nothing has to be waited for. */
function allOf<T> (values: ReadonlyArray<T | Promise<T>>): readonly T[] | Promise<readonly T[]> {
  return values.some(value => value instanceof Promise) ? Promise.all(values) : values as readonly T[] // none is a promise
}
