import { Script } from './script.ts'

const body = `
local before, after, gone = unpack(ARGV, 4)
local stands = redis.call('GET', KEYS[1])
if stands ~= (before ~= '' and string.sub(before, 2)) then return 0 end
if after ~= '' and tonumber(gone) > now then redis.call('SET', KEYS[1], string.sub(after, 2), 'PXAT', int(gone)) else redis.call('UNLINK', KEYS[1]) end
return 1
`

/**
 * Replaces a document, where it is as it was read.
 *
 * KEYS: the document. ARGV: what it is to be before and after, each '' for none, else text behind a `=`; until when, ms since the epoch.
 * Returns 1, or 0 where something else stands there.
 */
export const replace = new Script(body, { grows: true })

/** As `replace`, also where Redis is full: for what is taken away, or is no longer than what it frees. */
export const replaceAnyway = new Script(body)
