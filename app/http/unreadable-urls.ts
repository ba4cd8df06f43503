import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { InputUrl } from 'fastify-token-registry/strict-input'

const UrlTooLong = createError('APP_URL_TOO_LONG', 'A part of the URL has more than 256 characters: shorten it', 414)

const refused = new WeakMap<IncomingMessage, { id: string, error: Error }>()

/**
 * Options of Fastify. A request whose URL the router cannot read runs, under the same id, through the hooks to the not-found handler:
 * it is limited, gets the headers of CORS and helmet, and is answered as all others are.
 */
export const unreadableUrls = {
  genReqId: (raw: IncomingMessage): string => refused.get(raw)?.id ?? randomUUID(),

  frameworkErrors ({ code }: FastifyError, { id, raw, server }: FastifyRequest, reply: FastifyReply): void {
    refused.set(raw, { id, error: code === 'FST_ERR_MAX_PARAM_LENGTH' ? new UrlTooLong() : new InputUrl() })
    raw.url = '/unreadable-url'
    server.routing(raw, reply.raw)
  }
}

/** What is wrong with the URL of a request that came to the not-found handler; undefined where it merely leads nowhere. */
export function urlFault ({ raw }: FastifyRequest): Error | undefined {
  return refused.get(raw)?.error
}
