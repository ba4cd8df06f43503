import type { IncomingMessage } from 'node:http'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { InputUrl, InputValidation } from 'fastify-token-registry/strict-input'

const refused = new WeakMap<IncomingMessage, Error>()

/**
 * Options of Fastify. A request whose URL the router cannot read runs, under the same id, through the hooks to the not-found handler:
 * it is limited, gets the headers of CORS and helmet, and is answered as all others are.
 */
export const unreadableUrls = {
  frameworkErrors ({ code }: FastifyError, { id, raw, server }: FastifyRequest, reply: FastifyReply): void {
    // No schema of a parameter takes more either: no 414, which would tell ids that are too long from others.
    const error = code === 'FST_ERR_MAX_PARAM_LENGTH' ? new InputValidation('A part of the URL has more than 256 characters: shorten it') : new InputUrl()
    refused.set(raw, error)
    raw.headers['x-request-id'] = id
    raw.url = '/unreadable-url'
    server.routing(raw, reply.raw)
  }
}

/** What is wrong with the URL of a request that came to the not-found handler; undefined where it merely leads nowhere. */
export function urlFault ({ raw }: FastifyRequest): Error | undefined {
  return refused.get(raw)
}
