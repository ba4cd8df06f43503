import { collectDefaultMetrics, Registry, type Metric } from 'prom-client'
import { newRegister, type MetricsRegister } from './register.ts'

/** Gauges whose names say that they are counters. What they tell, `nodejs_active_resources` tells by kind. */
const misnamed = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total']

/** With the names that they were made with. */
type Named = ReadonlyArray<readonly [name: string, metric: Metric]>

const sets = new Map<boolean, Named>()

/**
 * Metrics of Node itself: one set for the process, since what collects them is never let go; one more for registers of the older text format, since
 * prom-client takes the ending off the names of counters that are read as OpenMetrics.
 */
export function processMetrics (openMetrics: boolean): Named {
  const known = sets.get(openMetrics)
  if (known !== undefined) return known
  const register: MetricsRegister = openMetrics ? newRegister() : new Registry()
  collectDefaultMetrics({ register })
  for (const name of misnamed) register.removeSingleMetric(name)
  const metrics = register.getMetricsAsArray().map(({ name }) => [name, register.getSingleMetric(name) as Metric] as const) // it has just told that it has them
  sets.set(openMetrics, metrics)
  return metrics
}
