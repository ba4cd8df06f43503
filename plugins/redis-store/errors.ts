import { define } from '../token-registry/index.ts'

/** An option is not what it may be, or two contradict each other. */
export const StoreOptions = define<[string]>('FST_STORE_OPTIONS', 'redis-store: %s', 500)
/** Redis does not answer at start. */
export const StoreAbsent = define<[string, string]>('FST_STORE_ABSENT', 'redis-store: Redis at %s cannot be used (%s): start it, correct the options, or set requireAtStart to false to wait for it', 500, true)
/** The plugin was registered after token-registry, which had to do without it. */
export const StoreTooLate = define('FST_STORE_TOO_LATE', 'redis-store: register it before token-registry, which looks for its store when it is registered', 500)
