export { ResilienceOptions } from './errors.ts'
export { failover, type FailoverStore } from './failover.ts'
export type { FailoverOptions, Switch } from './options.ts'
