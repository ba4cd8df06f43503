import type { FastifyRequest } from 'fastify'
import { maskIp } from 'fastify-token-registry/audit'
import { clientAddress } from './client-address.ts'

/** What must not stand in a log, should somebody write an object that has it. */
const secrets = ['authorization', 'cookie', 'password', 'token', 'accessToken', 'refreshToken']
/** What came in before a request could be read: Node adds it to its errors. */
const packets = ['rawPacket', '*.rawPacket']
const stacks = ['err.stack', 'err.*.stack', 'err.aggregateErrors[*].stack']

/** Options of the logger: it writes no secrets, and in production no stacks. */
export function logOptions (production: boolean) {
  return {
    serializers: { req: requestLine },
    redact: {
      paths: [...secrets.flatMap(name => [name, `*.${name}`]), ...packets, ...production ? stacks : []],
      censor: (_value: unknown, path: string[]) => ['stack', 'rawPacket'].includes(String(path.at(-1))) ? undefined : '[redacted]'
    }
  }
}

function requestLine ({ method, url, host, ip }: FastifyRequest) {
  // Some clients put a token into the query. Whole addresses stand in the audit log alone, from where a person can be erased.
  return { method, url: url.replace(/[?#].*/s, ''), host, remoteAddress: maskIp(clientAddress({ ip }) ?? '') }
}
