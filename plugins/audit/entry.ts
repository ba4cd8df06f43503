import { canonicalJson, plainJson, plainName, plainText } from './canonical.ts'
import type { EntryIndex } from './ledger.ts'
import { randomBytes } from './random.ts'

export type AuditOutcome = 'success' | 'failure' | 'denied'

/** What happened, as who records it says. Texts are cut where they are too long. */
export interface AuditEvent {
  /** Such as `session.start`: words by what they are about. */
  type: string
  /** `success` by default. */
  outcome?: AuditOutcome
  actor?: Partial<AuditActor>
  /** What was acted on. The id of kind `subject` is a person's. */
  target?: AuditTarget | null
  /** `''` by default */
  tenant?: string
  requestId?: string | null
  /** Why, such as the code of an error. */
  reason?: string | null
  /** Plain JSON. */
  data?: Readonly<Record<string, unknown>> | null
  /** Keys of `data` that tell of a person: they are sealed with the key of whose the target is, where that is known, else of the actor. What is, or holds, an `email` always is. */
  personal?: readonly string[]
}

export interface AuditActor {
  sub: string | null
  /** Whose `sub` it is, where it is another tenant than the entry's. */
  tenant: string
  client: string | null
  ip: string | null
  userAgent: string | null
}

export interface AuditTarget {
  kind: string
  id: string
  /** Whose it is, of the tenant of the entry. */
  sub?: string | null
}

/** An entry as it is stored: its leaf, parsed. What is sealed stands in `sealed` alone. */
export interface Leaf {
  actor: { client: string | null, sub: string | null }
  /** RFC 3339, UTC, ms */
  at: string
  data: Readonly<Record<string, unknown>> | null
  /** 16 random bytes as base64url: nobody guesses a leaf by its hash, and one that is sent twice is stored once. */
  id: string
  /** The operation of the registry that it belongs to. */
  op: string | null
  outcome: AuditOutcome
  reason: string | null
  requestId: string | null
  sealed: readonly SealedBox[]
  seq: number
  /** Its `sub`, and the `id` of kind `subject`, are pseudonyms. */
  target: Required<AuditTarget> | null
  tenant: string
  type: string
  /** Of the format. */
  v: 1
}

/** What tells of one person, encrypted. */
export interface SealedBox {
  /** AES-256-GCM of a JSON object, as base64url: nonce (12 bytes), ciphertext, tag (16); bound to the id of the entry and the owner. */
  box: string
  /** Where its keys belong: `actor.ip`, `actor.userAgent`, `data.<key>`. */
  fields: readonly string[]
  /** Commits to the key: of two keys that both open a box only one matches. */
  key: string
  /** Pseudonym of whose it is. */
  owner: string
}

/** Who a key belongs to: a subject, or whoever it was in a tenant on a day. */
export type Holder = { tenant: string, sub: string } | { tenant: string, day: string }

/** What is personal in an event, and whose it is. */
export interface PersonalPart {
  holder: Holder
  fields: Record<string, unknown>
}

/** An event that was made fit to be kept. */
export interface Draft {
  id: string
  at: number
  event: Required<Omit<AuditEvent, 'actor' | 'target' | 'personal' | 'data'>>
  data: Leaf['data']
  client: string | null
  actor: Holder | null
  target: Pick<AuditTarget, 'kind' | 'id'> | null
  /** Whose the target is. */
  subject: Holder | null
  op: string | null
  personal: readonly PersonalPart[]
}

/** Characters. */
const AGENT = 512
const SUBJECT = 256
const ALWAYS_PERSONAL = 'email'

/**
 * @param at ms since the epoch
 * @param of `op`: the operation of the registry; `pseudonym`: of the subject that is the target, where it is to be named by that whatever becomes of its key
 */
export function draftOf (event: AuditEvent, at: number, { op = null, pseudonym = null }: { op?: string | null, pseudonym?: string | null } = {}): Draft {
  const tenant = exactly(event.tenant ?? '')
  const actor = holderOf(event.actor?.sub, event.actor?.tenant ?? tenant)
  const target = event.target == null ? null : { kind: plainName(event.target.kind), id: pseudonym ?? plainName(event.target.id) }
  const subject = pseudonym !== null ? null : holderOf(target?.kind === 'subject' ? event.target?.id : event.target?.sub, tenant)
  const { open, personal } = splitData(event)
  const who: Holder = actor ?? { tenant, day: isoOf(at).slice(0, 10) }
  const ofActor = {
    ...typeof event.actor?.ip === 'string' && { 'actor.ip': plainText(event.actor.ip, SUBJECT) },
    ...typeof event.actor?.userAgent === 'string' && { 'actor.userAgent': plainText(event.actor.userAgent, AGENT) }
  }
  return {
    id: randomBytes(16).toString('base64url'),
    at,
    event: {
      type: plainName(event.type),
      outcome: event.outcome ?? 'success',
      tenant: plainName(tenant),
      requestId: nameOrNull(event.requestId),
      reason: nameOrNull(event.reason)
    },
    data: open,
    client: nameOrNull(event.actor?.client),
    actor,
    target,
    subject,
    op,
    personal: subject === null || isSame(subject, who)
      ? [{ holder: who, fields: { ...ofActor, ...personal } }].filter(hasFields)
      : [{ holder: who, fields: ofActor }, { holder: subject, fields: personal }].filter(hasFields)
  }
}

/** What the subjects of an entry are called, and what was sealed of them. */
export interface Names {
  actor: string | null
  /** Whose the target is. */
  subject: string | null
  sealed: readonly SealedBox[]
}

/** A leaf but for its place: what stands before and after `seq` in canonical JSON (RFC 8785), whose keys are sorted. */
export function leafParts (draft: Draft, names: Names): readonly [string, string] {
  const { id, at, event: { type, outcome, tenant, requestId, reason }, data, client, op } = draft
  // Keys stand in their order here: JSON.stringify, which is faster, then makes the canonical form. Those of `data` may stand in any.
  const first = JSON.stringify({ actor: { client, sub: names.actor }, at: isoOf(at) })
  const middle = JSON.stringify({ id, op, outcome, reason, requestId, sealed: names.sealed })
  const last = JSON.stringify({ target: targetOf(draft, names), tenant, type, v: 1 })
  return [`${first.slice(0, -1)},"data":${data === null ? 'null' : canonicalJson(data)},${middle.slice(1, -1)},"seq":`, `,${last.slice(1)}`]
}

/** By what an entry is found. */
export function indexOf (draft: Draft, names: Omit<Names, 'sealed'>): EntryIndex {
  const { at, event: { type, outcome, tenant }, client, op } = draft
  const target = targetOf(draft, names)
  return { at, type, outcome, tenant, sub: names.actor, client, targetKind: target?.kind ?? null, targetId: target?.id ?? null, subject: names.subject, op }
}

/** The same, of a leaf. */
export function leafIndexOf ({ actor, at, op, outcome, target, tenant, type }: Leaf): EntryIndex {
  return { at: Date.parse(at), type, outcome, tenant, sub: actor.sub, client: actor.client, targetKind: target?.kind ?? null, targetId: target?.id ?? null, subject: target?.sub ?? null, op }
}

function targetOf ({ target }: Draft, { subject }: Omit<Names, 'sealed'>): Leaf['target'] {
  return target && { id: target.kind === 'subject' ? subject ?? target.id : target.id, kind: target.kind, sub: subject }
}

/** @param text as the log made it */
export function parseLeaf (text: string): Leaf {
  return JSON.parse(text) as Leaf // written by leafParts
}

function splitData ({ data, personal = [] }: AuditEvent): { open: Leaf['data'], personal: Record<string, unknown> } {
  if (data == null) return { open: null, personal: {} }
  const plain = plainJson(data)
  const entries = typeof plain === 'object' && plain !== null && !Array.isArray(plain) ? Object.entries(plain) : [['value', plain] as const]
  const names = [ALWAYS_PERSONAL, ...personal].map(name => plainText(name)) // as keys are written
  const isPersonal = ([key, value]: readonly [string, unknown]): boolean => names.includes(key) || holdsEmail(value)
  return {
    open: Object.fromEntries(entries.filter(entry => !isPersonal(entry))),
    personal: Object.fromEntries(entries.filter(isPersonal).map(([key, value]) => [`data.${key}`, value]))
  }
}

/** However deep: then all of it is sealed. */
function holdsEmail (value: unknown): boolean {
  return typeof value === 'object' && value !== null && (Object.hasOwn(value, ALWAYS_PERSONAL) || Object.values(value).some(holdsEmail))
}

let [isoAt, iso] = [NaN, '']

/** RFC 3339, UTC, ms. Many entries are of one millisecond. */
function isoOf (at: number): string {
  if (at !== isoAt) [isoAt, iso] = [at, new Date(at).toISOString()]
  return iso
}

function nameOrNull (text: string | null | undefined): string | null {
  return typeof text === 'string' ? plainName(text) : null
}

function holderOf (sub: string | null | undefined, tenant: string): Holder | null {
  return typeof sub === 'string' ? { tenant: exactly(tenant), sub: exactly(sub) } : null
}

/** Subjects are compared byte for byte: their names are not written as those in leaves are. */
function exactly (name: string): string {
  return name.slice(0, SUBJECT).toWellFormed()
}

function isSame (a: Holder, b: Holder): boolean {
  return a.tenant === b.tenant && 'sub' in a && 'sub' in b && a.sub === b.sub
}

function hasFields ({ fields }: PersonalPart): boolean {
  return Object.keys(fields).length > 0
}
