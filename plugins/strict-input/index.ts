import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { Ajv2019 } from 'ajv/dist/2019.js'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { InputOptions } from './errors.ts'
import { readForm } from './form.ts'
import { headFault } from './head.ts'
import { readJson } from './json.ts'
import { validationError } from './message.ts'
import { readText } from './text.ts'
import { strictCompiler } from './validation.ts'

const Options = Type.Object({
  form: Type.Boolean({ default: false, description: 'read application/x-www-form-urlencoded bodies too' }),
  ajv: Type.Optional(Type.Unsafe<(ajv: Ajv2019) => void>(Type.Function([], Type.Void(), { description: 'adds keywords and formats to each Ajv' })))
}, { additionalProperties: false })

export type StrictInputOptions = Partial<Static<typeof Options>>

/** Marks a context whose requests are checked already, by a registration in it or above it. */
const checksHead = Symbol('strict-input')

/**
 * Makes the context that registers it strict, with all contexts within it. A plugin that exports routes registers it beside them, and so has them
 * strict wherever they are mounted.
 *
 * @throws {InputOptions} where an option is not what it may be
 */
const strictInput: FastifyPluginAsync<StrictInputOptions> = async (app, given) => {
  const { form, ajv } = checked(given)

  read(app, 'application/json', readJson)
  read(app, 'text/plain', readText)
  if (form) read(app, 'application/x-www-form-urlencoded', readForm)

  validate(app)
  // A context that adds schemas of its own would go back to Fastify's compiler.
  app.addHook('onRegister', validate)
  app.setSchemaErrorFormatter(validationError)

  if (app.hasDecorator(checksHead)) return
  app.decorate(checksHead, true)
  app.addHook('onRequest', (request, _reply, done) => done(headFault(request)))

  function validate (context: FastifyInstance): void {
    context.setValidatorCompiler(strictCompiler(() => context.getSchemas(), ajv))
  }
}

function read (app: FastifyInstance, type: string, parse: (body: Buffer) => unknown): void {
  app.removeContentTypeParser(type)
  app.addContentTypeParser(type, { parseAs: 'buffer' }, async (_request: unknown, body: Buffer) => parse(body))
}

function checked (given: StrictInputOptions): Static<typeof Options> {
  const options = Value.Default(Options, { ...given })
  const fault = Value.Errors(Options, options).First()
  if (fault !== undefined) throw new InputOptions(`${fault.path.slice(1)} is ${JSON.stringify(fault.value)}: ${fault.message}`)
  return options as Static<typeof Options>
}

export default fp(strictInput, { name: 'strict-input', fastify: '5.x' })
export { asInputError } from './database.ts'
export { InputBody, InputHeader, InputMediaType, InputOptions, InputRefused, InputUrl, InputValidation } from './errors.ts'
export { strictServerOptions } from './server-options.ts'
