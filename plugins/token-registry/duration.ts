import { Type, type Static } from '@sinclair/typebox'

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const pattern = /^(\d{1,15})(ms|s|m|h|d)$/

/** A number of milliseconds, or text as `'500ms'`, `'30s'`, `'15m'`, `'12h'`, `'30d'`. */
export const DurationSchema = Type.Union([
  Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  Type.String({ pattern: pattern.source })
], { errorMessage: 'a number of milliseconds, or text such as "15m"' })

export type Duration = Static<typeof DurationSchema>

/** @returns milliseconds; NaN for text that is no duration */
export function milliseconds (duration: Duration): number {
  if (typeof duration === 'number') return duration
  const [, amount, unit] = pattern.exec(duration) ?? []
  return unit === undefined ? NaN : Number(amount) * units[unit as keyof typeof units]
}
