import type { SessionRecord } from './record.ts'
import type { Presented } from './store.ts'

/** `again`: this very operation advanced the session before, and gets its first answer; `repeat`: another one did, and the window is open. */
export type RotationVerdict = 'advance' | 'again' | 'recover' | 'repeat' | 'reuse_recent' | 'reuse_stale' | 'client' | 'binding' | 'unknown'

/** What of a record the table looks at. */
export type RotationState = Pick<SessionRecord, 'use' | 'client' | 'binding' | 'generation' | 'rotatedAt' | 'op'>

/**
 * What is to be done with a token that was presented for rotation. Every store acts on this table in one atomic step.
 *
 * @param session the live record
 * @param now the store's clock
 */
export function judgeRotation (session: RotationState, presented: Presented, op: string, now: number): RotationVerdict {
  if (presented.once !== (session.use === 'once')) return 'unknown'
  if (presented.client !== undefined && presented.client !== session.client) return 'client'
  if (presented.binding !== session.binding) return 'binding'

  const behind = session.generation - presented.generation
  if (behind === 0) return 'advance'
  if (behind < 0) return 'recover'
  if (behind > 1) return 'reuse_stale'
  if (session.op === op) return 'again'
  return session.rotatedAt !== null && withinWindow(session.rotatedAt, presented.reuseWindow, now) ? 'repeat' : 'reuse_recent'
}

/**
 * Until when a token proves its session.
 *
 * @returns ms since the epoch; null where it does not, or no longer
 */
export function generationValidUntil (session: SessionRecord, generation: number, reuseWindow: number, now: number): number | null {
  if (generation >= session.generation) return session.expiresAt
  const { rotatedAt } = session
  if (rotatedAt === null || generation < session.generation - 1 || !withinWindow(rotatedAt, reuseWindow, now)) return null
  return Math.min(session.expiresAt, rotatedAt + reuseWindow)
}

function withinWindow (rotatedAt: number, reuseWindow: number, now: number): boolean {
  // Without the absolute value, a clock that was set back would open a window, even one of 0, and let a one-time token be consumed twice.
  return Math.abs(now - rotatedAt) < reuseWindow
}
