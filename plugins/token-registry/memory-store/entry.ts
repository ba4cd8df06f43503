import type { SessionMeta, SessionRecord } from '../record.ts'
import type { SessionQuery } from '../store.ts'
import type { Ended } from './endings.ts'
import type { Ledger } from './ledger.ts'

/** A session as it lies in memory: meta as JSON, so that what is stored and what is handed out never share an object. */
export interface Entry extends Omit<SessionRecord, 'tenant' | 'sub' | 'meta' | 'version'> {
  readonly subject: SubjectEntries
  meta: string
  version: string | undefined
  /** Counts insertions: the order of lists. */
  readonly sequence: number
  /** null while it lives */
  ended: Ended | null
}

/** What one subject holds, one-time tokens included. */
export interface SubjectEntries {
  readonly key: string
  readonly tenant: string
  readonly sub: string
  readonly entries: Set<Entry>
  /** What limits count: by group, and all sessions as `''` where a limit has asked. null where there is none. */
  ledgers: Map<string, Ledger> | null
}

const NONE: readonly string[] = Object.freeze([])

export function entryOf (record: SessionRecord, subject: SubjectEntries, sequence: number): Entry {
  return {
    id: record.id,
    subject,
    client: record.client,
    use: record.use,
    scope: listOf(record.scope),
    groups: listOf(record.groups),
    generation: record.generation,
    revision: record.revision,
    issuedAt: record.issuedAt,
    expiresAt: record.expiresAt,
    idleTimeout: record.idleTimeout,
    lastUsedAt: record.lastUsedAt,
    rotatedAt: record.rotatedAt,
    origin: record.origin,
    binding: record.binding,
    meta: JSON.stringify(record.meta),
    version: record.version,
    kid: record.kid,
    op: record.op,
    sequence,
    ended: null
  }
}

/** A copy that is the caller's own. */
export function recordOf (entry: Entry): SessionRecord {
  const record: SessionRecord = {
    id: entry.id,
    tenant: entry.subject.tenant,
    sub: entry.subject.sub,
    client: entry.client,
    use: entry.use,
    scope: listOf(entry.scope),
    groups: listOf(entry.groups),
    generation: entry.generation,
    revision: entry.revision,
    issuedAt: entry.issuedAt,
    expiresAt: entry.expiresAt,
    idleTimeout: entry.idleTimeout,
    lastUsedAt: entry.lastUsedAt,
    rotatedAt: entry.rotatedAt,
    origin: entry.origin,
    binding: entry.binding,
    meta: metaOf(entry),
    kid: entry.kid,
    op: entry.op
  }
  if (entry.version !== undefined) record.version = entry.version
  return record
}

/** A copy; of what is empty, the frozen one that all share. */
export function listOf (list: readonly string[]): readonly string[] {
  return list.length === 0 ? NONE : list.slice()
}

/** Whether a session is one that a query asks for; its subject is compared elsewhere. */
export function matches (entry: Entry, query: Omit<SessionQuery, 'tenant' | 'sub'>): boolean {
  return entry.use !== 'once' &&
    (query.client === undefined || entry.client === query.client) &&
    (query.issuedAfter === undefined || entry.issuedAt >= query.issuedAfter) &&
    (query.issuedBefore === undefined || entry.issuedAt < query.issuedBefore) &&
    hasMeta(entry, 'deviceId', query.deviceId) &&
    hasMeta(entry, 'ipAddress', query.ipAddress)
}

function hasMeta (entry: Entry, key: 'deviceId' | 'ipAddress', wanted: string | undefined): boolean {
  if (wanted === undefined) return true
  // A search in the text spares parsing what cannot match.
  return entry.meta.includes(JSON.stringify(wanted)) && metaOf(entry)[key] === wanted
}

function metaOf (entry: Entry): SessionMeta {
  // Many have none, and parsing costs more than the rest of the copy.
  return entry.meta === '{}' ? {} : JSON.parse(entry.meta) as SessionMeta // written by entryOf
}
