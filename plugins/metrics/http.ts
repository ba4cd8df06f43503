import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Counter } from 'prom-client'
import { Durations, type Series, type TraceOf } from './durations.ts'
import { add, type MetricsRegister } from './register.ts'

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
/** For methods that few servers have, and for URLs that are those of no route. */
const OTHER = 'other'

const kMeasure = Symbol('fastify-token-registry metrics')

/** What an instance knows of a request. */
interface Measure {
  of: HttpMetrics
  /** By the monotonic clock; null where a hook before ours refused it. */
  began: number | null
  /** Where it was counted. */
  counted: Count | null
  /** Of an instance that this one is in. */
  outer: Measure | undefined
}

interface MeasuredRequest extends FastifyRequest {
  [kMeasure]?: Measure
}

interface Count {
  value: number
}

interface Route {
  labels: { method: string, route: string }
  /** Answers by status. */
  counts: Map<number, Count>
  durations: Series
}

/** Measures requests by the patterns of routes, never by URLs. */
export class HttpMetrics {
  readonly #durations: Durations
  /** By pattern, then by method. */
  readonly #routes = new Map<string, Map<string, Route>>()

  constructor (register: MetricsRegister, buckets: readonly number[], traceOf: TraceOf | null) {
    const routes = this.#routes
    const total = add(register, 'http_requests_total', name => new Counter({
      name,
      help: 'Requests that were answered.',
      labelNames: ['method', 'route', 'status'],
      registers: [register],
      collect () {
        total.reset()
        for (const byMethod of routes.values()) for (const { labels, counts } of byMethod.values()) for (const [status, { value }] of counts) total.inc({ ...labels, status: String(status) }, value)
      }
    }))
    this.#durations = new Durations(register, { name: 'http_request_duration_seconds', help: 'How long it took until an answer was about to be sent.', buckets, traceOf })
  }

  /** By onSend: to be told when an answer has left costs several times as much as all that is done here. */
  wire (app: FastifyInstance): void {
    app.addHook('onRequest', (request: MeasuredRequest, _reply, done) => {
      this.#measure(request, performance.now())
      done()
    })
    app.addHook('onSend', (request: MeasuredRequest, reply, payload, done) => {
      this.#answered(request, reply)
      done(null, payload)
    })
  }

  #answered (request: MeasuredRequest, { statusCode, elapsedTime }: FastifyReply): void {
    const { counts, durations } = this.#routeOf(request.routeOptions.url ?? OTHER, request.method)
    let count = counts.get(statusCode)
    if (count === undefined) counts.set(statusCode, count = { value: 0 })
    count.value++
    let measure = request[kMeasure]
    while (measure !== undefined && measure.of !== this) measure = measure.outer
    measure ??= this.#measure(request, null)
    const { began, counted } = measure
    measure.counted = count
    // A hook after this one failed, so that it is answered otherwise.
    if (counted !== null) counted.value--
    // Where the server logs requests Fastify knows. Else, what a hook before ours refused took no time that is known.
    else durations.observe((elapsedTime > 0 || began === null ? elapsedTime : performance.now() - began) / 1000)
  }

  #measure (request: MeasuredRequest, began: number | null): Measure {
    const measure = { of: this, began, counted: null, outer: request[kMeasure] }
    request[kMeasure] = measure
    return measure
  }

  #routeOf (pattern: string, asked: string): Route {
    const method = methods.has(asked) ? asked : OTHER
    return this.#routes.get(pattern)?.get(method) ?? this.#add(pattern, method)
  }

  #add (pattern: string, method: string): Route {
    const labels = { method, route: pattern }
    const route = { labels, counts: new Map<number, Count>(), durations: this.#durations.series(labels) }
    const byMethod = this.#routes.get(pattern) ?? new Map<string, Route>()
    this.#routes.set(pattern, byMethod.set(method, route))
    return route
  }
}
