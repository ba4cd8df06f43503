import ipaddr from 'ipaddr.js'

/** An address for logs: `j***@example.com`. */
export function maskEmail (email: string): string {
  const at = email.lastIndexOf('@')
  const [first = ''] = email
  return at < 1 ? '***' : `${first}***${email.slice(at)}`
}

/** The network of an address, for logs: an IPv4 /24, an IPv6 /48. */
export function maskIp (ip: string): string {
  if (!ipaddr.isValid(ip)) return '***'
  const address = ipaddr.process(ip)
  const [bytes, kept] = [address.toByteArray(), address.kind() === 'ipv4' ? 3 : 6]
  return `${ipaddr.fromByteArray(bytes.map((byte, index) => index < kept ? byte : 0)).toString()}/${kept * 8}`
}
