/*
 * What all scripts share. `record.ts` says how a record is written.
 *
 * KEYS: the keys of the sessions that are named; the others of the same subject follow from what is read, and share their slot.
 * ARGV: the prefix of all keys, the hash tag of the slot ('' where there are none), settings, then the script's own. Settings: ms for which endings are
 * kept; `p` where changes are to be published; where replicas are to confirm, what a fence is called: a key that is written with the rest, and tells
 * that it was not lost.
 */
export const prelude = `
local prefix, tag = ARGV[1], ARGV[2]
local keep, publishes, fence = string.match(ARGV[3], '^(%d+)(p?) ?(%S*)$')
if fence ~= '' then redis.call('SET', prefix .. 'w:' .. tag .. fence, '', 'PX', 60000) end
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

-- Where keys cannot be watched. A failure must not leave a script half done: then no heartbeat comes back either.
local function tell (name) if publishes == 'p' then redis.pcall('PUBLISH', prefix .. 'changes', name) end end

local function int (number) return string.format('%.0f', number) end

local function named (kind, id)
  if tag ~= '' and string.sub(id, 1, 4) == string.sub(tag, 2, 5) then id = string.sub(id, 5) end
  return prefix .. kind .. ':' .. tag .. id
end

local function indexOf (record) return prefix .. (record.use == 'o' and 'o:' or 'x:') .. tag .. record.subject end

-- Operations that have set a subject's indexes aside and are not done.
local function underWay (subject) return prefix .. 'ca:' .. tag .. subject end

-- What an operation ended beside what it named.
local function endedBy (op, subject) return prefix .. 'p:' .. tag .. subject .. '\\n' .. op end

local RECORD = '^([sro]) (%d+) (%d+) (%d*) (%-?%d*) (%-?%d+) (%d*) (%d+) (%-?%d+) (%-?%d+)\\n' ..
  '([^\\n]*)\\n([^\\n]*\\n[^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n()'

local function parse (text)
  local use, generation, revision, kid, rotatedAfter, usedAfter, idle, issuedAt, order, lifetime, op, subject, client, binding, origin, rest = string.match(text, RECORD)
  if not use or rotatedAfter == '-' then return nil end
  issuedAt = tonumber(issuedAt)
  return {
    use = use, generation = tonumber(generation), revision = tonumber(revision), kid = kid, rotatedAt = rotatedAfter ~= '' and issuedAt + rotatedAfter,
    usedAt = issuedAt + usedAfter, idle = tonumber(idle), issuedAt = issuedAt, order = tonumber(order), expiresAt = issuedAt + lifetime,
    op = op, subject = subject, client = client, binding = binding, origin = origin, rest = string.sub(text, rest)
  }
end

local function written (record)
  local issuedAt = record.issuedAt
  return table.concat({
    record.use, int(record.generation), int(record.revision), record.kid, record.rotatedAt and int(record.rotatedAt - issuedAt) or '', int(record.usedAt - issuedAt),
    record.idle and int(record.idle) or '', int(issuedAt), int(record.order), int(record.expiresAt - issuedAt)
  }, ' ') .. '\\n' .. table.concat({ record.op, record.subject, record.client, record.binding, record.origin, record.rest }, '\\n')
end

local function deadlineOf (record)
  return record.idle and math.min(record.expiresAt, record.usedAt + record.idle) or record.expiresAt
end

-- 'none', 'corrupt', 'live', 'expired' or 'ended'; then the record as it last was, and how it ended
local function understood (text, used)
  if not text then return 'none' end
  local ending
  if string.sub(text, 1, 1) == 'E' then
    local at, reason, by, op, rest = string.match(text, '^E (%d+)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n()')
    if not at then return 'corrupt' end
    ending = { at = at, reason = reason, by = by, op = op }
    text = string.sub(text, rest)
  end
  local record = parse(text)
  if not record then return 'corrupt' end
  if ending then return 'ended', record, ending end
  used = used and tonumber(used)
  record.used = used
  if used and used > record.usedAt then record.usedAt = used end
  return deadlineOf(record) > now and 'live' or 'expired', record
end

local function read (id)
  local found = redis.call('MGET', named('s', id), named('u', id))
  return understood(found[1], found[2])
end

-- In a Cluster, where the slot of an adopted token's id says that its session is kept: the tag of its subject. False where it says nothing.
local function elsewhere (id)
  local pointer = tag ~= '' and redis.call('GET', named('a', id))
  return pointer and string.match(pointer, '^%S+')
end

local function save (id, record, kept)
  redis.call('SET', named('s', id), written(record), unpack(kept))
  tell(named('s', id))
end

-- No key is without an end: an index lasts as long as what it lists, and is remembered.
local function prolong (key, untilTime)
  if redis.call('PTTL', key) < untilTime - now then redis.call('PEXPIREAT', key, int(untilTime)) end
end

-- Lists a session until its deadline.
local function list (id, record)
  local index = indexOf(record)
  redis.call('ZADD', index, int(deadlineOf(record)), id)
  prolong(index, record.expiresAt + keep)
end

-- Only where it is listed: not where all of its subject is about to end.
local function relist (id, record) redis.call('ZADD', indexOf(record), 'XX', int(deadlineOf(record)), id) end

local function remember (key, ids, ms)
  for _, id in ipairs(ids) do redis.call('RPUSH', key, id) end
  if #ids > 0 then redis.call('PEXPIRE', key, ms) end
end

-- What is left of a session: how it ended, and what it was. The caller takes it off its index.
local function finish (id, record, reason, by, op, at)
  redis.call('SET', named('s', id), 'E ' .. int(at or now) .. '\\n' .. table.concat({ reason, by, op, written(record) }, '\\n'), 'PX', keep)
  tell(named('s', id))
  if record.used then redis.call('UNLINK', named('u', id)) end
end

local function unlist (id, record) redis.call('ZREM', indexOf(record), id) end
`
