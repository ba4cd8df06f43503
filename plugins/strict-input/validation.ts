import addFormats from 'ajv-formats'
import { Ajv2019, type AnySchema, type Options } from 'ajv/dist/2019.js'
import type { FastifySchemaCompiler } from 'fastify'
import { strictSchema, type SchemaRules } from './schema.ts'

interface Part extends SchemaRules {
  ajv: Options
}

const body: Part = { ajv: {}, closed: true, lowerCase: false }

const fromText: Options = {
  // A value makes a number, or a list of one; several values never make one.
  coerceTypes: 'array',
  // Ajv makes Infinity of "1e400", and then holds only finite numbers to their maximum.
  strictNumbers: false
}
const query: Part = { ajv: fromText, closed: true, lowerCase: false }
// Every request carries headers that no schema names.
const headers: Part = { ajv: fromText, closed: false, lowerCase: true }
const textParts = new Map<string | undefined, Part>([['querystring', query], ['query', query], ['params', query], ['headers', headers]])

const options: Options = {
  useDefaults: true,
  removeAdditional: false,
  // Collecting every error lets one request cost without bound.
  allErrors: false,
  addUsedSchema: false,
  // It would report the keywords that strictSchema adds to schemas without a type.
  strictTypes: false,
  // Each instance would compile the meta-schema anew, for 20 ms: `checked` has one for all.
  meta: false,
  validateSchema: false
}

/**
 * A validator compiler for one Fastify context.
 *
 * @param shared the schemas that the context's `$ref`s may name; asked when the first route is compiled
 * @param configure adds keywords and formats to each Ajv that is made
 */
export function strictCompiler (shared: () => Record<string, unknown>, configure?: (ajv: Ajv2019) => void): FastifySchemaCompiler<unknown> {
  const instances = new Map<Part, Ajv2019>()

  return ({ schema, httpPart }) => {
    const part = textParts.get(httpPart) ?? body
    const ajv = instances.get(part) ?? create(part)
    instances.set(part, ajv)
    return ajv.compile(checked(strictSchema(schema, part, part.closed)))
  }

  function create (part: Part): Ajv2019 {
    const ajv = new Ajv2019({ ...options, ...part.ajv })
    addFormats.default(ajv)
    configure?.(ajv)
    for (const schema of Object.values(shared())) ajv.addSchema(checked(strictSchema(schema, part, false)))
    return ajv
  }
}

const metaSchema = new Ajv2019()

function checked (schema: unknown): AnySchema {
  if (metaSchema.validate<AnySchema>('https://json-schema.org/draft/2019-09/schema', schema)) return schema
  throw new TypeError(metaSchema.errorsText(metaSchema.errors, { dataVar: 'schema' }))
}
