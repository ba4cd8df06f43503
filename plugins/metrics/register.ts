import { openMetricsContentType, Registry, type OpenMetricsContentType } from 'prom-client'
import { MetricsOptions } from './errors.ts'

/** Of either text format. */
export type MetricsRegister = Registry | Registry<OpenMetricsContentType>

export function isOpenMetrics (register: MetricsRegister): boolean {
  return register.contentType === openMetricsContentType
}

/** One of OpenMetrics: only there are exemplars. */
export function newRegister (): Registry<OpenMetricsContentType> {
  const register = new Registry<OpenMetricsContentType>()
  register.setContentType(openMetricsContentType)
  return register
}

/** Makes metrics that a register does not have yet. */
export function add<T> (register: MetricsRegister, name: string, make: (name: string) => T): T {
  // prom-client takes the ending off the names of counters that were scraped as OpenMetrics.
  if (register.getSingleMetric(name) !== undefined) throw new MetricsOptions(`register: it has ${name} already, from another plugin or another instance of this one: give it another registry or namePrefix`)
  return make(name)
}
