import type { AuditEntry } from './reading.ts'

const columns: ReadonlyArray<[string, (entry: AuditEntry) => unknown]> = [
  ['seq', ({ seq }) => seq],
  ['at', ({ at }) => at],
  ['type', ({ type }) => type],
  ['outcome', ({ outcome }) => outcome],
  ['actor', ({ actor }) => actor.sub],
  ['client', ({ actor }) => actor.client],
  ['ip', ({ actor }) => actor.ip],
  ['user_agent', ({ actor }) => actor.userAgent],
  ['target_kind', ({ target }) => target?.kind],
  ['target_id', ({ target }) => target?.id],
  ['target_subject', ({ target }) => target?.sub],
  ['tenant', ({ tenant }) => tenant],
  ['request_id', ({ requestId }) => requestId],
  ['reason', ({ reason }) => reason],
  ['data', ({ data }) => data && JSON.stringify(data)]
]

/** RFC 4180. */
export const csvHeader = `${columns.map(([name]) => name).join(',')}\r\n`

export function csvLine (entry: AuditEntry): string {
  return `${columns.map(([, read]) => field(read(entry))).join(',')}\r\n`
}

/** Spreadsheets take what begins like a formula for one. */
function field (value: unknown): string {
  if (value == null) return ''
  const text = String(value)
  return `"${(/^[=+\-@\t\r\n]/.test(text) && typeof value !== 'number' ? `'${text}` : text).replaceAll('"', '""')}"`
}
