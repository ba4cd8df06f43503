import { Script } from './script.ts'

/**
 * Takes places in what a tenant counts, and gives others back: the two in one script, so that a server that knows the one knows the other.
 *
 * KEYS: the places, by the microsecond until which each is believed to be taken. ARGV: how many there may be ('' where that is not to be tested), ms that
 * they last, ms for which a place is believed, how many to look at where there is no room, how many to give back, then of each the id and the last microsecond
 * that it may be believed until, then the ids that take one.
 * Returns `taken`, when, until when they are believed, in µs, those that had none before; or `full`, how many there are, and until when those are believed
 * that are to be looked at, and they: by nobody else until then.
 */
export const places = new Script(`
local places, max, lasts, believed, looks, back = KEYS[1], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
for i = 9, 7 + 2 * back, 2 do
  local score = redis.call('ZSCORE', places, ARGV[i])
  if score and tonumber(score) <= tonumber(ARGV[i + 1]) then redis.call('ZREM', places, ARGV[i]) end
end

local new, takes = {}, #ARGV - 8 - 2 * back
local untilTime = micros + believed * 1000
for i = #ARGV - takes + 1, #ARGV do
  local score = redis.call('ZSCORE', places, ARGV[i])
  if not score then new[#new + 1] = ARGV[i]
  -- Who gives back what it took must not give back what another has taken since, in the same microsecond or by a clock that was set back.
  else untilTime = math.max(untilTime, tonumber(score) + 1) end
end
local count = redis.call('ZCARD', places)
if max ~= '' and count + #new > tonumber(max) then
  local doubtful = redis.call('ZRANGEBYSCORE', places, '-inf', int(micros), 'LIMIT', 0, looks)
  for _, id in ipairs(doubtful) do redis.call('ZADD', places, int(untilTime), id) end
  return { 'full', count, int(untilTime), doubtful }
end
for i = #ARGV - takes + 1, #ARGV do redis.call('ZADD', places, int(untilTime), ARGV[i]) end
if takes > 0 then prolong(places, now + lasts) end
return { 'taken', int(now), int(untilTime), new }
`)
