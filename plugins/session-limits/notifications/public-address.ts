import type { LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'
import { Undeliverable } from './event.ts'

const globalUnicast = ipaddr.parseCIDR('2000::/3')
/** RFC 6052 section 2.1: the IPv4 address is in the last 4 bytes */
const nat64 = ipaddr.parseCIDR('64:ff9b::/96')

/** Whether an address, as a resolver gives it, leads into the public internet, and is of no special use (RFC 6890). */
export function isPublic (address: string): boolean {
  if (!ipaddr.isValid(address)) return false
  const ip = ipaddr.process(address)
  if (ip.kind() === 'ipv4') return ip.range() === 'unicast'
  if (ip.match(nat64)) return isPublic(ipaddr.fromByteArray(ip.toByteArray().slice(12)).toString())
  return ip.range() === 'unicast' && ip.match(globalUnicast)
}

/** A lookup that fails where a name leads to what is not public: what was checked is what is connected to, so that no second answer counts. */
export function publicOnly (lookup: LookupFunction): LookupFunction {
  return (name, options, callback) => lookup(name, options, (error, addresses, family) => {
    // Where there is an error there are none.
    const found = typeof addresses === 'string' ? [addresses] : addresses?.map(({ address }) => address)
    const wrong = found?.find(address => !isPublic(address))
    const refusal = wrong === undefined ? null : new Undeliverable(`${name} leads to ${wrong}, which is not public`)
    callback(error ?? refusal, addresses, family)
  })
}
