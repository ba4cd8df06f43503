import { define } from '../token-registry/index.ts'

/** An option of the plugin is not what it may be. */
export const HealthOptions = define<[string]>('FST_HEALTH_OPTIONS', 'health: %s', 500)
