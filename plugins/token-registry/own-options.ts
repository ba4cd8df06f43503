import type { FastifyInstance, FastifyRegisterOptions } from 'fastify'

type OfFastify = 'prefix' | 'logLevel' | 'logSerializers'

const quieter = ['error', 'fatal', 'silent'] as const

/** The level of the log for routes that are asked over and over: warnings, or the server's own where that tells even less. */
export function quietLevel ({ log: { level } }: FastifyInstance): 'warn' | typeof quieter[number] {
  return quieter.find(each => each === level) ?? 'warn'
}

/** What was given to a plugin, without what Fastify itself reads of it. */
export function ownOf<Options extends object> (given: FastifyRegisterOptions<Options>): Omit<Options, OfFastify> {
  const { prefix: _prefix, logLevel: _logLevel, logSerializers: _logSerializers, ...own } = given as Options & Partial<Record<OfFastify, unknown>> // Fastify calls functions before
  return own
}
