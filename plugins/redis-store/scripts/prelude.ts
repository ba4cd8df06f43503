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

-- Lists sessions of a subject that a limit counts, by deadline: all of them, or those of a group.
local function ledgerOf (subject, group)
  return group and prefix .. 'g:' .. tag .. subject .. '\\n' .. group or prefix .. 'x:' .. tag .. subject
end

local function indexOf (record) return record.use == 'o' and prefix .. 'o:' .. tag .. record.subject or ledgerOf(record.subject) end

-- Those of its groups. What a tenant counts is elsewhere; one-time tokens nobody counts.
local NONE = {}
local function ledgersOf (record)
  if record.groups == '' or record.use == 'o' then return NONE end
  local ledgers = {}
  for group in string.gmatch(record.groups, '[%w_-]+') do
    if string.sub(group, 1, 2) ~= 't-' then ledgers[#ledgers + 1] = ledgerOf(record.subject, group) end
  end
  return ledgers
end

-- Operations that have set a subject's indexes aside and are not done.
local function underWay (subject) return prefix .. 'ca:' .. tag .. subject end

-- What an operation ended beside what it named.
local function endedBy (op, subject) return prefix .. 'p:' .. tag .. subject .. '\\n' .. op end

local RECORD = '^([sro]) (%d+) (%d+) (%d*) (%-?%d*) (%-?%d+) (%d*) (%d+) (%-?%d+) (%-?%d+)\\n' ..
  '([^\\n]*)\\n([^\\n]*)\\n([^\\n]*\\n[^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n()'

local function parse (text)
  local use, generation, revision, kid, rotatedAfter, usedAfter, idle, issuedAt, order, lifetime, groups, op, subject, client, binding, origin, rest = string.match(text, RECORD)
  if not use or rotatedAfter == '-' then return nil end
  issuedAt = tonumber(issuedAt)
  return {
    use = use, generation = tonumber(generation), revision = tonumber(revision), kid = kid, rotatedAt = rotatedAfter ~= '' and issuedAt + rotatedAfter,
    usedAt = issuedAt + usedAfter, idle = tonumber(idle), issuedAt = issuedAt, order = tonumber(order), expiresAt = issuedAt + lifetime,
    groups = groups, op = op, subject = subject, client = client, binding = binding, origin = origin, rest = string.sub(text, rest)
  }
end

local function written (record)
  local issuedAt = record.issuedAt
  return table.concat({
    record.use, int(record.generation), int(record.revision), record.kid, record.rotatedAt and int(record.rotatedAt - issuedAt) or '', int(record.usedAt - issuedAt),
    record.idle and int(record.idle) or '', int(issuedAt), int(record.order), int(record.expiresAt - issuedAt)
  }, ' ') .. '\\n' .. table.concat({ record.groups, record.op, record.subject, record.client, record.binding, record.origin, record.rest }, '\\n')
end

-- As it was read, where nothing has changed since: not to be used of what is about to change.
local function unchanged (record) return record.text or written(record) end

local function deadlineOf (record)
  return record.idle and math.min(record.expiresAt, record.usedAt + record.idle) or record.expiresAt
end

-- 'none', 'corrupt', 'live', 'expired' or 'ended'; then the record as it last was, and how it ended
local function understood (text, used)
  if not text then return 'none' end
  local ending
  if string.sub(text, 1, 1) == 'E' then
    local at, reason, by, op, rest = string.match(text, '^E (%d+)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n[^\\n]*\\n()')
    if not at then return 'corrupt' end
    ending = { at = at, reason = reason, by = by, op = op }
    text = string.sub(text, rest)
  end
  local record = parse(text)
  if not record then return 'corrupt' end
  if ending then return 'ended', record, ending end
  used = used and tonumber(used)
  record.used, record.text = used, not used and text
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

-- Returns it as it is written.
local function save (id, record, kept)
  local text = written(record)
  redis.call('SET', named('s', id), text, unpack(kept))
  tell(named('s', id))
  return text
end

-- No key is without an end: an index lasts as long as what it lists, and is remembered.
local function prolong (key, untilTime)
  local at = int(untilTime)
  if redis.call('PEXPIREAT', key, at, 'GT') == 0 then redis.call('PEXPIREAT', key, at, 'NX') end
end

-- Only where it is listed: not where all of its subject is about to end.
local function relist (id, record)
  redis.call('ZADD', indexOf(record), 'XX', int(deadlineOf(record)), id)
  for _, ledger in ipairs(ledgersOf(record)) do redis.call('ZADD', ledger, 'XX', int(deadlineOf(record)), id) end
end

local function remember (key, ids, ms)
  if #ids > 0 then redis.call('SET', key, table.concat(ids, ' '), 'PX', ms) end
end

local function remembered (key)
  local ids = {}
  for id in string.gmatch(redis.call('GET', key) or '', '%S+') do ids[#ids + 1] = id end
  return ids
end

-- What is left of a session: how it ended, and what it was. The caller takes it off its index. Cause: reason, by, op, detail, each on a line. Returns what is left.
local function finish (id, record, cause, at)
  local rest = table.concat({ 'E ' .. int(at or now), cause, unchanged(record) }, '\\n')
  redis.call('SET', named('s', id), rest, 'PX', keep)
  tell(named('s', id))
  if record.used then redis.call('UNLINK', named('u', id)) end
  return rest
end

local function unlist (id, record)
  redis.call('ZREM', indexOf(record), id)
  for _, ledger in ipairs(ledgersOf(record)) do redis.call('ZREM', ledger, id) end
end
`

/** What scripts share that list sessions, behind `prelude`: for the others it would be made in vain, each time. */
export const listing = `
-- The microsecond in which it was stored: no other session has it.
local function issued (record) return record.issuedAt * 1000 + record.order end

-- Its name where it is kept by last use: of those that were used at the same time, the first that was issued comes first.
local function byUse (id, record) return string.format('%016.0f', issued(record)) .. id end

-- Where a ledger lists many, it may be kept by age too: as ga, by when they were issued; as gu, by when they were last used, or before. All that the ledger
-- lists are there, and others that have left it.
local function byAge (ledger)
  local rest = string.sub(ledger, #prefix + 2)
  return { prefix .. 'ga' .. rest, prefix .. 'gu' .. rest }
end

-- Which of the two there are; false for neither.
local aged = {}
local function keptByAge (ledger)
  if aged[ledger] == nil then
    local ga, gu = unpack(byAge(ledger))
    local both = redis.call('EXISTS', ga, gu)
    local first = both == 2 or (both == 1 and redis.call('EXISTS', ga) == 1)
    aged[ledger] = both > 0 and { ga = first and ga or nil, gu = (both == 2 or not first) and gu or nil }
  end
  return aged[ledger]
end

-- Lists a session until its deadline.
local function enter (ledger, id, record)
  redis.call('ZADD', ledger, int(deadlineOf(record)), id)
  prolong(ledger, record.expiresAt + keep)
  local kept = record.use ~= 'o' and keptByAge(ledger)
  if kept and kept.ga then redis.call('ZADD', kept.ga, int(issued(record)), id) end
  if kept and kept.gu then redis.call('ZADD', kept.gu, int(record.usedAt), byUse(id, record)) end
end

local function list (id, record)
  enter(indexOf(record), id, record)
  for _, ledger in ipairs(ledgersOf(record)) do enter(ledger, id, record) end
end
`

/** What scripts share that note uses, behind `prelude`. */
export const noting = `
-- Never backwards, only where the session lives. Returns what it is.
local function noteUse (id, at)
  local state, record = read(id)
  if state == 'live' and at > record.usedAt then
    record.usedAt = at
    -- As long as the session is known: whether it went idle or expired is told after its end.
    redis.call('SET', named('u', id), int(at), 'PXAT', int(record.expiresAt + keep))
    if record.idle then relist(id, record) end
  end
  return state
end
`
