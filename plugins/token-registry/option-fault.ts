import { inspect } from 'node:util'
import type { TSchema } from '@sinclair/typebox'
import { Value, ValueErrorType, type ValueError } from '@sinclair/typebox/value'

/**
 * What is wrong with an option: its name, what it was and what it may be (the `errorMessage` of its schema). Long text, objects, and values of
 * unknown options are not repeated: they may be secrets in the wrong place.
 */
export function faultOf (schema: TSchema, value: unknown, name: string): string | null {
  const fault = Value.Errors(schema, value).First()
  return fault === undefined ? null : worded(fault, name)
}

function worded ({ type, schema, path, value, errors }: ValueError, name: string): string {
  const option = (name + path.replaceAll('/', '.')).replace(/^\./, '')
  if (type === ValueErrorType.ObjectAdditionalProperties) return `${option} is not an option: there are ${Object.keys(schema.properties).join(', ')}`

  // An object that may stand for others is the last of the choices: the fault lies deeper.
  const deeper = errors.at(-1)?.First()
  if (typeof value === 'object' && deeper !== undefined && deeper.path !== path) return worded(deeper, name)

  return `${option} is ${option.startsWith('secret') ? `of type ${typeof value}` : shown(value)}: it may be ${String(schema.errorMessage)}`
}

function shown (value: unknown): string {
  return typeof value === 'string' && value.length > 20 ? `text of ${value.length} characters` : inspect(value, { depth: -1 })
}
