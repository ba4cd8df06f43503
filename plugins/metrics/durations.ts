import type { Histogram, Metric } from 'prom-client'
import { add, isOpenMetrics, type MetricsRegister } from './register.ts'

/** The trace that is under way, for exemplars; null where it is not recorded. */
export type TraceOf = () => { trace_id: string, span_id: string } | null

interface Exemplar {
  labelSet: Record<string, string>
  value: number
  /** seconds since the epoch */
  timestamp: number
}

type Value = Awaited<ReturnType<Histogram['get']>>['values'][number] & { exemplar?: Exemplar }

export interface DurationsOptions {
  name: string
  help: string
  /** Upper bounds in seconds, ascending. */
  buckets: readonly number[]
  /** Where it knows one, and the register takes it, an observation has it as exemplar. */
  traceOf: TraceOf | null
}

/**
 * A histogram of durations, as a register of prom-client reads it. Who observes keeps the series: to look it up by its labels, as prom-client's own does at
 * each observation, costs ten times as much as to count.
 */
export class Durations {
  readonly name: string
  readonly help: string
  readonly type = 'histogram'
  readonly #buckets: readonly number[]
  readonly #traceOf: TraceOf | null
  readonly #all: Series[] = []

  /** @throws {MetricsOptions} where the register has one of that name */
  constructor (register: MetricsRegister, { name, help, buckets, traceOf }: DurationsOptions) {
    this.name = name
    this.help = help
    this.#buckets = buckets
    this.#traceOf = isOpenMetrics(register) ? traceOf : null
    // A register asks no more of a metric than what is here.
    add(register, name, () => register.registerMetric(this as unknown as Metric))
  }

  /** A series of its own: one for each set of labels. */
  series (labels: Record<string, string>): Series {
    const series = new Series(labels, this.#buckets, this.#traceOf)
    this.#all.push(series)
    return series
  }

  async get (): Promise<{ name: string, help: string, type: 'histogram', aggregator: 'sum', values: Value[] }> {
    const { name, help, type } = this
    return { name, help, type, aggregator: 'sum', values: this.#all.flatMap(series => series.values(name)) }
  }

  reset (): void {
    for (const series of this.#all) series.reset()
  }
}

export class Series {
  readonly #labels: Record<string, string>
  readonly #buckets: readonly number[]
  readonly #traceOf: TraceOf | null
  /** By bucket, where there are any; beyond all bounds is one more. */
  #counts: number[] = []
  #exemplars: Array<Exemplar | undefined> = []
  #sum = 0

  constructor (labels: Record<string, string>, buckets: readonly number[], traceOf: TraceOf | null) {
    this.#labels = labels
    this.#buckets = buckets
    this.#traceOf = traceOf
    this.reset()
  }

  observe (seconds: number): void {
    let bucket = 0
    while (seconds > (this.#buckets[bucket] ?? Infinity)) bucket++
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1
    this.#sum += seconds
    const labelSet = this.#traceOf?.()
    if (labelSet != null) this.#exemplars[bucket] = { labelSet, value: seconds, timestamp: Date.now() / 1000 }
  }

  reset (): void {
    this.#counts = []
    this.#exemplars = []
    this.#sum = 0
  }

  values (name: string): Value[] {
    let count = 0
    const buckets = [...this.#buckets, '+Inf'].map((le, bucket): Value => {
      count += this.#counts[bucket] ?? 0
      const exemplar = this.#exemplars[bucket]
      return { metricName: `${name}_bucket`, labels: { le, ...this.#labels }, value: count, ...exemplar !== undefined && { exemplar } }
    })
    return [...buckets, { metricName: `${name}_sum`, labels: this.#labels, value: this.#sum }, { metricName: `${name}_count`, labels: this.#labels, value: count }]
  }
}
