import { Script } from './script.ts'

/**
 * A heartbeat: changes a key that is watched. It leaves none: a key that expired would be told once more.
 *
 * Returns the time in µs; the epoch of the Cluster, which changes with who keeps which slots, '' where there is none or it is not to be had.
 */
export const beat = new Script(`
redis.call('SET', KEYS[1], '')
redis.call('UNLINK', KEYS[1])
local about = tag ~= '' and redis.pcall('CLUSTER', 'INFO')
return { int(micros), type(about) == 'string' and string.match(about, 'cluster_current_epoch:(%d+)') or '' }
`)
