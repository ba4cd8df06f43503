import { Script } from './script.ts'

/** Lists sessions that are about to be stored. KEYS: the index. ARGV: until when, then the id, of each. */
export const enlist = new Script(`
local last = 0
for i = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
  last = math.max(last, tonumber(ARGV[i]))
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. int(now - keep))
prolong(KEYS[1], last + keep)
`, { grows: true })
