import { Script } from './script.ts'

/** A heartbeat: writes a key that is watched. ARGV: ms that it lives. Returns the time in µs. */
export const beat = new Script(`
redis.call('SET', KEYS[1], '', 'PX', ARGV[4])
return int(micros)
`)
