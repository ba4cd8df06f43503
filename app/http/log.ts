import type { FastifyRequest } from 'fastify'
import { maskIp } from 'fastify-token-registry/audit'
import { clientAddress } from './client-address.ts'

/** Options of the logger: in production it writes no stacks. */
export function logOptions (production: boolean) {
  return {
    serializers: { req: requestLine },
    ...production && { redact: { paths: ['err.stack', 'err.*.stack', 'err.aggregateErrors[*].stack'], remove: true } }
  }
}

function requestLine ({ method, url, host, ip }: FastifyRequest) {
  // Some clients put a token into the query. Whole addresses stand in the audit log alone, from where a person can be erased.
  return { method, url: url.replace(/[?#].*/s, ''), host, remoteAddress: maskIp(clientAddress({ ip }) ?? '') }
}
