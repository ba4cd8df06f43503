/** How the schema of one part of a request is made strict. */
export interface SchemaRules {
  /** Objects refuse the fields that their schema does not name. */
  closed: boolean
  /** Names are header names, which Node gives in lower case. */
  lowerCase: boolean
}

/**
 * Keywords whose schemas apply to what the value holds, and those that apply to the value itself. `not`, `if`, `contains` and
 * `propertyNames` only ask, and refuse nothing by themselves: they stay as they are.
 */
const ofContents = new Set(['properties', 'patternProperties', 'additionalProperties', 'unevaluatedProperties', 'items', 'additionalItems', 'unevaluatedItems'])
const ofItself = new Set(['allOf', 'anyOf', 'oneOf', 'then', 'else', 'dependentSchemas', 'dependencies', '$defs', 'definitions'])
/** Of both, those that hold schemas by name. */
const byName = new Set(['properties', 'patternProperties', 'dependentSchemas', 'dependencies', '$defs', 'definitions'])
/** Keywords by which a schema says something of an object's fields. */
const ofFields = ['properties', 'patternProperties', 'required', 'dependentSchemas', 'dependencies', 'allOf', 'anyOf', 'oneOf', 'if', '$ref']

/**
 * A copy of a JSON Schema that leaves nothing open by omission.
 *
 * An object refuses fields that its schema does not name, unless the schema says otherwise (`additionalProperties`, `unevaluatedProperties`). It
 * is done by `unevaluatedProperties: false`, once for each value: unlike `additionalProperties: false` it knows the fields that `$ref`, `allOf` and `anyOf` name.
 *
 * A number without a maximum or minimum is held to ±(2^53 − 1), the range in which integers are exact.
 *
 * @param closed whether the schema's own fields are closed: not those of a definition, which each `$ref` to it closes
 */
export function strictSchema (schema: unknown, rules: SchemaRules, closed: boolean): unknown {
  if (!isRecord(schema)) return schema

  const result: Record<string, unknown> = {}
  for (const [keyword, value] of Object.entries(schema)) {
    if (ofContents.has(keyword)) result[keyword] = within(keyword, value, rules, rules.closed)
    else if (ofItself.has(keyword)) result[keyword] = within(keyword, value, rules, false)
    else result[keyword] = value
  }
  if (rules.lowerCase && Array.isArray(result['required'])) result['required'] = result['required'].map(name => String(name).toLowerCase())
  if (closed && namesFields(result)) result['unevaluatedProperties'] ??= false
  if (isNumber(result)) bound(result)
  return result
}

function within (keyword: string, value: unknown, rules: SchemaRules, closed: boolean): unknown {
  if (Array.isArray(value)) return value.map(item => strictSchema(item, rules, closed))
  if (!byName.has(keyword) || !isRecord(value)) return strictSchema(value, rules, closed)

  const lowerCase = rules.lowerCase && keyword === 'properties'
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [lowerCase ? name.toLowerCase() : name, strictSchema(item, rules, closed)]))
}

function namesFields (schema: Record<string, unknown>): boolean {
  return types(schema).includes('object') || ofFields.some(keyword => keyword in schema)
}

function isNumber (schema: Record<string, unknown>): boolean {
  return types(schema).includes('integer') || types(schema).includes('number')
}

function bound (schema: Record<string, unknown>): void {
  if (!('exclusiveMaximum' in schema)) schema['maximum'] ??= Number.MAX_SAFE_INTEGER
  if (!('exclusiveMinimum' in schema)) schema['minimum'] ??= Number.MIN_SAFE_INTEGER
}

function types (schema: Record<string, unknown>): unknown[] {
  return Array.isArray(schema['type']) ? schema['type'] : [schema['type']]
}

/** Whether a value has fields by name. */
export function isRecord (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
