import type { ServerHttp2Session } from 'node:http2'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/** ms */
const SWEEP_EVERY = 50

/**
 * Connections hold up no closing. Node ends those that are idle when it begins. Here those end that become idle later, as one does whose answer began before;
 * those that have sent nothing yet, as browsers and pools open them ahead, which Node counts as busy; and all others, when `timeout` is over: half a request
 * would be waited for for a minute. Connections to a second address, as `localhost` may have one, are not known.
 *
 * @param timeout ms from when it begins to close
 */
export function endConnections (app: FastifyInstance, timeout: number): void {
  const open = keep<Socket>(app, ['connection', 'secureConnection'])
  const sessions = keep<ServerHttp2Session>(app, ['session'])
  let sweep: NodeJS.Timeout | undefined
  app.addHook('preClose', async () => {
    const late = performance.now() + timeout
    sweep = setInterval(() => {
      const over = performance.now() > late
      for (const socket of open) if (over || socket.bytesRead === 0) socket.destroy()
      for (const session of sessions) session.close()
      // Node takes for idle what has been answered, also where not all of it has left. A server of HTTP/2 knows no such connections.
      const sent = [...open].every(({ writableLength }) => writableLength === 0)
      if (sent && 'closeIdleConnections' in app.server) app.server.closeIdleConnections()
    }, SWEEP_EVERY)
  })
  app.addHook('onClose', async () => { clearInterval(sweep) })
}

/** What a server tells of by such events, until it is closed. */
function keep<T extends NodeJS.EventEmitter> (app: FastifyInstance, events: readonly string[]): ReadonlySet<T> {
  const kept = new Set<T>()
  for (const event of events) {
    app.server.on(event, (one: T) => {
      kept.add(one)
      one.once('close', () => kept.delete(one))
    })
  }
  return kept
}
