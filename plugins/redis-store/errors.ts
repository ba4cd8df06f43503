import { define } from '../token-registry/index.ts'

/** An option is not what it may be, or two contradict each other. */
export const StoreOptions = define<[string]>('FST_STORE_OPTIONS', 'redis-store: %s', 500)
/** Redis does not answer at start. */
export const StoreAbsent = define<[string, string]>('FST_STORE_ABSENT', 'redis-store: Redis at %s cannot be used (%s): start it, correct the options, or set requireAtStart to false to wait for it', 500, true)
/** The plugin was registered after token-registry, which had to do without it. */
export const StoreTooLate = define('FST_STORE_TOO_LATE', 'redis-store: register it before token-registry, which looks for its store when it is registered', 500)
/** A change was made, but replicas did not confirm it: it lasts unless the primary is lost. */
export const StoreUnconfirmed = define<[string]>('FST_STORE_UNCONFIRMED', 'The change was made, but may not outlive a failover (%s): repeat it', 503, true)
/** Redis has forgotten what was written: it was restarted from a snapshot, or a replica was promoted before it had everything. */
export const StoreLost = define('FST_STORE_LOST', 'Redis has lost what was written a short while ago', 503, true)

/** The error without what ioredis puts on it: the command with its arguments, which are passwords and records. */
export function discreet<T> (error: T): T {
  if (error instanceof Error) {
    Reflect.deleteProperty(error, 'command')
    discreet(lastNodeError(error))
  }
  return error
}

/** Why the last node of a Cluster that was asked did not answer. */
export function lastNodeError (error: unknown): unknown {
  return error instanceof Error && 'lastNodeError' in error ? error.lastNodeError : undefined
}
