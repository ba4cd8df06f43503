import { Counter } from 'prom-client'
import type { Observer } from '../token-registry/index.ts'
import { Durations, type Series, type TraceOf } from './durations.ts'
import { add, type MetricsRegister } from './register.ts'

/** `refused`: the caller was wrong; `error`: the infrastructure failed. */
type Outcome = 'success' | 'refused' | 'error'

export interface OperationOptions {
  namePrefix: string
  buckets: readonly number[]
  traceOf: TraceOf | null
  /** Name of the store. */
  store: string
}

/** Measures operations of the registry, and commits of the audit log. What the cache answers is no operation: the cache counts it. */
export function operationObserver (register: MetricsRegister, { namePrefix, buckets, traceOf, store }: OperationOptions): Observer {
  const known = new Map<string, { labels: { operation: string, outcome: Outcome, store: string }, count: number, series: Series }>()
  const total = add(register, `${namePrefix}operations_total`, name => new Counter({
    name,
    help: 'Operations of the registry, but for tokens that the cache knew.',
    labelNames: ['operation', 'outcome', 'store'],
    registers: [register],
    collect () {
      total.reset()
      for (const { labels, count } of known.values()) total.inc(labels, count)
    }
  }))
  const durations = new Durations(register, { name: `${namePrefix}operation_duration_seconds`, help: 'How long they took.', buckets, traceOf })
  const commits = new Durations(register, { name: `${namePrefix}audit_commit_duration_seconds`, help: 'How long it took until an entry was on record.', buckets, traceOf })
  const commitsBy = { success: commits.series({ outcome: 'success' }), refused: commits.series({ outcome: 'refused' }), error: commits.series({ outcome: 'error' }) }

  function note (layer: string, operation: string, outcome: Outcome, began: number): void {
    const seconds = (performance.now() - began) / 1000
    if (layer === 'audit') return commitsBy[outcome].observe(seconds)
    const key = `${operation} ${outcome}`
    let noted = known.get(key)
    if (noted === undefined) {
      const labels = { operation, outcome, store }
      known.set(key, noted = { labels, count: 0, series: durations.series(labels) })
    }
    noted.count++
    noted.series.observe(seconds)
  }

  return async ({ layer, name }, work) => {
    if (layer !== 'registry' && layer !== 'audit') return await work()
    const began = performance.now()
    try {
      const result = await work()
      note(layer, name, 'success', began)
      return result
    } catch (error) {
      note(layer, name, outcomeOf(error), began)
      throw error
    }
  }
}

/** Errors of ours say whose fault they are; others may have a status. */
function outcomeOf (error: unknown): Outcome {
  const { critical, statusCode } = Object(error) as { critical?: unknown, statusCode?: unknown } // whatever was thrown
  if (typeof critical === 'boolean') return critical ? 'error' : 'refused'
  return typeof statusCode === 'number' && statusCode < 500 ? 'refused' : 'error'
}
