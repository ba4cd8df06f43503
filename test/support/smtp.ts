import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'

export interface SmtpServer {
  readonly url: string
  readonly connections: ReadonlySet<Socket>
  /** What was sent, as it came. */
  readonly mails: Array<{ readonly to: readonly string[], readonly content: string }>
  /** How many recipients were named. */
  asked: number
}

/**
 * A server that speaks as much SMTP as a client needs, closed with the test.
 *
 * @param answer what it says when a recipient is named
 */
export async function smtpServer (t: Test, answer: (to: string) => string = () => '250 ok'): Promise<SmtpServer> {
  const { url, connections, each } = await listening(t)
  const server: SmtpServer = { url, connections, mails: [], asked: 0 }
  each(socket => {
    converse(socket, answer, server).catch(() => socket.destroy())
  })
  return server
}

/** The URL of a server that takes connections and never greets, closed with the test. */
export async function hungServer (t: Test): Promise<string> {
  return (await listening(t)).url
}

async function listening (t: Test) {
  const connections = new Set<Socket>()
  const server = createServer(socket => {
    connections.add(socket)
    socket.on('error', () => {}).on('close', () => connections.delete(socket))
  })
  t.teardown(() => {
    for (const socket of connections) socket.destroy()
    server.close()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const address = server.address()
  const url = `smtp://127.0.0.1:${typeof address === 'object' ? address?.port : address}`
  return { url, connections, each: (serve: (socket: Socket) => void) => server.on('connection', serve) }
}

async function converse (socket: Socket, answer: (to: string) => string, server: SmtpServer): Promise<void> {
  let to: string[] = []
  let content: string[] | null = null
  const say = (text: string): void => { socket.write(`${text}\r\n`) }
  say('220 ready')
  for await (const line of createInterface({ input: socket, crlfDelay: Infinity })) {
    if (content !== null && line !== '.') {
      content.push(line)
    } else if (content !== null) {
      server.mails.push({ to, content: content.join('\n') })
      content = null
      say('250 taken')
    } else if (line.startsWith('RCPT TO')) {
      const recipient = line.slice('RCPT TO:<'.length, line.indexOf('>'))
      to.push(recipient)
      server.asked++
      say(answer(recipient))
    } else if (line.startsWith('DATA')) {
      content = []
      say('354 go on')
    } else {
      to = []
      say('250 ok')
    }
  }
}
