import { collectDefaultMetrics, type Metric } from 'prom-client'
import { newRegister } from './register.ts'

/** Gauges whose names say that they are counters. What they tell, `nodejs_active_resources` tells by kind. */
const misnamed = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total']

let metrics: readonly Metric[] | undefined

/** Metrics of Node itself: one set for the process, since what collects them is never let go. */
export function processMetrics (): readonly Metric[] {
  if (metrics !== undefined) return metrics
  const register = newRegister()
  collectDefaultMetrics({ register })
  for (const name of misnamed) register.removeSingleMetric(name)
  metrics = register.getMetricsAsArray().map(({ name }) => register.getSingleMetric(name)).filter(metric => metric !== undefined)
  return metrics
}
