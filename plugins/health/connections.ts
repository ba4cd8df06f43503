import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/** ms */
const OFTEN = 50

/**
 * Connections hold up no closing. Node ends those that are idle when it begins. Here those end that become idle later, as one does whose answer began before;
 * those that have sent nothing yet, as browsers and pools open them ahead, which Node counts as busy; and all others, when `timeout` is over: half a request
 * would be waited for for a minute. Connections to a second address, as `localhost` has one, are not known.
 *
 * @param timeout ms
 */
export function endConnections (app: FastifyInstance, timeout: number): void {
  const open = new Set<Socket>()
  for (const event of ['connection', 'secureConnection']) {
    app.server.on(event, (socket: Socket) => {
      open.add(socket)
      socket.once('close', () => open.delete(socket))
    })
  }

  let closing: NodeJS.Timeout | undefined
  app.addHook('preClose', async () => {
    const late = performance.now() + timeout
    closing = setInterval(() => {
      const over = performance.now() > late
      for (const socket of open) if (over || socket.bytesRead === 0) socket.destroy()
      // A server of HTTP/2 has none.
      if ('closeIdleConnections' in app.server) app.server.closeIdleConnections()
    }, OFTEN)
  })
  app.addHook('onClose', async () => { clearInterval(closing) })
}
