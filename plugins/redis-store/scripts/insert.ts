import { Script } from './script.ts'

/**
 * Stores the records of one subject, all or none.
 *
 * ARGV: op, ms for which what it evicted is known again, the caller's clock, limits as JSON, how many records, then the id of each and itself.
 * Returns `ok`, the records, the evicted ids and records; or `exists`, an id; `origin`, an id; `limit`, its position, how many there are.
 */
export const insert = new Script(`
local op, keepOp, theirs, limits, count = ARGV[4], ARGV[5], tonumber(ARGV[6]), cjson.decode(ARGV[7]), tonumber(ARGV[8])
local moved = now - theirs
local ids, records = {}, {}
for i = 1, count do
  local id, record = ARGV[7 + 2 * i], parse(ARGV[8 + 2 * i])
  record.issuedAt, record.expiresAt, record.usedAt = record.issuedAt + moved, record.expiresAt + moved, record.usedAt + moved
  if record.rotatedAt then record.rotatedAt = record.rotatedAt + moved end
  record.order = micros + i - record.issuedAt * 1000
  ids[i], records[i] = id, record
end
local subject = records[1].subject
local evictedBy = endedBy(op, subject)

local function ended (id)
  local _, record = read(id)
  return record and written(record) or ''
end

local known, taken = {}, nil
for i, id in ipairs(ids) do
  local state, record = read(id)
  if state ~= 'none' or elsewhere(id) then taken = taken or id end
  if record and record.op == op and record.subject == subject then known[#known + 1] = written(record) end
end
if #known == count then
  local evicted = redis.call('LRANGE', evictedBy, 0, -1)
  local was = {}
  for i, id in ipairs(evicted) do was[i] = ended(id) end
  return { 'ok', known, evicted, was }
end
if taken then return { 'exists', taken } end

for i, record in ipairs(records) do
  if record.origin ~= '' then
    local id = cjson.decode(record.origin)
    local state, origin = read(id)
    if state ~= 'live' or origin.use ~= 'o' or origin.generation == 0 or origin.subject ~= subject then return { 'origin', id } end
  end
end

local index = prefix .. 'x:' .. tag .. subject
local victims, order = {}, {}
if #limits > 0 then
  local live = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '(' .. int(now), '+inf')) do
    local state, record = read(id)
    if state == 'live' then live[#live + 1] = { id = id, record = record } end
  end
  local function deviceOf (record)
    local ok, meta = pcall(cjson.decode, string.match(record.rest, '([^\\n]*)$'))
    return ok and type(meta) == 'table' and meta.deviceId
  end
  for position, limit in ipairs(limits) do
    local counted = {}
    for _, one in ipairs(live) do
      local counts = not victims[one.id] and (not limit.client or limit.client == one.record.client) and (not limit.deviceId or limit.deviceId == deviceOf(one.record))
      if counts then counted[#counted + 1] = one end
    end
    local excess = #counted + limit.adding - limit.max
    if limit.adding > 0 and excess > 0 then
      if limit.refuses or limit.adding > limit.max then return { 'limit', position, #counted } end
      local function age (record) return limit.byUse and record.usedAt or record.issuedAt * 1000 + record.order end
      table.sort(counted, function (a, b)
        local one, other = age(a.record), age(b.record)
        if one ~= other then return one < other end
        return a.record.issuedAt * 1000 + a.record.order < b.record.issuedAt * 1000 + b.record.order
      end)
      for i = 1, excess do
        victims[counted[i].id] = true
        order[#order + 1] = counted[i]
      end
    end
  end
end

local evicted, was = {}, {}
for i, victim in ipairs(order) do
  finish(victim.id, victim.record, '"limit"', '', op)
  unlist(victim.id, victim.record)
  evicted[i], was[i] = victim.id, written(victim.record)
end
remember(evictedBy, evicted, keepOp)

local stored = {}
for i, id in ipairs(ids) do
  local record = records[i]
  save(id, record, { 'PXAT', int(record.expiresAt + keep) })
  list(id, record)
  stored[i] = written(record)
end
redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. int(now - keep))
return { 'ok', stored, evicted, was }
`, { grows: true })

/**
 * In a Cluster, leaves word in the slot of an adopted token's id where its session will be kept: with its subject.
 *
 * ARGV: id, the tag of the subject, op, until when. Returns `ok`; `exists`; `held`, the tag that another left, and when.
 */
export const claim = new Script(`
local id, home, op, gone = unpack(ARGV, 4)
if redis.call('EXISTS', named('s', id)) == 1 then return { 'exists' } end
local pointer = redis.call('GET', named('a', id))
if pointer then
  local theirs, at, theirOp = string.match(pointer, '^(%S+) (%d+) (.*)$')
  if theirs == home and theirOp == op then return { 'ok' } end
  return { 'held', theirs, at }
end
redis.call('SET', named('a', id), table.concat({ home, int(now), op }, ' '), 'PXAT', gone)
return { 'ok' }
`, { grows: true })

/** Takes that word back. ARGV: id, the tag that it names, and either when it was left or by which operation. */
export const release = new Script(`
local id, home, sign = ARGV[4], ARGV[5], ARGV[6]
local pointer = redis.call('GET', named('a', id))
local theirs, at, op = string.match(pointer or '', '^(%S+) (%d+) (.*)$')
if theirs == home and (at == sign or op == sign) then redis.call('UNLINK', named('a', id)) end
`)
