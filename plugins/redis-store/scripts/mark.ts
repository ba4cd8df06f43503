import { Script } from './script.ts'

/** Sets a mark until a time. KEYS: the mark. ARGV: ms since the epoch. Returns 1, or 0 where it stood. */
export const mark = new Script(`
if not redis.call('SET', KEYS[1], ARGV[4], 'PXAT', ARGV[4], 'NX') then return 0 end
tell(KEYS[1])
return 1
`)
