import { Script } from './script.ts'

/**
 * Looks whether sessions stand in the index of their subject.
 *
 * ARGV: whether to put them there (1 or 0), then ids. Returns how many live and do not; cannot be read; have a key without an end.
 */
export const checkSessions = new Script(`
local repair = ARGV[4] == '1'
local unlisted, corrupt, endless = 0, 0, 0
for i = 5, #ARGV do
  local id = ARGV[i]
  local state, record = read(id)
  if state == 'corrupt' then corrupt = corrupt + 1 end
  if state == 'live' and not redis.call('ZSCORE', indexOf(record), id) then
    unlisted = unlisted + 1
    if repair then list(id, record) end
  end
  if state ~= 'none' and redis.call('PTTL', named('s', id)) == -1 then
    endless = endless + 1
    if repair then redis.call('PEXPIREAT', named('s', id), int((record and record.expiresAt or now) + keep)) end
  end
end
return { unlisted, corrupt, endless }
`)

/**
 * Looks at a slice of an index.
 *
 * KEYS: the index. ARGV: whether to take off what is gone (1 or 0), the first and the last of the slice. Returns how many are gone, and how many it looked at.
 */
export const checkIndex = new Script(`
local gone = {}
local slice = redis.call('ZRANGE', KEYS[1], ARGV[5], ARGV[6])
for _, id in ipairs(slice) do
  local state = read(id)
  if state == 'none' or state == 'ended' then gone[#gone + 1] = id end
end
if ARGV[4] == '1' then for _, id in ipairs(gone) do redis.call('ZREM', KEYS[1], id) end end
return { #gone, #slice }
`)
