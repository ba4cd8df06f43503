import { listing, noting } from './prelude.ts'
import { Script } from './script.ts'

/**
 * Changes what a service keeps with a session.
 *
 * ARGV: id, the revision that it must have or '', then scope, version, meta, idle timeout ('-' for none), groups ('-' for none); '' leaves one as it is.
 * Last, until when the places last that were taken for it, '' where none were.
 * Returns `moved`, a tag; `none`; `expired`; `corrupt`; `conflict`; `unplaced`; `ok`, the record, the groups that it had, when.
 */
export const update = new Script(`${listing}
local id, revision, scope, version, meta, idle, groups, placed = unpack(ARGV, 4)
local state, record = read(id)
local home = state == 'none' and elsewhere(id)
if home then return { 'moved', home } end
if state == 'none' or state == 'ended' then return { 'none' } end
if state ~= 'live' then return { state } end

local oldScope, oldVersion, oldMeta = string.match(record.rest, '^([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)$')
if not oldScope then return { 'corrupt' } end
local newIdle = idle == '' and record.idle or tonumber(idle)
local had = record.groups
local newGroups = groups == '' and had or groups == '-' and '' or groups
local rest = table.concat({ scope == '' and oldScope or scope, version == '' and oldVersion or version, meta == '' and oldMeta or meta }, '\\n')
if revision ~= '' and tonumber(revision) ~= record.revision then
  -- A repeated update finds its own work done.
  local done = tonumber(revision) == record.revision - 1 and rest == record.rest and newIdle == record.idle and newGroups == had
  return done and { 'ok', written(record), had, int(now) } or { 'conflict' }
end
if placed ~= '' and now > tonumber(placed) then return { 'unplaced' } end
-- Uses are written late: another timeout counts from now.
if idle ~= '' then record.usedAt = math.max(record.usedAt, now) end
record.rest, record.idle, record.revision = rest, newIdle, record.revision + 1
if newGroups ~= had then
  for _, ledger in ipairs(ledgersOf(record)) do redis.call('ZREM', ledger, id) end
  record.groups = newGroups
  for _, ledger in ipairs(ledgersOf(record)) do enter(ledger, id, record) end
end
local text = save(id, record, { 'KEEPTTL' })
if idle ~= '' then relist(id, record) end
return { 'ok', text, had, int(now) }
`, { grows: true })

/**
 * Notes uses.
 *
 * ARGV: ids, each followed by the time. Returns the ids that were found expired, those that are kept elsewhere, and where.
 */
export const touch = new Script(`${noting}
local expired, moved, homes = {}, {}, {}
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local state = noteUse(id, tonumber(ARGV[i + 1]))
  if state == 'expired' then expired[#expired + 1] = id end
  local home = state == 'none' and elsewhere(id)
  if home then moved[#moved + 1], homes[#homes + 1] = id, home end
end
return { expired, moved, homes }
`)

/**
 * Takes entries whose session is gone off their index.
 *
 * KEYS: the index. ARGV: ids. Returns how many it took.
 */
export const heal = new Script(`
local gone = 0
for i = 4, #ARGV do
  local state = read(ARGV[i])
  if state == 'none' or state == 'ended' then gone = gone + redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return gone
`)
