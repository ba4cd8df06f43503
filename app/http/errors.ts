import { STATUS_CODES } from 'node:http'
import type { FastifyError, FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { TokenInvalid } from 'fastify-token-registry'
import { asInputError } from 'fastify-token-registry/strict-input'
import { urlFault } from './unreadable-urls.ts'

/** Answers every error in one shape, with the id of the request. What went wrong inside stays in the log. */
const errors: FastifyPluginAsync = async app => {
  app.setErrorHandler<FastifyError>((given, request, reply) => {
    const error = asInputError(given)
    const { statusCode = 500, code = 'APP_FAILED', message } = error
    if (statusCode >= 500) request.log.error({ err: error }, 'failed')
    else request.log.info({ code, cause: codeOf(error.cause), statusCode }, 'refused')
    // What an error says of itself for the caller, as retry-after.
    if ('headers' in error && typeof error.headers === 'object') reply.headers({ ...error.headers })
    // The registry's hook says so itself; what a handler calls of it, or of a store, cannot.
    if (statusCode === 503 && !reply.hasHeader('retry-after')) reply.header('retry-after', '1')
    // RFC 9110, section 15.5.2: each 401 has it. The registry's hook sets its own.
    if (statusCode === 401 && !reply.hasHeader('www-authenticate')) {
      reply.header('www-authenticate', error instanceof TokenInvalid ? 'Bearer error="invalid_token"' : 'Bearer')
    }
    return answer(request, reply, statusCode, code, statusCode === 500 ? 'Something failed on the server' : message)
  })

  app.setNotFoundHandler((request, reply) => {
    const fault = urlFault(request)
    if (fault !== undefined) throw fault
    return answer(request, reply, 404, 'APP_ROUTE_NOT_FOUND', 'There is no such route: see /docs')
  })
}

function answer (request: FastifyRequest, reply: FastifyReply, statusCode: number, code: string, message: string): FastifyReply {
  return reply.code(statusCode).send({ statusCode, code, error: STATUS_CODES[statusCode] ?? 'Error', message, requestId: request.id })
}

function codeOf (error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

export default fp(errors, { name: 'app-errors', fastify: '5.x' })
