import { Script } from './script.ts'

/**
 * Judges a presented token and acts on it, as `judgeRotation` says.
 *
 * ARGV: id, op, ms for which what it ended is known again, once (1 or 0), generation, kid, client ('*' where it is not compared), binding, reuse window in ms, by.
 * Returns `moved`, a tag; `unknown`; `expired`; `corrupt`; `client`; `binding`; `rotated`, `recovered` or `repeated`, a record; `reused`, when, the reason, by, ids, records.
 */
export const rotate = new Script(`
local id, op, keepOp, once, generation, kid, client, binding, window, by = unpack(ARGV, 4)
generation, window = tonumber(generation), tonumber(window)
local state, record, ending = read(id)

if state == 'ended' then
  if record.op == op then return { 'rotated', written(record) } end
  if ending.op ~= op then return { 'unknown' } end
  local ids, was = remembered(endedBy(op, record.subject)), {}
  if #ids == 0 then ids = { id } end
  for i, each in ipairs(ids) do
    local _, one = read(each)
    was[i] = one and written(one) or ''
  end
  return { 'reused', ending.at, ending.reason, ending.by, ids, was }
end
if state == 'none' then
  local home = elsewhere(id)
  return home and { 'moved', home } or { 'unknown' }
end
if state ~= 'live' then return { state } end

if (once == '1') ~= (record.use == 'o') then return { 'unknown' } end
if client ~= '*' and client ~= record.client then return { 'client' } end
if binding ~= record.binding then return { 'binding' } end

local behind = record.generation - generation
if behind == 1 and record.op == op then return { 'rotated', written(record) } end
if behind == 1 and record.rotatedAt and math.abs(now - record.rotatedAt) < window then return { 'repeated', written(record) } end
if behind > 0 then
  local reason = behind == 1 and '"reuse_recent"' or '"reuse_stale"'
  local cause = table.concat({ reason, by, op, '' }, '\\n')
  local ended = { { id = id, record = record } }
  if record.use == 'o' then
    local me = cjson.encode(id)
    -- Where all of the subject is about to end, what came of it is listed aside.
    local indexes = { prefix .. 'x:' .. tag .. record.subject }
    for _, other in ipairs(redis.call('ZRANGE', underWay(record.subject), 0, -1)) do
      indexes[#indexes + 1] = prefix .. 'cx:' .. tag .. record.subject .. '\\n' .. other
    end
    for _, index in ipairs(indexes) do
      for _, each in ipairs(redis.call('ZRANGE', index, 0, -1)) do
        local lives, one = read(each)
        if lives == 'live' and one.origin == me then ended[#ended + 1] = { id = each, record = one } end
      end
    end
  end
  local ids, was = {}, {}
  for i, one in ipairs(ended) do
    finish(one.id, one.record, cause)
    unlist(one.id, one.record)
    ids[i], was[i] = one.id, written(one.record)
  end
  if #ids > 1 then remember(endedBy(op, record.subject), ids, keepOp) end
  return { 'reused', int(now), reason, by, ids, was }
end

record.generation, record.kid, record.op = generation + 1, kid, op
record.rotatedAt = now
record.usedAt = math.max(record.usedAt, now)
local text = save(id, record, { 'KEEPTTL' })
if record.idle then relist(id, record) end
return { behind < 0 and 'recovered' or 'rotated', text }
`)
