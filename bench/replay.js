// What replay.lua is to wrk, for autocannon: `node replay.js <url> <file> <connections> <seconds>`, until then or SIGINT.
import { readFile } from 'node:fs/promises'
import autocannon from 'autocannon'

const [url, file, connections, duration] = process.argv.slice(2)

const requests = (await readFile(file, 'latin1')).split('\r\n\r\n').slice(0, -1).map(text => {
  const [, ...lines] = text.split('\r\n')
  return { method: 'GET', path: '/me', headers: Object.fromEntries(lines.map(line => line.split(': '))) }
})

// Each connection sends its own share: every one of them would otherwise prepare all the requests again.
let client = 0
const load = autocannon({
  url,
  connections: Number(connections),
  duration: Number(duration),
  setupClient: it => {
    const first = client++
    it.setRequests(requests.filter((_, i) => i % connections === first))
  }
})
process.once('SIGINT', () => load.stop())

const { non2xx, errors } = await load
if (non2xx + errors > 0) {
  console.error(`${non2xx} answers were not 2xx, ${errors} requests failed`)
  process.exitCode = 1
}
