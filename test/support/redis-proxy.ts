import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import type { Test } from 'tap'

/** A connection that the proxy carries. */
export interface Carried {
  /** What the client has sent so far. */
  readonly sent: string
}

export interface RedisProxy {
  readonly url: string
  readonly port: number
  /** Carries nothing more on connections there are now, without closing them; all where none is chosen. */
  halt (chosen?: (connection: Carried) => boolean): void
  /** Takes new connections, and carries nothing on them either. */
  haltNew (halted: boolean): void
  /** Ends all connections, and takes no more. */
  end (): void
}

/** A way to Redis that can break as networks do: in silence. */
export async function redisProxy (t: Test, target: number): Promise<RedisProxy> {
  const connections = new Set<{ sent: string, client: Socket, upstream: Socket }>()
  let silent = false
  const server = createServer(client => {
    client.on('error', () => {})
    if (silent) return
    const connection = { sent: '', client, upstream: connect(target, '127.0.0.1') }
    connections.add(connection)
    client.on('data', (chunk: Buffer) => { connection.sent += chunk.toString('latin1') })
    for (const [socket, other] of [[client, connection.upstream], [connection.upstream, client]] as const) {
      socket.on('error', () => {}).on('close', () => {
        connections.delete(connection)
        other.destroy()
      })
      socket.pipe(other)
    }
  })
  const all = new Set<Socket>()
  server.on('connection', socket => { all.add(socket.once('close', () => { all.delete(socket) })) })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const end = (): void => {
    server.close()
    for (const socket of all) socket.destroy()
    for (const { upstream } of connections) upstream.destroy()
  }
  t.teardown(end)

  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    halt: (chosen = () => true) => {
      for (const connection of connections) {
        if (!chosen(connection)) continue
        connection.client.unpipe().pause()
        connection.upstream.unpipe().pause()
      }
    },
    haltNew: halted => { silent = halted },
    end
  }
}
