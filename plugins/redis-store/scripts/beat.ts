import { Script } from './script.ts'

/**
 * A heartbeat: changes a key that is watched. It leaves none: a key that expired would be told once more.
 *
 * KEYS: that, and the newest time that any heartbeat told: a server where it goes back has lost what was written since.
 *
 * Returns the time in µs; the epoch of the Cluster, which changes with who keeps which slots, '' where there is none or it is not to be had;
 * the newest time as it was, '' where it was not there, and as it is.
 */
export const beat = new Script(`
redis.call('SET', KEYS[1], '')
redis.call('UNLINK', KEYS[1])
tell(KEYS[1])
local last = redis.call('GET', KEYS[2])
local newest = int(math.max(micros, tonumber(last or 0)))
redis.call('SET', KEYS[2], newest, 'PX', 2592000000)
local about = tag ~= '' and redis.pcall('CLUSTER', 'INFO')
return { int(micros), type(about) == 'string' and string.match(about, 'cluster_current_epoch:(%d+)') or '', last or '', newest }
`)
