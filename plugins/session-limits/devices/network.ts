import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/**
 * The network of an address, as large as one household or office: /24 of IPv4, /48 of IPv6 (RFC 6177). An IPv4 address in an IPv6 one is IPv4.
 *
 * @returns null for what is no address
 */
export function networkOf (address: string): string | null {
  // ipaddr.js alone would take "1", too.
  if (isIP(address) === 0) return null
  const ip = ipaddr.process(address)
  return ip instanceof ipaddr.IPv6
    ? ip.parts.slice(0, 3).map(part => part.toString(16)).join(':')
    : ip.octets.slice(0, 3).join('.')
}
