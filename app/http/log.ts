import type { FastifyRequest } from 'fastify'

/** Options of the logger: in production it writes no stacks. */
export function logOptions (production: boolean) {
  return {
    serializers: { req: requestLine },
    ...production && { redact: { paths: ['err.stack', 'err.*.stack', 'err.aggregateErrors[*].stack'], remove: true } }
  }
}

function requestLine ({ method, url, host, ip }: FastifyRequest) {
  // Some clients put a token into the query.
  return { method, url: url.replace(/[?#].*/s, ''), host, remoteAddress: ip }
}
