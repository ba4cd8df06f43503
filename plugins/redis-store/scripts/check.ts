import { listing } from './prelude.ts'
import { Script } from './script.ts'

/**
 * Looks whether sessions stand in the index of their subject, and in the ledgers of their groups.
 *
 * ARGV: whether to put them there (1 or 0), then ids. Returns how many live and do not; cannot be read; have a key without an end.
 */
export const checkSessions = new Script(`${listing}
local repair = ARGV[4] == '1'
local unlisted, corrupt, endless = 0, 0, 0
local function isListed (id, record)
  local listed = redis.call('ZSCORE', indexOf(record), id)
  for _, ledger in ipairs(ledgersOf(record)) do listed = listed and redis.call('ZSCORE', ledger, id) end
  return listed
end
for i = 5, #ARGV do
  local id = ARGV[i]
  local state, record = read(id)
  if state == 'corrupt' then corrupt = corrupt + 1 end
  if state == 'live' and not isListed(id, record) then
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
 * Looks at a slice of an index, or of the ledger of a group.
 *
 * KEYS: the index. ARGV: whether to take off what is gone (1 or 0), the first and the last of the slice. Returns how many are gone, and how many it looked at.
 */
export const checkIndex = new Script(`
local gone = {}
local group = string.sub(KEYS[1], 1, #prefix + 2) == prefix .. 'g:'
local function isIn (record, name)
  for _, ledger in ipairs(ledgersOf(record)) do if ledger == name then return true end end
end
local slice = redis.call('ZRANGE', KEYS[1], ARGV[5], ARGV[6])
for _, id in ipairs(slice) do
  local state, record = read(id)
  local left = group and record and not isIn(record, KEYS[1])
  if state == 'none' or state == 'ended' or left then gone[#gone + 1] = id end
end
if ARGV[4] == '1' then for _, id in ipairs(gone) do redis.call('ZREM', KEYS[1], id) end end
return { #gone, #slice }
`)
