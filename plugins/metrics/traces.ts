import type { SpanContext } from '@opentelemetry/api'
import type { TraceOf } from './durations.ts'

/** Where `@opentelemetry/api` is installed, it knows. */
export async function findTraces (load = async () => await import('@opentelemetry/api')): Promise<TraceOf | null> {
  try {
    const { trace, TraceFlags } = await load()
    return () => exemplarOf(trace.getActiveSpan()?.spanContext(), TraceFlags.SAMPLED)
  } catch {
    return null
  }
}

function exemplarOf (context: SpanContext | undefined, sampled: number): ReturnType<TraceOf> {
  return context === undefined || (context.traceFlags & sampled) === 0 ? null : { trace_id: context.traceId, span_id: context.spanId }
}
