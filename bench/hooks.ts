// What metrics and tracing add to an authenticated GET, by CPU time and without sockets: `npm run build && node --import tsx bench/hooks.ts [rounds]`
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import { median, quantile } from './statistics.ts'
import { variants, type Credentials } from './variants.ts'

const [rounds = 200] = process.argv.slice(2).map(Number)
const REQUESTS = 5000

const base = 'token-hit'
/** The first of them twice: what they differ by is the precision of the run. */
const measured = [base, base, 'token-metrics', 'token-spans', 'token-tracing', 'token-both']
const subjects = Array.from({ length: REQUESTS }, (_, i) => `user-${i}`)
const socket = new Socket()

/** Goes no further than its head. */
class Answer extends ServerResponse {
  readonly #sent: () => void

  constructor (request: IncomingMessage, sent: () => void) {
    super(request)
    this.#sent = sent
  }

  override end (): this {
    this.#sent()
    return this
  }
}

async function get (app: FastifyInstance, { token = '' }: Credentials): Promise<number> {
  const request = new IncomingMessage(socket)
  request.method = 'GET'
  request.url = '/me'
  request.rawHeaders = ['Host', '127.0.0.1', 'Authorization', `Bearer ${token}`]
  return await new Promise(resolve => {
    const answer = new Answer(request, () => resolve(answer.statusCode))
    app.routing(request, answer)
  })
}

const servers = await Promise.all(measured.map(async name => {
  const { title, open } = variants[name] ?? {}
  if (title === undefined || open === undefined) throw new Error(`${name} is no variant`)
  const app = Fastify()
  return { title, app, credentials: await open(app, subjects), micros: [] as number[] }
}))

for (let round = -10; round < rounds; round++) {
  // In another order each time.
  for (const { title, app, credentials, micros } of servers.toSorted(() => Math.random() - 0.5)) {
    const before = process.cpuUsage()
    for (const one of credentials) if (await get(app, one) !== 200) throw new Error(`${title} refuses`)
    const { user, system } = process.cpuUsage(before)
    if (round >= 0) micros.push((user + system) / REQUESTS)
  }
}

const alone = quantile(servers[0]?.micros ?? [], 0.25)
for (const { title, micros } of servers) {
  const cost = quantile(micros, 0.25)
  console.log(`${title.padEnd(56)} ${cost.toFixed(2)} µs  ${(cost - alone >= 0 ? '+' : '')}${(cost - alone).toFixed(2)}   median ${median(micros).toFixed(2)}`)
}
process.exit()
