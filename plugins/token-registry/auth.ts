import type { SessionRecord } from './record.ts'

/** Who makes a request. Deep-frozen: the cached object itself is handed out. */
export interface Auth {
  readonly session: DeepReadonly<SessionRecord>
  /** Claims of the token where it carries any (a JWT), else empty. */
  readonly claims: DeepReadonly<Record<string, unknown>>
  readonly scope: readonly string[]
}

export type DeepReadonly<T> = T extends object ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> } : T

const NO_CLAIMS: Record<string, unknown> = Object.freeze({})

/** Freezes what a token proved. */
export function authFrom (record: SessionRecord, claims: Record<string, unknown> = NO_CLAIMS): Auth {
  Object.freeze(record.scope)
  freeze(record.meta)
  const session: DeepReadonly<SessionRecord> = Object.freeze(record)
  return Object.freeze({ session, claims: freeze(claims), scope: scopeOf(session.scope, claims) })
}

/** The scope of the session, narrowed by that of the token where it names one (RFC 9068, section 2.2.3). */
function scopeOf (granted: readonly string[], claims: Record<string, unknown>): readonly string[] {
  if (typeof claims.scope !== 'string') return granted
  const asked = new Set(claims.scope.split(' '))
  return Object.freeze(granted.filter(scope => asked.has(scope)))
}

/** Freezes plain objects and arrays at every depth, also below what is frozen already. */
function freeze<T> (value: T, seen = new Set<unknown>()): DeepReadonly<T> {
  if (typeof value === 'object' && value !== null && !seen.has(value)) {
    seen.add(Object.freeze(value))
    for (const item of Object.values(value)) freeze(item, seen)
  }
  // Frozen is what the type now says.
  return value as DeepReadonly<T>
}
