import type { Address, RedisStoreOptions } from 'fastify-token-registry/redis-store'

/** Which Redis: what redis-store is registered with. */
export type RedisPlace = Pick<RedisStoreOptions, 'url' | 'sentinels' | 'name' | 'nodes' | 'username' | 'password' | 'database'>

const form = /^(rediss?|redis\+sentinel|redis\+cluster):\/\/(?:([^/@?#]*)@)?([^/@?#]+)(?:\/([^?#]*))?(\?family=[046])?$/

/**
 * `redis://` and `rediss://` name one server, `redis+cluster://` some of a Cluster, `redis+sentinel://host:port,host:port/name[/database]` Sentinels
 * and the group that they watch. User and password are those of the servers, never of the Sentinels.
 *
 * @throws where it is none
 */
export function redisUrl (text: string): RedisPlace {
  const [, scheme, credentials, hosts = '', path = '', query] = form.exec(text) ?? []
  const access = credentials === undefined ? {} : accessOf(credentials)
  switch (scheme) {
    case 'redis': case 'rediss':
      addressOf(hosts)
      databaseOf(path)
      return { url: text }
    case 'redis+sentinel': {
      const [name = '', database = '', ...rest] = path.split('/')
      if (name === '' || rest.length > 0 || query !== undefined) return refuse()
      return { sentinels: addresses(hosts), name: decodeURIComponent(name), database: databaseOf(database), ...access }
    }
    case 'redis+cluster':
      return path === '' && query === undefined ? { nodes: addresses(hosts), ...access } : refuse()
  }
  return refuse()
}

/** `user:password` or `:password`, percent-encoded. */
function accessOf (text: string): Pick<RedisPlace, 'username' | 'password'> {
  const [username = '', password = '', ...rest] = text.split(':').map(decodeURIComponent)
  if (password === '' || rest.length > 0) refuse()
  return { ...username !== '' && { username }, password }
}

function addresses (text: string): Address[] {
  return text.split(',').map(part => {
    const { host, port } = addressOf(part)
    return port === '' ? refuse() : { host, port: Number(port) }
  })
}

function addressOf (text: string): { host: string, port: string } {
  const { hostname, port, host } = new URL(`redis://${text}`)
  if (hostname === '' || host !== text || port === '0') refuse()
  return { host: hostname.replace(/^\[(.*)\]$/, '$1'), port }
}

function databaseOf (text: string): number {
  return /^\d{0,9}$/.test(text) ? Number(text) : refuse()
}

function refuse (): never {
  throw new Error('no URL of a Redis')
}
