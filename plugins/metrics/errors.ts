import { define } from '../token-registry/index.ts'

/** An option of the plugin is not what it may be, or contradicts another. */
export const MetricsOptions = define<[string]>('FST_METRICS_OPTIONS', 'metrics: %s', 500)
