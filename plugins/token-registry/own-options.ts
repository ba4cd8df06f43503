import type { FastifyRegisterOptions } from 'fastify'

type OfFastify = 'prefix' | 'logLevel' | 'logSerializers'

/** What was given to a plugin, without what Fastify itself reads of it. */
export function ownOf<Options extends object> (given: FastifyRegisterOptions<Options>): Omit<Options, OfFastify> {
  const { prefix: _prefix, logLevel: _logLevel, logSerializers: _logSerializers, ...own } = given as Options & Partial<Record<OfFastify, unknown>> // Fastify calls functions before
  return own
}
