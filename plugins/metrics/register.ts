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

/** Whether a register has a metric that is called so, but for the endings that OpenMetrics gives to samples. */
export function has (register: MetricsRegister, name: string): boolean {
  const family = name.replace(/_(total|bucket|count|sum|created)$/, '')
  return [name, family, `${family}_total`].some(each => register.getSingleMetric(each) !== undefined)
}

/** Makes metrics that a register does not have yet. */
export function add<T> (register: MetricsRegister, name: string, make: (name: string) => T): T {
  if (has(register, name)) throw new MetricsOptions(`register: it has ${name} already, from another plugin or another instance of this one: give it another registry or namePrefix`)
  return make(name)
}
