import type { EndCause, Ending, SessionRecord, Subject } from './record.ts'

/**
 * Where records live: the narrow waist of the project. Every mutation is one atomic step, carries an operation id, and gives its first
 * answer again when it is repeated with that id. An expired or ended session is never returned. Returned records are the caller's own.
 */
export interface TokenStore {
  readonly name: string
  /**
   * ms since the last proof that invalidations arrive: 0 in the process itself, Infinity while they may be missed.
   * A cache in front of the store may be used while this is small. Before it becomes small again, `onInvalidate` tells `'all'`.
   */
  readonly staleness: number
  /** The store's clock as well as this process knows it, ms since the epoch. */
  now (): number
  /** Stores records; those of a subject all or none. Times are moved to the store's clock. */
  insert (records: readonly SessionRecord[], options: InsertOptions): Promise<InsertOutcome>
  get (id: string): Promise<SessionRecord | null>
  /** Changes a session, only at that revision where one is given; another idle timeout counts from now. Null where it does not live; throws `FST_SESSION_CONFLICT`. */
  update (id: string, patch: SessionPatch, revision?: number): Promise<SessionRecord | null>
  /** Judges what was presented and acts on it, in one step (`judgeRotation`). */
  rotate (id: string, presented: Presented, op: string): Promise<RotateOutcome>
  /** Notes uses: never backwards, only where the session lives. */
  touch (uses: readonly SessionUse[]): Promise<void>
  /** @returns the sessions that this call ended */
  end (ids: readonly string[], cause: EndCause): Promise<SessionRecord[]>
  /**
   * Ends everything of a subject that exists when it is called, one-time tokens included, and nothing that is issued after.
   *
   * @param told is given what was ended, in slices, and again by a repetition; a store may skip building records where it is left out
   * @returns how many sessions were ended; one-time tokens do not count
   */
  endAll (of: EndAllQuery, cause: EndCause, told?: (ended: SessionRecord[], at: number) => void): Promise<number>
  /** How a session ended, as long as that is kept. */
  ending (id: string): Promise<Ending | null>
  /** Newest first; every session that lives throughout the paging is found exactly once. One-time tokens are not found. */
  find (query: SessionQuery, page: Page): Promise<FoundSessions>
  count (query: SessionQuery): Promise<number>
  /** Who has sessions, each at least once; of one tenant where it is given. */
  subjects (tenant?: string): AsyncIterable<Subject>
  /** Sets a mark until a time. @returns false where it stood */
  mark (purpose: string, key: string, expiresAt: number): Promise<boolean>
  /**
   * Answered at once by a store in the process.
   *
   * @param issuedAt ms since the epoch; true as well for what was issued before the store began to keep marks, or lost them
   */
  marked (purpose: string, key: string, issuedAt?: number): boolean | Promise<boolean>
  /** Tells ids that any process ended or changed. @returns a function that stops it */
  onInvalidate (listener: (ids: readonly string[] | 'all') => void): () => void
  /** Tells sessions that were noticed to have expired, each once. @returns a function that stops it */
  onExpire (listener: (session: SessionRecord, ending: Ending) => void): () => void
  /** Where plugins keep small texts beside the sessions; a store of one's own may have none. */
  readonly documents?: Documents | undefined
  /** What it counts, for metrics. */
  figures (): Record<string, number>
  health (): Promise<StoreHealth>
  close (): Promise<void>
}

/** Small texts by key, each written by compare and set. Where they are lost, so is what a plugin kept there. */
export interface Documents {
  read (purpose: string, key: string): Promise<string | null>
  /**
   * @param before what it replaces, as it was read; null where there is none
   * @param after null deletes it
   * @param expiresAt ms since the epoch
   * @returns false where something else stands there
   */
  write (purpose: string, key: string, before: string | null, after: string | null, expiresAt: number): Promise<boolean>
}

export interface InsertOptions {
  /** Tested in the same step that inserts, one after the other; they count sessions, never one-time tokens. */
  limits?: readonly SessionLimit[]
  /** Ids of sessions of the subject that end in that step, with reason `replaced`: before the limits are tested, and only where the records are stored. */
  endOthers?: readonly string[]
  /** Last uses that may not be stored yet: noted as by `touch`, before the limits are tested. */
  uses?: readonly SessionUse[]
  /** Whose sessions are brought within the limits (those of the subject), where there are no records. What a limit would refuse, ends by last use. */
  subject?: Subject
  op: string
}

/** How many sessions may live. */
export interface SessionLimit {
  /** Told where it refuses, and in the endings that it causes. */
  name: string
  /** Sessions that may live after the insert, 0 or more. */
  max: number
  onExceed: 'refuse' | 'end-oldest' | 'end-least-recently-used'
  /** Counts only sessions that have it among their `groups`. */
  group?: string
  /**
   * `'tenant'`: counts those of all subjects of the tenant that have the `group`, whose name then begins with `t-`, and refuses, after all others: who ends some
   * makes room. Subjects may be far apart: a place that was taken for a session that never came, or ended, is free again after 5 s at the latest.
   */
  across?: 'subject' | 'tenant'
  /** A group: before the limit refuses, sessions that it counts and that are in this group end, the oldest first, with reason `replaced`. */
  replaces?: string
}

export interface InsertOutcome {
  /** As stored, in the order given. */
  inserted: SessionRecord[]
  /** Sessions that were ended to make room, or that `endOthers` named. */
  evicted: EndedSession[]
  /** Subjects of whose records none were stored. */
  refused: InsertRefusal[]
}

export interface EndedSession {
  session: SessionRecord
  ending: Ending
}

export type InsertRefusal = Subject & { ids: string[] } & (
  /** a session of this id lives, or its ending is still kept */
  | { reason: 'exists', id: string }
  | { reason: 'limit', limit: SessionLimit, count: number }
  /** the one-time token that a record came from was reused, ended or expired, was never consumed, or is another subject's */
  | { reason: 'origin', id: string })

export type SessionPatch = Partial<Pick<SessionRecord, 'meta' | 'scope' | 'groups' | 'idleTimeout' | 'version'>>

export interface SessionUse {
  id: string
  at: number
}

/** A token, as presented for rotation. */
export interface Presented {
  /** Whether it is to be consumed: only one-time tokens are, and they only that. */
  once: boolean
  generation: number
  /** The key that would sign the successor. */
  kid: number
  /** The client that presents it; not compared where it is left out. */
  client?: string | null
  /** Thumbprint of the key that the caller proved to hold. */
  binding: string | null
  /** ms for which the token before the current one gets the same successor again; 0 for one-time tokens */
  reuseWindow: number
  /** Who presents it, for the ending where it is reuse. */
  by: string | null
}

export type RotateOutcome =
  /** advanced by this operation; `recovered` where the store had lost a rotation that the token proves, which a repetition does not know */
  | { status: 'rotated', session: SessionRecord, recovered: boolean }
  /** inside the window: the same successor */
  | { status: 'repeated', session: SessionRecord }
  /** ended by this call, the session itself first, then what came of it */
  | { status: 'reused', ending: Ending, ended: SessionRecord[] }
  | { status: 'refused', by: 'client' | 'binding' }
  | { status: 'unknown' }

export interface EndAllQuery extends Subject {
  /** ids to keep */
  except?: readonly string[]
}

export interface SessionQuery {
  /** every tenant where it is left out */
  tenant?: string
  sub?: string
  client?: string
  deviceId?: string
  ipAddress?: string
  /** ms since the epoch, inclusive */
  issuedAfter?: number
  /** ms since the epoch, exclusive */
  issuedBefore?: number
}

export interface Page {
  /** 1 to 500 */
  limit: number
  /** From the page before; opaque. A malformed one throws `FST_TOKEN_VALIDATION`. */
  cursor?: string | null
}

export interface FoundSessions {
  sessions: SessionRecord[]
  /** null at the end */
  cursor: string | null
}

export interface StoreHealth {
  status: 'ok' | 'degraded' | 'fail'
  /** ms that the check took */
  latency: number
  /** sessions held, where the store knows at no cost */
  sessions?: number
  detail?: string
}
