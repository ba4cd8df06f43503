import { define } from '../token-registry/index.ts'

/** An option is not what it may be. */
export const ResilienceOptions = define<[string]>('FST_RESILIENCE_OPTIONS', 'resilience: %s', 500)
