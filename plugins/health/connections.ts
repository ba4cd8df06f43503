import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/** ms */
const OFTEN = 50

/**
 * Connections that have sent nothing yet, as browsers and pools open them ahead, hold up no closing: Node counts them as busy, and would wait a minute for
 * their first request. Those of a second address, as `localhost` has one, are not known.
 */
export function endUnused (app: FastifyInstance): void {
  const open = new Set<Socket>()
  for (const event of ['connection', 'secureConnection']) {
    app.server.on(event, (socket: Socket) => {
      open.add(socket)
      socket.once('close', () => open.delete(socket))
    })
  }

  let closing: NodeJS.Timeout | undefined
  app.addHook('preClose', async () => {
    // Some may still come until the last hook of others is done.
    closing = setInterval(() => { for (const socket of open) if (socket.bytesRead === 0) socket.destroy() }, OFTEN)
  })
  app.addHook('onClose', async () => { clearInterval(closing) })
}
