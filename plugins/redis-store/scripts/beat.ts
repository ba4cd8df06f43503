import { Script } from './script.ts'

/**
 * A heartbeat: changes a key that is watched. It leaves none: a key that expired would be told once more.
 *
 * KEYS: that, and the number of the newest heartbeat of the process. ARGV: the number of this one.
 *
 * Returns the time in µs; the epoch of the Cluster, which changes with who keeps which slots, '' where there is none or it is not to be had;
 * the newest number as it was, '' where there was none; what the server is called since it was started, '' where it does not say.
 */
export const beat = new Script(`
redis.call('SET', KEYS[1], '')
redis.call('UNLINK', KEYS[1])
tell(KEYS[1])
local last = redis.call('GET', KEYS[2])
-- Where two overtook one another the count does not go back.
if tonumber(ARGV[4]) > tonumber(last or 0) then redis.call('SET', KEYS[2], ARGV[4], 'PX', 604800000) end
local about = tag ~= '' and redis.pcall('CLUSTER', 'INFO')
local server = redis.pcall('INFO', 'server')
return {
  int(micros), type(about) == 'string' and string.match(about, 'cluster_current_epoch:(%d+)') or '', last or '',
  type(server) == 'string' and string.match(server, 'run_id:(%w+)') or ''
}
`)
