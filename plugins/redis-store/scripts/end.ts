import { Script } from './script.ts'

/**
 * Ends sessions of one slot.
 *
 * ARGV: cause, op, then ids.
 * Returns the time, the ids that it ended, their records, those that were found expired, those that are kept elsewhere, and where.
 */
export const end = new Script(`
local cause, op = ARGV[4], ARGV[5]
local ids, was, expired, moved, homes = {}, {}, {}, {}, {}
for i = 6, #ARGV do
  local id = ARGV[i]
  local state, record, ending = read(id)
  if state == 'live' then
    finish(id, record, cause)
    unlist(id, record)
  end
  if state == 'live' or (state == 'ended' and ending.op == op) then
    ids[#ids + 1], was[#was + 1] = id, unchanged(record)
  end
  local home = state == 'none' and elsewhere(id)
  if home then moved[#moved + 1], homes[#homes + 1] = id, home end
  if state == 'expired' then expired[#expired + 1] = id end
  -- Nobody can say whose it was; it is not to be presented again.
  if state == 'corrupt' then redis.call('UNLINK', named('s', id), named('u', id)) end
end
return { int(now), ids, was, expired, moved, homes }
`)

/**
 * Moves the indexes of a subject aside, so that what they list can be ended in slices, and nothing that is issued from now on is among it.
 *
 * KEYS: sessions, one-time tokens, both set aside, a sign that it was done, the operations of the subject that are not. ARGV: ms for which what is set
 * aside waits, op, whether it begins (1 or 0), then ids to keep. Returns how many sessions and one-time tokens are to end, the same again where it is repeated; the other operations
 * that have something aside. Whoever goes on with what another began sets nothing aside: where that one had not, its caller was told so, and may have begun anew.
 */
export const condemn = new Script(`
local waits, op, begins = unpack(ARGV, 4, 6)
local function aside (from, to)
  if redis.call('EXISTS', from) == 0 then return end
  local subject = string.sub(from, #prefix + 2)
  redis.call('UNLINK', prefix .. 'ga' .. subject, prefix .. 'gu' .. subject)
  redis.call('RENAME', from, to)
  redis.call('PEXPIRE', to, waits)
  for i = 7, #ARGV do
    local score = redis.call('ZSCORE', to, ARGV[i])
    if score then
      redis.call('ZREM', to, ARGV[i])
      redis.call('ZADD', from, score, ARGV[i])
      prolong(from, tonumber(score) + keep)
    end
  end
end
if begins == '1' and redis.call('SET', KEYS[5], '', 'PX', waits, 'NX') then
  aside(KEYS[1], KEYS[3])
  aside(KEYS[2], KEYS[4])
  redis.call('ZADD', KEYS[6], now, op)
  redis.call('PEXPIRE', KEYS[6], waits)
end
local others = {}
for _, other in ipairs(redis.call('ZRANGE', KEYS[6], 0, -1)) do
  if other ~= op then others[#others + 1] = other end
end
return { redis.call('ZCARD', KEYS[3]), redis.call('ZCARD', KEYS[4]), others }
`)

/**
 * Ends a slice of what was set aside.
 *
 * KEYS: what is set aside, the sign that it was, with a bit for each slice that was told. ARGV: reason, by, op, the first and the last of the slice, its bit, whether
 * records are wanted, whether what it ended before is told again though it was told (1 or 0), then ids to keep.
 * Returns the time, the ids that it ended, their records where they are wanted, those that were found expired.
 */
export const endSlice = new Script(`
local cause, op, first, last, bit, wanted, again = unpack(ARGV, 4)
if redis.call('GETBIT', KEYS[2], bit) == 0 then again = '1' end
local ids, was, expired, keys = {}, {}, {}, {}
local kept, slice, ranks = {}, {}, {}
for i = 11, #ARGV do kept[ARGV[i]] = true end
for i, id in ipairs(redis.call('ZRANGE', KEYS[1], first, last)) do
  if not kept[id] then ranks[#slice + 1] = first + i - 1 slice[#slice + 1] = id end
end
if #slice == 0 then return { int(now), ids, was, expired, {}, {} } end
for i, id in ipairs(slice) do keys[2 * i - 1], keys[2 * i] = named('s', id), named('u', id) end
local found = redis.call('MGET', unpack(keys))
local head = 'E ' .. int(now) .. '\\n' .. cause .. '\\n'
-- Of what comes after these, and was not used since it was written, no more need be understood than that it has not ended: most of a slice.
local over = redis.call('ZCOUNT', KEYS[1], '-inf', int(now))

local left, placed, groups = {}, {}, {}
-- Takes a session off the ledgers of its groups: all of a slice at once, below.
local function leave (id, record)
  for _, ledger in ipairs(ledgersOf(record)) do
    left[ledger] = left[ledger] or {}
    table.insert(left[ledger], id)
  end
  if string.find(record.groups, 't-', 1, true) then placed[#placed + 1], groups[#groups + 1] = id, record.groups end
end

for i, id in ipairs(slice) do
  local text, used = found[2 * i - 1], found[2 * i]
  local state, record, ending
  local use, among
  if text and not used and ranks[i] >= over then use, among = string.match(text, '^([sro])[^\\n]*\\n([^\\n]*)\\n') end
  if use then
    redis.call('SET', keys[2 * i - 1], head .. text, 'PX', keep)
    tell(keys[2 * i - 1])
    if among ~= '' then leave(id, { use = use, groups = among, subject = string.match(text, '^[^\\n]*\\n[^\\n]*\\n[^\\n]*\\n([^\\n]*\\n[^\\n]*)') or '' }) end
    ids[#ids + 1] = id
    if wanted == '1' then was[#was + 1] = text end
  else
    state, record, ending = understood(text, used)
  end
  if state == 'live' then
    finish(id, record, cause)
    leave(id, record)
  end
  if state == 'live' or (state == 'ended' and ending.op == op and again == '1') then
    ids[#ids + 1] = id
    if wanted == '1' then was[#was + 1] = unchanged(record) end
  end
  if state == 'expired' then expired[#expired + 1] = id end
  if state == 'corrupt' then redis.call('UNLINK', keys[2 * i - 1], keys[2 * i]) end
end
for ledger, own in pairs(left) do redis.call('ZREM', ledger, unpack(own)) end
return { int(now), ids, was, expired, placed, groups }
`)

/** Notes that a slice was told. KEYS: the sign that its list was set aside. ARGV: its bit. */
export const noteTold = new Script(`
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('SETBIT', KEYS[1], ARGV[4], 1) end
`)

/** Puts an operation that begins on the list of those that are not done. KEYS: the list. ARGV: when it began, itself, ms for which the list is kept. */
export const addPending = new Script(`
redis.call('ZADD', KEYS[1], ARGV[4], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
`)

/**
 * Takes one of the operations that began some time ago and are not done, so that nobody else takes it.
 *
 * KEYS: the list. ARGV: ms since it began, or was taken. Returns it, or nothing.
 */
export const takePending = new Script(`
local pending = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, 1)[1]
if pending then redis.call('ZADD', KEYS[1], now, pending) end
return pending
`)

/**
 * Ends what has expired, so that of all who notice one tells.
 *
 * ARGV: ids. Returns of each that it ended: id, record, reason, when.
 */
export const expire = new Script(`
local told = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local state, record = read(id)
  if state == 'expired' then
    local at = deadlineOf(record)
    local reason = at == record.expiresAt and 'expired' or 'idle'
    finish(id, record, table.concat({ '"' .. reason .. '"', '', '"' .. reason .. ':' .. id .. '"', '' }, '\\n'), at)
    unlist(id, record)
    told[#told + 1] = { id, unchanged(record), reason, int(at) }
  end
end
return told
`)
