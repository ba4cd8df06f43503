import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Counter } from 'prom-client'
import { Durations, type Series } from './durations.ts'
import { add, type MetricsRegister } from './register.ts'
import type { TraceOf } from './traces.ts'

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
/** For methods that few servers have, and for URLs that are those of no route. */
const OTHER = 'other'

const kBegan = Symbol('fastify-token-registry metrics began')
const kCounted = Symbol('fastify-token-registry metrics counted')

interface MeasuredRequest extends FastifyRequest {
  /** By the monotonic clock. */
  [kBegan]?: number
  /** Where it was counted. */
  [kCounted]?: Count
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
      request[kBegan] = performance.now()
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
    const { [kCounted]: before, [kBegan]: began } = request
    request[kCounted] = count
    // A hook after this one failed, so that it is answered otherwise.
    if (before !== undefined) before.value--
    // Where the server logs requests Fastify knows. Else, what a hook before ours refused took no time that is known.
    else durations.observe((elapsedTime > 0 || began === undefined ? elapsedTime : performance.now() - began) / 1000)
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
