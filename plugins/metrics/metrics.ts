import { prometheusContentType } from 'prom-client'
import type { Observer, TokenRegistry } from '../token-registry/index.ts'
import type { TraceOf } from './durations.ts'
import { asPlainText, takesOpenMetrics, withNaN } from './exposition.ts'
import { HttpMetrics } from './http.ts'
import { operationObserver } from './operations.ts'
import type { ResolvedOptions } from './options.ts'
import { processMetrics } from './process.ts'
import { add, isOpenMetrics, type MetricsRegister } from './register.ts'
import { Scraped, type Warn } from './scraped.ts'

export interface Scrape {
  contentType: string
  text: string
}

/** What a service measures, for Prometheus. */
export class Metrics {
  /** Services add their own metrics to it. */
  readonly register: MetricsRegister
  /** @internal */
  readonly observer: Observer
  /** @internal */
  readonly http: HttpMetrics | null
  readonly #scraped: Scraped

  constructor (registry: TokenRegistry, options: ResolvedOptions, traceOf: TraceOf | null, warn: Warn) {
    const { register, namePrefix, labels, buckets, http, process } = options
    this.register = register
    if (Object.keys(labels).length > 0) register.setDefaultLabels({ ...labels })
    this.#scraped = new Scraped(registry, register, options, warn)
    this.observer = operationObserver(register, { namePrefix, buckets: buckets.operation, traceOf, store: registry.storeName })
    this.http = http ? new HttpMetrics(register, buckets.http, traceOf) : null
    if (process) for (const [name, metric] of processMetrics(isOpenMetrics(register))) add(register, name, () => register.registerMetric(metric))
  }

  /**
   * All metrics as they are now.
   *
   * @param accept the header of who scrapes: OpenMetrics where it is taken, else the text format 0.0.4 of Prometheus
   */
  async scrape (accept?: string): Promise<Scrape> {
    // What plugins have begun to count since.
    this.#scraped.read()
    const text = withNaN(await this.register.metrics())
    if (!isOpenMetrics(this.register) || takesOpenMetrics(accept)) return { contentType: this.register.contentType, text }
    return { contentType: prometheusContentType, text: asPlainText(text) }
  }
}
