import { define } from '../token-registry/index.ts'

/** An option of the plugin, or of the server, is not what it may be. */
export const TracingOptions = define<[string]>('FST_TRACING_OPTIONS', 'tracing: %s', 500)
