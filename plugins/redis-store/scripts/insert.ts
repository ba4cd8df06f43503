import { listing, noting } from './prelude.ts'
import { FEW, room, SLICE } from './room.ts'
import { Script } from './script.ts'

const body = `${listing}${noting}
local op, keepOp, theirs, placed, limits, replaced, uses, count = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7], cjson.decode(ARGV[8]), ARGV[9], ARGV[11], tonumber(ARGV[12])
local moved = now - theirs
local ids, records = {}, {}
for i = 1, count do
  local id, record = ARGV[11 + 2 * i], parse(ARGV[12 + 2 * i])
  record.issuedAt, record.expiresAt, record.usedAt = record.issuedAt + moved, record.expiresAt + moved, record.usedAt + moved
  if record.rotatedAt then record.rotatedAt = record.rotatedAt + moved end
  record.order = micros + i - record.issuedAt * 1000
  ids[i], records[i] = id, record
end
local subject = count > 0 and records[1].subject or ARGV[10]
local index = ledgerOf(subject)
local evictedBy = endedBy(op, subject)

-- Mostly there is nothing by these ids, which one command tells.
local names = byAge(index)
for i = 1, math.min(count, ${SLICE}) do
  names[#names + 1] = named('s', ids[i])
  if tag ~= '' then names[#names + 1] = named('a', ids[i]) end
end
local there = redis.call('EXISTS', unpack(names))
aged[index] = there > 0 and keptByAge(index)
for _ in pairs(aged[index] or {}) do there = there - 1 end
local isNew = there == 0

local known, taken = {}, nil
for i = isNew and ${SLICE} + 1 or 1, count do
  local id = ids[i]
  local state, record = read(id)
  if state ~= 'none' or elsewhere(id) then taken = taken or id end
  if record and record.op == op and record.subject == subject then known[#known + 1] = written(record) end
end
if #known == count then
  local evicted, was = remembered(evictedBy), {}
  for i, id in ipairs(evicted) do was[i] = redis.call('GET', named('s', id)) or '' end
  if count > 0 or #evicted > 0 then return { 'ok', known, evicted, was } end
end
if taken then return { 'exists', taken } end

for i, record in ipairs(records) do
  if record.origin ~= '' then
    local id = cjson.decode(record.origin)
    local state, origin = read(id)
    if state ~= 'live' or origin.use ~= 'o' or origin.generation == 0 or origin.subject ~= subject then return { 'origin', id } end
  end
end
if placed ~= '' and now > tonumber(placed) then return { 'unplaced' } end

for id, at in string.gmatch(uses, '(%S+) (%S+)') do noteUse(id, tonumber(at)) end

local victims, order, shorter = {}, {}, {}
local function condemn (one, reason, detail)
  victims[one.id] = true
  one.cause = table.concat({ reason, '', op, detail }, '\\n')
  order[#order + 1] = one
end
for i = 13 + 2 * count, #ARGV do
  local id = ARGV[i]
  local state, record = read(id)
  if state == 'live' and record.subject == subject and record.use ~= 'o' and not victims[id] then condemn({ id = id, record = record }, '"replaced"', replaced) end
end

if #limits > 0 then
${room}
end

local evicted, was = {}, {}
for i, victim in ipairs(order) do
  -- Of what was used since it was written not all was understood so far.
  local _, record = understood(victim.used and victim.text, victim.used)
  evicted[i], was[i] = victim.id, finish(victim.id, record or victim.record, victim.cause)
  unlist(victim.id, victim.record)
end
remember(evictedBy, evicted, keepOp)

local stored, ledgers = {}, { [index] = true }
for i, id in ipairs(ids) do
  local record = records[i]
  stored[i] = save(id, record, { 'PXAT', int(record.expiresAt + keep) })
  list(id, record)
  for _, ledger in ipairs(ledgersOf(record)) do ledgers[ledger] = true end
end
for ledger in pairs(ledgers) do
  redis.call('ZREMRANGEBYSCORE', ledger, '-inf', '(' .. int(now - keep))
  -- Of those that left, not all come to the front. Where one was taken off, there are no more than before.
  for _, ages in pairs(keptByAge(ledger) or {}) do
    if not shorter[ages] and micros % 16 == 0 and redis.call('ZCARD', ages) > 2 * redis.call('ZCARD', ledger) + ${FEW} then redis.call('UNLINK', ages) end
  end
end
return { 'ok', stored, evicted, was }
`

/**
 * Stores the records of one subject, all or none; ends what limits end, and what is to be replaced.
 *
 * ARGV: op, ms for which what it ended is known again, the caller's clock, until when the places last that were taken for it ('' where none were), limits as
 * JSON, what the endings of those that are replaced come of, the subject (where there are no records), last uses (ids, each followed by the time, in one
 * text), how many records, then the id of each and itself, then ids to replace.
 * Returns `ok`, the records, the ids that ended, and what is left of each; or `exists`, an id; `origin`, an id; `unplaced`; `limit`, its position, how
 * many there are.
 */
export const insert = new Script(body, { grows: true })

/** As `insert`, of no records: brings a subject within its limits. */
export const enforce = new Script(body)

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
