/** Sessions of a ledger that are all read, where one of them has to end; of more, only those that come first by age. */
export const FEW = 128
/** Sessions that one command reads. */
export const SLICE = 100
/** ms that sessions are kept by age, at least: to begin anew costs some µs each. */
const LASTS = 86_400_000

/**
 * The part of `insert` that tests limits, one after the other, and condemns whom they end: `order`, and by id `victims`. It returns from the script where
 * one refuses.
 */
export const room = `
local function isIn (record, group) return string.find(string.gsub(record.groups, '"', ' '), ' ' .. group .. ' ', 1, true) end

-- Sessions by id, as far as they are read: with a record where one is there, of which no more is understood than where it stands and whose it is; without
-- where it is gone; false where it cannot be read.
local seen = {}
local SHAPE = '^[sr] %d+ %d+ %d* %-?%d* (%-?%d+) (%d*) (%d+) (%-?%d+) (%-?%d+)\\n([^\\n]*)\\n[^\\n]*\\n([^\\n]*\\n[^\\n]*)\\n'
local function recognized (id, text, used)
  if not text then return { id = id } end
  local usedAfter, idle, issuedAt, order, lifetime, groups, whose = string.match(text, SHAPE)
  if not whose then return string.sub(text, 1, 1) == 'E' and { id = id } end
  if whose ~= subject then return { id = id } end
  used = used and tonumber(used)
  return { id = id, text = text, used = used, record = {
    use = 's', groups = groups, subject = whose, issuedAt = tonumber(issuedAt), order = tonumber(order), usedAt = math.max(issuedAt + usedAfter, used or 0),
    idle = tonumber(idle), expiresAt = issuedAt + lifetime, text = text
  } }
end
local function look (wanted)
  local unseen, keys = {}, {}
  for _, id in ipairs(wanted) do
    if seen[id] == nil then
      unseen[#unseen + 1] = id
      keys[#keys + 1], keys[#keys + 2] = named('s', id), named('u', id)
    end
  end
  if #keys == 0 then return end
  local found = redis.call('MGET', unpack(keys))
  for i, id in ipairs(unseen) do seen[id] = recognized(id, found[2 * i - 1], found[2 * i]) end
end

-- Those of a ledger that lists few.
local function allIn (ledger)
  local listed, all = redis.call('ZRANGEBYSCORE', ledger, '(' .. int(now), '+inf'), {}
  look(listed)
  for _, id in ipairs(listed) do if seen[id] and seen[id].record then all[#all + 1] = seen[id] end end
  return all
end

-- Has a ledger kept by age, where it is not.
local function age (ledger, kind)
  local kept = keptByAge(ledger)
  if kept and kept[kind] then return kept[kind] end
  local ages = byAge(ledger)[kind == 'ga' and 1 or 2]
  local listed = redis.call('ZRANGEBYSCORE', ledger, '(' .. int(now), '+inf')
  -- Behind all others, so that there is a key, with its end, also when the last of them is taken off.
  redis.call('ZADD', ages, '+inf', '')
  -- Where it ends before its ledger, it is made anew.
  redis.call('PEXPIRE', ages, math.max(redis.call('PTTL', ledger), ${LASTS}))
  for first = 1, #listed, ${SLICE} do
    local keys, entries = {}, {}
    for i = first, math.min(first + ${SLICE} - 1, #listed) do keys[#keys + 1], keys[#keys + 2] = named('s', listed[i]), named('u', listed[i]) end
    local found = redis.call('MGET', unpack(keys))
    for i = 1, #keys, 2 do
      local id = listed[first + (i - 1) / 2]
      local one = recognized(id, found[i], found[i + 1])
      local record = one and one.record
      if record and kind == 'ga' then entries[#entries + 1], entries[#entries + 2] = int(issued(record)), id end
      if record and kind == 'gu' then entries[#entries + 1], entries[#entries + 2] = int(record.usedAt), byUse(id, record) end
    end
    if #entries > 0 then redis.call('ZADD', ages, unpack(entries)) end
  end
  aged[ledger] = nil
  return ages
end

-- What was taken off, to be looked at. It is put back, but for what ends.
local held = {}
local function putBack (ends)
  local kept = {}
  for _, one in ipairs(held) do
    if ends[one.id] then kept[#kept + 1] = one
    else
      redis.call('ZADD', one.ages, one.score, one.name)
      redis.call('PEXPIRE', one.ages, ${LASTS}, 'NX')
    end
  end
  held = kept
end

-- Gives one after the other, in order: where there are many, without looking at the others. One without a record was listed, and is gone.
local function inOrder (ledger, group, total, kind)
  local i, ready = 0, {}
  if total <= ${FEW} then
    ready = allIn(ledger)
    table.sort(ready, function (a, b)
      if kind == 'gu' and a.record.usedAt ~= b.record.usedAt then return a.record.usedAt < b.record.usedAt end
      return issued(a.record) < issued(b.record)
    end)
    return function ()
      i = i + 1
      return ready[i]
    end
  end
  -- What a limit before this one has looked at.
  putBack(victims)
  local ages, size = age(ledger, kind), 1

  -- Whether it is listed: all are who live and have the group.
  local function counts (record)
    return deadlineOf(record) > now and (not group or isIn(record, group))
  end

  -- Has the next of them ready; none where some were not where they belong, and are now. False where there are no more.
  local function advance ()
    local popped = redis.call('ZPOPMIN', ages, size)
    if #popped == 0 then return false end
    local ids, wanted, deadlines, used, moved, next = {}, {}, nil, {}, {}, {}
    for p = 1, #popped, 2 do ids[#ids + 1] = kind == 'gu' and string.sub(popped[p], 17) or popped[p] end
    -- Of many it is soon known that they are not listed, or were used since.
    if #ids > 2 then
      deadlines = redis.call('ZMSCORE', ledger, unpack(ids))
      local keys = {}
      for n, id in ipairs(ids) do keys[n] = named('u', id) end
      if kind == 'gu' then used = redis.call('MGET', unpack(keys)) end
    end
    for n, id in ipairs(ids) do
      local name, score, usedAt = popped[2 * n - 1], popped[2 * n], tonumber(used[n] or 0) or 0
      local listed = name ~= '' and (not deadlines or (deadlines[n] and tonumber(deadlines[n]) > now))
      if name == '' then held[#held + 1] = { ages = ages, name = name, score = score }
      elseif listed and usedAt > tonumber(score) then moved[#moved + 1], moved[#moved + 2] = int(usedAt), name
      elseif listed then wanted[#wanted + 1] = { id = id, name = name, score = score } end
    end
    local unread = {}
    for w, one in ipairs(wanted) do unread[w] = one.id end
    look(unread)
    for _, one in ipairs(wanted) do
      local found = seen[one.id]
      local record = found and found.record
      one.ages = ages
      if record and counts(record) and (kind == 'ga' or one.name == byUse(one.id, record)) then
        if kind == 'gu' and record.usedAt > tonumber(one.score) then moved[#moved + 1], moved[#moved + 2] = int(record.usedAt), one.name
        else next[#next + 1] = one end
      elseif found == false then held[#held + 1] = one
      -- What was listed all the same was counted.
      elseif not record and redis.call('ZREM', ledger, one.id) == 1 then ready[#ready + 1] = found end
    end
    size = math.min(2 * size, ${SLICE})
    if #moved > 0 then
      for _, one in ipairs(next) do moved[#moved + 1], moved[#moved + 2] = one.score, one.name end
      redis.call('ZADD', ages, unpack(moved))
      return true
    end
    for _, one in ipairs(next) do
      held[#held + 1] = one
      ready[#ready + 1] = seen[one.id]
    end
    return true
  end
  return function ()
    i = i + 1
    while not ready[i] do
      i, ready = 1, {}
      if not advance() then return nil end
    end
    return ready[i]
  end
end

local function sizeOf (ledger) return redis.call('ZCOUNT', ledger, '(' .. int(now), '+inf') end

-- Condemns those that come first and count. Returns how many are lacking.
local function condemnFirst (following, counts, excess, reason, detail)
  while excess > 0 do
    local one = following()
    if not one then break end
    if not victims[one.id] and counts(one) then
      if one.record then condemn(one, reason, detail) end
      excess = excess - 1
    end
  end
  return excess
end

-- What a tenant counts is elsewhere, and all its places are taken: there is room for one only, in the place of who ends.
local function inherit (limit)
  local function counts (one) return one.record and isIn(one.record, limit.group) end
  if limit.adding > 1 then return false end
  for _, victim in ipairs(order) do if counts(victim) then return true end end
  if not limit.replaces then return false end
  local from = ledgerOf(subject, limit.replaces)
  return condemnFirst(inOrder(from, limit.replaces, sizeOf(from), 'ga'), counts, 1, '"replaced"', limit.detail) == 0
end

-- Returns whether there is room, and how many there were that count.
local function makeRoom (limit)
  local evicts = count == 0 or not limit.refuses
  local kind = (limit.byUse or limit.refuses) and 'gu' or 'ga'
  local ledger = ledgerOf(subject, limit.group)
  local total = sizeOf(ledger)
  -- Little by little, not when the first has to end.
  if evicts and total > ${FEW} then age(ledger, kind) end
  local there = total
  for _, victim in ipairs(order) do if redis.call('ZSCORE', ledger, victim.id) then there = there - 1 end end
  if there + limit.adding > limit.max and total <= ${FEW} then
    there = 0
    for _, one in ipairs(allIn(ledger)) do if not victims[one.id] then there = there + 1 end end
  end
  local excess = there + limit.adding - limit.max
  if excess <= 0 then return true end
  if limit.adding > limit.max or not (evicts or limit.replaces) then return false, there end

  local from, group, within = ledger, limit.group, nil
  if not evicts then
    -- Whatever else is too much.
    excess = math.min(excess, limit.adding)
    from, group, within, kind = ledgerOf(subject, limit.replaces), limit.replaces, ledger, 'ga'
    local others = sizeOf(from)
    if others > total then from, group, within = ledger, limit.group, from else total = others end
  end
  local function counts (one) return not within or redis.call('ZSCORE', within, one.id) end
  local lacking = condemnFirst(inOrder(from, group, total, kind), counts, excess, evicts and '"limit"' or '"replaced"', limit.detail)
  return lacking == 0 or count == 0, there
end

for position, limit in ipairs(limits) do
  local fits, there = true, limit.there
  if limit.full then fits = inherit(limit)
  elseif limit.adding > 0 or count == 0 then fits, there = makeRoom(limit) end
  if not fits then
    putBack({})
    return { 'limit', position, there }
  end
end
putBack(victims)
for _, one in ipairs(held) do shorter[one.ages] = true end
`
