import type { SessionRecord } from './record.ts'
import type { SessionLimit } from './store.ts'

/** Under which terms sessions of one subject live. */
export interface Terms {
  /** Tested in this order. */
  limits: readonly SessionLimit[]
  /** Of each session, in the order given. */
  sessions: readonly SessionTerms[]
}

export interface SessionTerms {
  groups: readonly string[]
  /** ms; where the caller asks for nothing else. The option of token-registry where it is left out. */
  ttl?: number
  /** ms, or null for none; likewise */
  idleTimeout?: number | null
}

/**
 * Sets the terms of sessions that are to be stored, and of those that live when they are brought within the limits.
 *
 * @param sessions of one subject; their deadlines are not settled yet
 * @param timeout ms that it may take
 */
export type SessionPolicy = (sessions: readonly SessionRecord[], timeout: number) => Terms | Promise<Terms>
