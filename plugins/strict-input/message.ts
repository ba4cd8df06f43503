import type { FastifySchemaValidationError } from 'fastify'
import { InputValidation } from './errors.ts'
import { shown } from './text.ts'

/** Keywords that only say that the errors beside them are alternatives. */
const composite = new Set(['anyOf', 'oneOf', 'if'])

/**
 * What a caller is told of a part that is not what the schema says: which field, and what to change. Never the value.
 *
 * @param part `body`, `querystring`, `params` or `headers`
 */
export function validationError (errors: readonly FastifySchemaValidationError[], part: string): Error {
  const single = errors.filter(error => !composite.has(error.keyword))
  const sentences = (single.length > 0 ? single : errors).map(error => sentence(error, part))
  return new InputValidation([...new Set(sentences)].join(', or '))
}

function sentence ({ instancePath, keyword, params, message }: FastifySchemaValidationError, part: string): string {
  const place = part + instancePath.split('/').map((name, i) => i === 0 ? '' : `/${shown(name)}`).join('')
  switch (keyword) {
    case 'unevaluatedProperties': return `${place} has an unknown field ${shown(String(params['unevaluatedProperty']))}: remove it`
    case 'additionalProperties': return `${place} has an unknown field ${shown(String(params['additionalProperty']))}: remove it`
    case 'required': return `${place} lacks the field ${String(params['missingProperty'])}: add it`
    case 'const': return `${place} must be ${JSON.stringify(params['allowedValue'])}`
    case 'enum': return `${place} must be one of ${JSON.stringify(params['allowedValues'])}`
    default: return `${place} ${message}`
  }
}
