import { context, createContextKey, propagation, SpanKind, SpanStatusCode, trace, type Attributes, type Context, type Span, type Tracer } from '@opentelemetry/api'
import type { FastifyRequest } from 'fastify'
import type { Observed, Observer } from '../token-registry/index.ts'

/** A span for each operation of the registry, call of its store, and commit of the audit log: nested, in the trace of the request. */
export function spanObserver (tracer: Tracer, store: string): Observer {
  return async (observed, work) => {
    const { name, kind, attributes } = describe(observed, store)
    return await tracer.startActiveSpan(name, { kind, attributes }, contextOf(observed.request), async span => {
      try {
        const result = await work()
        span.end()
        return result
      } catch (error) {
        tellError(span, error)
        span.end()
        throw error
      }
    })
  }
}

/** Named as the semantic conventions say, where they say anything. */
function describe ({ layer, name }: Observed, store: string): { name: string, kind: SpanKind, attributes: Attributes } {
  if (layer === 'store') return { name: `${name} ${store}`, kind: SpanKind.CLIENT, attributes: { 'db.system.name': store, 'db.operation.name': name } }
  const prefix = layer === 'registry' ? 'token_registry' : layer
  return { name: `${prefix}.${name}`, kind: SpanKind.INTERNAL, attributes: {} }
}

/** Whether an SDK has been started. */
export function keepsContext (): boolean {
  const key = createContextKey('fastify-token-registry')
  return context.with(context.active().setValue(key, true), () => context.active().getValue(key) === true)
}

/** Where nothing in this process has begun a span for the request, it goes on with the caller's. */
export function contextOf (request: FastifyRequest | null): Context {
  const active = context.active()
  return request === null || trace.getSpan(active) !== undefined ? active : propagation.extract(active, request.headers)
}

/** By its code: a message may quote what a caller sent. Who was refused made no error of the server's. */
function tellError (span: Span, error: unknown): void {
  const { code, name, critical, statusCode } = Object(error) as { code?: unknown, name?: unknown, critical?: unknown, statusCode?: unknown } // whatever was thrown
  const type = typeof code === 'string' ? code : String(name)
  span.setAttribute('error.type', type)
  const refused = critical === false || (critical === undefined && typeof statusCode === 'number' && statusCode < 500)
  if (!refused) span.setStatus({ code: SpanStatusCode.ERROR, message: type })
}
