import type { SessionMeta, SessionRecord } from '../record.ts'
import type { SessionQuery } from '../store.ts'
import type { Ended } from './endings.ts'

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
}

const NO_SCOPE: readonly string[] = Object.freeze([])

export function entryOf (record: SessionRecord, subject: SubjectEntries, sequence: number): Entry {
  return {
    id: record.id,
    subject,
    client: record.client,
    use: record.use,
    scope: scopeOf(record.scope),
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
    scope: scopeOf(entry.scope),
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
export function scopeOf (scope: readonly string[]): readonly string[] {
  return scope.length === 0 ? NO_SCOPE : scope.slice()
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
