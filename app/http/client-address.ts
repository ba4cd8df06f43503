import { isIP } from 'node:net'
import type { FastifyRequest } from 'fastify'

/** The address of the client, without the port that some proxies forward with it; null where what they forward is none. */
export function clientAddress ({ ip }: Pick<FastifyRequest, 'ip'>): string | null {
  const [, v6, v4] = /^(?:\[(.+)\](?::\d+)?|([\d.]+):\d+)$/.exec(ip) ?? []
  const address = v6 ?? v4 ?? ip
  return isIP(address) === 0 ? null : address
}
