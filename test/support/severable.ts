import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'

export interface Severable {
  readonly url: string
  /** Ends all connections, and refuses new ones. */
  cut (): Promise<void>
  mend (): Promise<void>
}

/** A way to PostgreSQL that can be cut, as an outage does. */
export async function severable (t: Test, databaseUrl: string): Promise<Severable> {
  const url = new URL(databaseUrl)
  const host = url.searchParams.get('host') ?? url.hostname
  const target = Number(url.port === '' ? 5432 : url.port)
  const sockets = new Set<Socket>()
  const server = createServer(client => {
    const upstream = host.startsWith('/') ? connect(join(host, `.s.PGSQL.${target}`)) : connect(target, host)
    for (const [socket, other] of [[client, upstream], [upstream, client]] as const) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
      socket.pipe(other)
    }
  })
  const listen = async (port: number): Promise<void> => { await once(server.listen(port, '127.0.0.1'), 'listening') }
  const cut = async (): Promise<void> => {
    const closed = once(server, 'close')
    server.close()
    for (const socket of sockets) socket.destroy()
    await closed
  }
  await listen(0)
  t.teardown(async () => { if (server.listening) await cut() })

  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  url.searchParams.delete('host')
  url.hostname = '127.0.0.1'
  url.port = String(port)
  return { url: url.href, cut, mend: () => listen(port) }
}
