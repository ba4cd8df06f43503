import type { Redis } from 'ioredis'
import type { SessionRecord } from '../token-registry/index.ts'
import type { Connection } from './connection.ts'
import { grouped } from './grouped.ts'
import type { Indexes } from './indexes.ts'
import { isId, type Keys } from './keys.ts'
import type { Places } from './places.ts'
import { decode } from './record.ts'
import { scan } from './scan.ts'
import { checkIndex, checkSessions } from './scripts/check.ts'
import type { Script } from './scripts/script.ts'

/** What one step looks at. */
const SLICE = 125

/** What a check found, and mended where it was to. */
export interface CheckReport {
  /** Sessions that live or whose ending is kept. */
  sessions: number
  /** Those that live and are not listed: a search for their subject misses them, `revokeAll` or a limit too. */
  unlisted: number
  /** Entries of indexes, and of what limits count by, whose session is gone. */
  orphans: number
  /** Sessions that cannot be read: they are refused, and go when they expire. */
  corrupt: number
  /** Sessions whose key had no end. */
  endless: number
}

/**
 * Goes through all sessions and indexes of a store, by SCAN in slices, and looks whether they agree. Keys that are not of the store's form are left alone.
 *
 * @param keepEndings ms
 * @param repair mends what does not
 */
export async function check (connection: Connection, keys: Keys, indexes: Indexes, places: Places, keepEndings: number, repair: boolean): Promise<CheckReport> {
  const report: CheckReport = { sessions: 0, unlisted: 0, orphans: 0, corrupt: 0, endless: 0 }
  // Each is given at least one key.
  const run = async (script: Script, primary: Redis, names: readonly string[], args: ReadonlyArray<string | number>): Promise<unknown> =>
    await connection.ask('check', () => script.run(primary, names, [keys.prefix, keys.tagIn(names[0] as string), keepEndings, repair ? 1 : 0, ...args]))

  for (const primary of connection.primaries()) {
    for await (const names of scan(connection, 'check', primary, keys.pattern('s'), 'string', SLICE)) {
      const sessions = names.filter(name => isId(keys.idOf(name)))
      report.sessions += sessions.length
      for (const [, own] of grouped(sessions, name => keys.tagIn(name))) {
        const [unlisted, corrupt, endless] = await run(checkSessions, primary, own, own.map(name => keys.idOf(name))) as [number, number, number] // as it says
        report.unlisted += unlisted
        report.corrupt += corrupt
        report.endless += endless
        if (!repair) continue
        const live = await connection.ask('check', async () => sessionsOf(own.map(name => keys.idOf(name)), await primary.mget(...own)))
        // Before an index was asked for, sessions were not listed there.
        await indexes.add(live)
        for (const [, ofTenant] of grouped(live, ({ tenant }) => tenant)) await places.take(ofTenant)
      }
    }
    for (const kind of ['x', 'o', 'g']) {
      for await (const names of scan(connection, 'check', primary, keys.pattern(kind), 'zset', SLICE)) {
        for (const name of names) report.orphans += await orphansOf(first => run(checkIndex, primary, [name], [first, first + SLICE - 1]), repair)
      }
    }
  }
  return report
}

/** @param look at a slice of an index, which begins there */
async function orphansOf (look: (first: number) => Promise<unknown>, repair: boolean): Promise<number> {
  let [orphans, first, seen] = [0, 0, SLICE]
  while (seen === SLICE) {
    const [gone, looked] = await look(first) as [number, number] // as the script says
    orphans += gone
    seen = looked
    // What was taken off leaves its place to others.
    first += repair ? seen - gone : seen
  }
  return orphans
}

function sessionsOf (ids: readonly string[], values: ReadonlyArray<string | null>): SessionRecord[] {
  return ids.flatMap((id, index) => {
    try {
      const { session, ending } = decode(id, String(values[index]))
      return ending === null ? [session] : []
    } catch {
      return [] // counted as corrupt, or gone since
    }
  })
}
