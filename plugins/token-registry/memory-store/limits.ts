import type { SessionRecord } from '../record.ts'
import type { InsertRefusal, SessionLimit } from '../store.ts'
import { matches, type Entry } from './entry.ts'

type LimitRefusal = Pick<Extract<InsertRefusal, { reason: 'limit' }>, 'reason' | 'limit' | 'count'>

/**
 * Which sessions have to end so that new ones fit, or which limit refuses them.
 *
 * @param live what the subject holds
 * @param added what is to be stored
 */
export function choose (live: readonly Entry[], added: readonly SessionRecord[], limits: readonly SessionLimit[]): { victims: Entry[], refused: LimitRefusal | null } {
  const victims = new Set<Entry>()
  for (const limit of limits) {
    const { max, onExceed, where = {} } = limit
    const adding = added.filter(record => counts(record, where)).length
    if (adding === 0) continue

    const counted = live.filter(entry => !victims.has(entry) && matches(entry, where))
    const excess = counted.length + adding - max
    if (excess <= 0) continue
    if (onExceed === 'refuse' || adding > max) return { victims: [], refused: { reason: 'limit', limit, count: counted.length } }

    const age = onExceed === 'end-oldest' ? (entry: Entry) => entry.sequence : (entry: Entry) => entry.lastUsedAt
    counted.sort((a, b) => age(a) - age(b) || a.sequence - b.sequence)
    for (const entry of counted.slice(0, excess)) victims.add(entry)
  }
  return { victims: [...victims], refused: null }
}

function counts ({ use, client, meta }: SessionRecord, where: NonNullable<SessionLimit['where']>): boolean {
  return use !== 'once' && (where.client === undefined || client === where.client) && (where.deviceId === undefined || meta.deviceId === where.deviceId)
}
