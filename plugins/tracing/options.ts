import { Type } from '@sinclair/typebox'
import { faultOf } from '../token-registry/index.ts'
import { TracingOptions } from './errors.ts'

export interface TracingPluginOptions {
  /** Whether a request is named by its `traceparent` or `x-request-id`, true by default. */
  requestIds?: boolean
  /** The header that tells it in answers, `x-request-id` by default; false for none. */
  responseHeader?: string | false
}

const Options = Type.Object({
  requestIds: Type.Optional(Type.Boolean({ errorMessage: 'true or false' })),
  responseHeader: Type.Optional(Type.Union([Type.String({ pattern: '^[a-z][a-z0-9-]{0,63}$' }), Type.Literal(false)], { errorMessage: 'a name of lower-case letters, digits and -, or false' }))
}, { additionalProperties: false })

/** @throws {TracingOptions} names the option, what it was and what it may be */
export function resolveOptions (given: TracingPluginOptions): Required<TracingPluginOptions> {
  const fault = faultOf(Options, given, '')
  if (fault !== null) throw new TracingOptions(fault)
  return { requestIds: true, responseHeader: 'x-request-id', ...given }
}
