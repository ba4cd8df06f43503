/** What a service keeps with a session. Services widen it by declaration merging; as JSON at most 4 KiB and 16 deep. */
export interface SessionMeta {
  deviceId?: string
  ipAddress?: string
  userAgent?: string
  /** Whether its owner asked to stay signed in: false is a cookie that ends with the browser. */
  remember?: boolean
}

/** `session` authenticates requests, `refresh` only rotates, `once` is consumed once. */
export type TokenUse = 'session' | 'refresh' | 'once'

/** Whom a session belongs to; compared byte for byte, never normalised. */
export interface Subject {
  /** `''` where there is one tenant */
  tenant: string
  sub: string
}

/** One sign-in, or one adopted token. All times are milliseconds since the epoch. */
export interface SessionRecord<Meta extends SessionMeta = SessionMeta> extends Subject {
  /** Public: it can be shown, logged and used in URLs, and never authenticates. 18 bytes as base64url. */
  id: string
  /** The OAuth client. */
  client: string | null
  use: TokenUse
  scope: readonly string[]
  /** Names of what limits count it in, beside the sessions of its subject: at most 16, each of 1 to 32 letters, digits, `-` or `_`. */
  groups: readonly string[]
  /** How many times the token has been rotated. */
  generation: number
  /** Changes with each update, so that writers can compare and set. */
  revision: number
  issuedAt: number
  /** The absolute deadline, never moved by activity. */
  expiresAt: number
  /** ms; the session ends at the earlier of `expiresAt` and `lastUsedAt + idleTimeout` */
  idleTimeout: number | null
  lastUsedAt: number
  rotatedAt: number | null
  /** Id of the one-time token that the session came from. */
  origin: string | null
  /** RFC 7638 thumbprint of the key that the session is bound to (RFC 9449), or null. */
  binding: string | null
  meta: Meta
  /** The caller's schema version of `meta`. */
  version?: string
  /** Which secret signed the current token; null for an adopted one. */
  kid: number | null
  /** The operation that issued the session or rotated it last: its repetition gets the same answer. */
  op: string
}

export type EndReason =
  | 'revoked' | 'expired' | 'idle' | 'reuse_recent' | 'reuse_stale' | 'limit' | 'replaced' | 'password_changed' | 'disabled'
  // Services name reasons of their own; the intersection keeps the known ones in completion.
  | (string & {})

/** Why a session is to end, by whom, in which operation. */
export interface EndCause {
  reason: EndReason
  /** Who did it, as far as that is known: a subject, `'system'`, … */
  by: string | null
  op: string
  detail?: EndDetail
}

/** What an ending came of, for its owner to understand. */
export interface EndDetail {
  /** The name of the limit that it made room in. */
  limit?: string
  /** The id of the session that took its place. */
  session?: string
  /** The device of that session. */
  device?: string
  /** What differed from what the session was bound to, such as `'binding'`. */
  differs?: string
}

/** How a session stopped being valid. */
export interface Ending extends EndCause, Subject {
  id: string
  at: number
}

/** The time from which the session is no longer valid. */
export function deadlineOf ({ expiresAt, idleTimeout, lastUsedAt }: Pick<SessionRecord, 'expiresAt' | 'idleTimeout' | 'lastUsedAt'>): number {
  return idleTimeout === null ? expiresAt : Math.min(expiresAt, lastUsedAt + idleTimeout)
}
