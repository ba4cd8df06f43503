import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttp, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { createServer as createTcp, setDefaultAutoSelectFamily, type AddressInfo, type LookupFunction, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { notificationOf, Undeliverable, type Channel } from '../../plugins/session-limits/notifications/event.ts'
import { Notifications } from '../../plugins/session-limits/notifications/notifications.ts'
import { resolveNotificationOptions } from '../../plugins/session-limits/notifications/options.ts'
import { isPublic } from '../../plugins/session-limits/notifications/public-address.ts'
import { webhookChannel, type WebhookOptions } from '../../plugins/session-limits/notifications/webhook.ts'
import { newCertificate } from '../support/certificate.ts'
import { soon } from '../support/deferred.ts'

const newSecret = () => randomBytes(32).toString('base64')
const secret = newSecret()

const draft = {
  type: 'new-device' as const,
  tenant: '',
  sub: 'alice',
  at: 1_700_000_000_000,
  session: { id: 'session-1', client: null, issuedAt: 1, ipAddress: '203.0.113.7', userAgent: 'Fire\u{1F98A}fox' },
  device: { id: 'device-1', name: 'Firefox on Linux' },
  detail: {}
}
const notification = notificationOf(draft, 0)

interface Received {
  request: IncomingMessage
  body: string
}

interface Receiver {
  port: number
  origin: string
  received: Received[]
  /** All that were ever made. */
  connections: Socket[]
}

/** A server that keeps what it is sent, closed with the test. */
async function receiver (t: Test, answer: RequestListener = (_, response) => { response.end('{"ok":true}') }, make: (listener: RequestListener) => Server = createHttp): Promise<Receiver> {
  const received: Received[] = []
  const server = make(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    received.push({ request, body: Buffer.concat(chunks).toString() })
    answer(request, response)
  })
  return { received, ...await listening(t, server) }
}

/** A server that says some bytes to whoever sends some. */
async function speaker (t: Test, say: (socket: Socket) => void): Promise<Omit<Receiver, 'received'>> {
  return await listening(t, createTcp(socket => { socket.once('data', () => say(socket)) }))
}

async function listening (t: Test, server: ReturnType<typeof createTcp>): Promise<Omit<Receiver, 'received'>> {
  const connections: Socket[] = []
  server.on('connection', (socket: Socket) => { connections.push(socket.on('error', () => {})) })
  t.teardown(() => {
    for (const socket of connections) socket.destroy()
    server.close()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  return { port, origin: `http://127.0.0.1:${port}`, connections }
}

/** A channel to a receiver of the test, which is on a loopback address. */
const channelTo = (url: string, options: Partial<WebhookOptions> = {}): Channel => webhookChannel({ url, secret, allowPrivate: true, ...options })

async function send (channel: Channel, signal = new AbortController().signal): Promise<void> {
  await soon(Promise.resolve(channel(notification, { signal, attempt: 1 })))
}

/** Verifies as the docs say a receiver does. */
function isGenuine ({ request: { headers }, body }: Received, key: string | Buffer): boolean {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures } = headers
  const expected = Buffer.from(`v1,${createHmac('sha256', key).update(`${String(id)}.${String(timestamp)}.${body}`).digest('base64')}`)
  const fresh = Math.abs(Date.now() / 1000 - Number(timestamp)) < 300
  return fresh && String(signatures).split(' ').some(given => given.length === expected.length && timingSafeEqual(Buffer.from(given), expected))
}

/** Finds the addresses that the test says. */
const leadingTo = (...addresses: string[]): LookupFunction => (_, { all }, callback) => {
  const found = addresses.map(address => ({ address, family: address.includes(':') ? 6 : 4 }))
  if (all === true) callback(null, found)
  else callback(null, addresses[0] ?? '', 4)
}

t.test('what a receiver gets', async t => {
  t.test('is the notification as JSON, signed as Standard Webhooks says', async t => {
    const there = await receiver(t)
    await send(channelTo(`${there.origin}/hook?a=b`))
    const [got] = there.received
    if (got === undefined) return t.fail('nothing came')
    t.match(got.request, { method: 'POST', url: '/hook?a=b', headers: { host: `127.0.0.1:${there.port}`, 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(got.body)), 'webhook-id': notification.id } })
    const { type, at, ...data } = notification
    t.strictSame(JSON.parse(got.body), { type, timestamp: new Date(at).toISOString(), data })
    t.ok(isGenuine(got, secret))
    t.notOk(isGenuine({ ...got, body: got.body.replace('alice', 'alicf') }, secret))
    t.notOk(isGenuine(got, newSecret()))
  })

  t.test('is signed with each secret, so that one can follow the other', async t => {
    const there = await receiver(t)
    const bytes = randomBytes(32)
    const [old, next] = [secret, `whsec_${bytes.toString('base64')}`]
    await send(channelTo(there.origin, { secret: [old, next] }))
    const [got] = there.received
    if (got === undefined) return t.fail('nothing came')
    t.match(got.request.headers, { 'webhook-signature': /^v1,[\w+/]{43}= v1,[\w+/]{43}=$/ })
    t.ok(isGenuine(got, old))
    t.ok(isGenuine(got, bytes), 'whsec_ is followed by base64')
    t.notOk(isGenuine(got, next))
  })

  t.test('has one id and a new time with each try', async t => {
    let status = 500
    const there = await receiver(t, (_, response) => { response.writeHead(status).end() })
    const channel = channelTo(there.origin)
    await t.rejects(send(channel))
    const second = () => Math.floor(Date.now() / 1000)
    const before = second()
    while (second() === before) await setImmediate()
    status = 200
    await send(channel)
    const headers = (name: string) => there.received.map(({ request }) => request.headers[name])
    t.strictSame(headers('webhook-id'), [notification.id, notification.id])
    t.ok(Number(headers('webhook-timestamp')[1]) > Number(headers('webhook-timestamp')[0]))
  })

  t.test('comes by https from a certificate that is trusted, and from no other', async t => {
    const { key, cert } = newCertificate()
    const there = await receiver(t, undefined, listener => createHttps({ key, cert }, listener))
    const url = `https://localhost:${there.port}/secret-path`
    const lookup = leadingTo('127.0.0.1')
    await t.rejects(send(channelTo(url, { lookup })), { message: `the webhook at localhost:${there.port} was not reached: DEPTH_ZERO_SELF_SIGNED_CERT` })
    await t.rejects(send(channelTo(url.replace('localhost', 'other.example'), { lookup, ca: cert })), { message: /not reached: ERR_TLS_CERT_ALTNAME_INVALID$/ })
    t.strictSame(there.received, [])
    await send(channelTo(url, { lookup, ca: cert }))
    t.equal(there.received.length, 1)
  })

  t.test('leaves no connection open, and takes no proxy from the environment', async t => {
    const there = await receiver(t)
    const proxy = { HTTP_PROXY: 'http://127.0.0.1:1', http_proxy: 'http://127.0.0.1:1', NODE_USE_ENV_PROXY: '1' }
    t.teardown(() => { for (const name of Object.keys(proxy)) Reflect.deleteProperty(process.env, name) })
    Object.assign(process.env, proxy)
    for (let i = 0; i < 3; i++) await send(channelTo(there.origin))
    t.equal(there.connections.length, 3)
    while (!there.connections.every(({ destroyed }) => destroyed)) await setImmediate()
    t.match(there.received.map(({ request }) => request.headers.connection), ['close', 'close', 'close'])
  })
})

t.test('what an answer means', async t => {
  t.test('2xx is success, what a later try may change is an error, and the rest is final', async t => {
    let status = 0
    const other = await receiver(t)
    const there = await receiver(t, (_, response) => { response.writeHead(status, { location: `${other.origin}/elsewhere` }).end() })
    const channel = channelTo(`${there.origin}/secret-path?token=hunter2`)
    for (status of [200, 201, 202, 204, 299]) await t.resolves(send(channel), String(status))
    for (status of [408, 429, 500, 502, 503, 504]) await t.rejects(send(channel), { name: 'Error', message: `the webhook at 127.0.0.1:${there.port} answered ${status}` })
    for (status of [300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 422]) await t.rejects(send(channel), { name: 'Undeliverable', message: `the webhook at 127.0.0.1:${there.port} answered ${status}` })
    t.strictSame(other.received, [], 'no redirect is followed')
  })

  t.test('three tries in total, or one', async t => {
    let status = 503
    const there = await receiver(t, (_, response) => { response.writeHead(status).end() })
    const log: unknown[] = []
    const notifications = new Notifications(resolveNotificationOptions({ pause: 1, dedupeFor: 0, channels: [channelTo(`${there.origin}/secret-path?token=hunter2`)] }), { mark: async () => true, now: Date.now, log: (...all) => { log.push(all) } })
    t.teardown(() => notifications.close())
    notifications.notify(draft)
    while (notifications.stats.failed < 1) await setImmediate()
    t.equal(there.received.length, 3)
    t.equal(new Set(there.received.map(({ request }) => request.headers['webhook-id'])).size, 1)
    status = 410
    notifications.notify(draft)
    while (notifications.stats.failed < 2) await setImmediate()
    t.equal(there.received.length, 4)
    t.match(log, [[{ message: /answered 503/ }, /the channel webhook failed/]])
    t.notMatch(JSON.stringify(log) + String(log), /secret-path|hunter2|alice/)
  })

  t.test('none, or what is none, is an error', async t => {
    const says = async (...lines: string[]) => (await speaker(t, socket => { socket.end(lines.map(line => `${line}\r\n`).join('')) })).origin
    await t.rejects(send(channelTo(await says())), { name: 'Error', message: /was not reached: ECONNRESET$/ })
    await t.rejects(send(channelTo(await says('hunter2'))), { name: 'Error', message: /was not reached: HPE_\w+$/ })
    await t.rejects(send(channelTo(await says('HTTP/1.1 101 Switching Protocols', 'Upgrade: x', 'Connection: upgrade', ''))), { name: 'Error', message: /was not reached: it closed the connection$/ })
    await t.rejects(send(channelTo('http://127.0.0.1:1')), { name: 'Error', message: 'the webhook at 127.0.0.1:1 was not reached: ECONNREFUSED' })
    await t.rejects(send(channelTo('http://nowhere.invalid', { lookup: (_, __, callback) => callback(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), []) })), { message: 'the webhook at nowhere.invalid was not reached: ENOTFOUND' })
    await t.rejects(send(webhookChannel({ url: 'https://nowhere.invalid', secret })), { message: /^the webhook at nowhere\.invalid was not reached: E[A-Z_]+$/ })
  })

  t.test('one that does not come in time is given up, the connection too', async t => {
    const hung = await speaker(t, () => {})
    await t.rejects(send(channelTo(hung.origin, { timeout: 50 })), { name: 'Error', message: `the webhook at 127.0.0.1:${hung.port} was not reached: no answer within 50 ms` })
    while (!hung.connections.every(({ destroyed }) => destroyed)) await setImmediate()

    const drip = await speaker(t, socket => {
      socket.write('HTTP/1.1 200 OK\r\nx: ')
      const timer = setInterval(() => socket.write('x'), 5)
      socket.on('close', () => clearInterval(timer))
    })
    await t.rejects(send(channelTo(drip.origin, { timeout: 50 })), { message: /no answer within 50 ms/ })
  })

  t.test('nor longer than the signal says', async t => {
    const hung = await speaker(t, () => {})
    const controller = new AbortController()
    const sending = send(channelTo(hung.origin), controller.signal)
    while (hung.connections.length === 0) await setImmediate()
    controller.abort()
    await t.rejects(sending, { message: /was not reached: ABORT_ERR/ })
    while (!hung.connections.every(({ destroyed }) => destroyed)) await setImmediate()
  })

  t.test('a body without an end is cut off, a slow one is not waited for beyond the time, and neither changes what the status says', async t => {
    let written = 0
    const endless = await receiver(t, (_, response) => {
      const more = (): void => { while (!response.destroyed && response.write(Buffer.alloc(65_536))) written++ }
      response.on('drain', more)
      more()
    })
    await send(channelTo(endless.origin))
    while (!endless.connections.every(({ destroyed }) => destroyed)) await setImmediate()
    t.ok(written < 1000, 'what the system buffers')

    let status = 200
    const slow = await receiver(t, (_, response) => { response.writeHead(status, { 'content-length': '5' }).write('x') })
    const start = performance.now()
    await send(channelTo(slow.origin, { timeout: 100 }))
    t.ok(performance.now() - start >= 99)
    status = 500
    await t.rejects(send(channelTo(slow.origin, { timeout: 100 })), { message: /answered 500/ })
  })
})

t.test('where it may lead', async t => {
  t.test('a name that leads to an address that is not public is refused at the connection, for good', async t => {
    const there = await receiver(t)
    const url = `https://hooks.example:${there.port}/secret-path`
    const strict = (lookup?: LookupFunction, host = 'hooks.example') => webhookChannel({ url: url.replace('hooks.example', host), secret, ...lookup !== undefined && { lookup } })
    await t.rejects(send(strict(leadingTo('127.0.0.1'))), { name: 'Undeliverable', message: 'hooks.example leads to 127.0.0.1, which is not public' })
    await t.rejects(send(strict(leadingTo('93.184.215.14', '10.0.0.1'))), { name: 'Undeliverable', message: /leads to 10\.0\.0\.1/ }, 'one of them is enough')
    await t.rejects(send(strict(undefined, 'localhost')), { name: 'Undeliverable', message: /^localhost leads to (127\.0\.0\.1|::1), which is not public$/ })
    t.equal(there.connections.length, 0)
  })

  t.test('what was checked is what is connected to', async t => {
    const there = await receiver(t)
    const answers = ['127.0.0.1', '127.0.0.2']
    const asked: string[] = []
    const channel = channelTo(`http://hooks.example:${there.port}`, {
      lookup: (name, options, callback) => {
        asked.push(name)
        leadingTo(answers.shift() ?? '::')(name, options, callback)
      }
    })
    await send(channel)
    t.strictSame(asked, ['hooks.example'], 'asked once a try')
    await t.rejects(send(channel), { message: /ECONNREFUSED/ }, 'and anew with each, which nothing is remembered of')

    // A name that was public when it was first asked for.
    const turns = ['127.0.0.1']
    const rebound = webhookChannel({ url: `https://hooks.example:${there.port}`, secret, lookup: (name, options, callback) => leadingTo(turns.shift() ?? '8.8.8.8')(name, options, callback) })
    await t.rejects(send(rebound), { name: 'Undeliverable' })
    t.equal(there.connections.length, 1)
  })

  t.test('also where Node asks for one address only', async t => {
    const there = await receiver(t)
    setDefaultAutoSelectFamily(false)
    t.teardown(() => setDefaultAutoSelectFamily(true))
    await t.rejects(send(webhookChannel({ url: `https://hooks.example:${there.port}`, secret, lookup: leadingTo('127.0.0.1') })), { name: 'Undeliverable' })
    await t.rejects(send(webhookChannel({ url: `https://hooks.example:${there.port}`, secret, lookup: (_, __, callback) => callback(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), '') })), { message: /ENOTFOUND/ })
    t.equal(there.connections.length, 0)
    await send(channelTo(`http://hooks.example:${there.port}`, { lookup: leadingTo('127.0.0.1') }))
    t.equal(there.received.length, 1)
  })

  t.test('an address in the URL is refused at start, however it is written', async t => {
    const refused = [
      '127.0.0.1', '127.1', '127.0.0.1.', '2130706433', '0x7f000001', '0x7f.1', '0177.0.0.1', '017700000001', '127.0.0.1:8443', '%31%32%37.0.0.1', '\u2460\u2461\u2466.0.0.1',
      '0.0.0.0', '0', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.0.1', '169.254.169.254', '100.64.0.1', '192.0.2.1', '198.18.0.1', '224.0.0.1', '240.0.0.1', '255.255.255.255',
      '[::1]', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[::7f00:1]', '[::127.0.0.1]', '[fe80::1]', '[fd00::1]', '[fec0::1]', '[ff02::1]', '[64:ff9b::7f00:1]', '[64:ff9b::a9fe:a9fe]', '[64:ff9b:1::1]', '[2002:7f00:1::]', '[2001:db8::1]', '[2001::1]', '[4000::1]'
    ]
    for (const host of refused) {
      t.throws(() => webhookChannel({ url: `https://${host}/`, secret }), { code: 'FST_SESSION_LIMITS_OPTIONS', message: /^session-limits: webhookChannel\.url leads to [\da-f:.]+, which is not public: that goes only with allowPrivate$/ }, host)
      t.doesNotThrow(() => webhookChannel({ url: `https://${host}/`, secret, allowPrivate: true }), host)
    }
    for (const host of ['8.8.8.8', '172.32.0.1', '100.128.0.1', '[2606:4700::1111]', '[64:ff9b::808:808]', '[::ffff:8.8.8.8]', 'hooks.example']) t.doesNotThrow(() => webhookChannel({ url: `https://${host}/`, secret }), host)
    for (const address of ['', 'x', 'fe80::1%eth0']) t.notOk(isPublic(address))
  })
})

t.test('options are checked, and no message shows URL or secret', async t => {
  const faults: Array<[Record<string, unknown>, RegExp]> = [
    [{ url: undefined }, /webhookChannel\.url is no https: URL \(http: goes only with allowPrivate\)$/],
    [{ url: 'hunter2' }, /url is no https: URL/],
    [{ url: 'http://hooks.example/hunter2' }, /url is no https: URL/],
    [{ url: 'ftp://hooks.example/hunter2', allowPrivate: true }, /url is no https: URL/],
    [{ url: 'https://kim:hunter2@hooks.example' }, /url holds a user or password: it may hold none, since the signature proves who sends$/],
    [{ url: 'https://hunter2@hooks.example' }, /url holds a user or password/],
    [{ secret: undefined }, /webhookChannel\.secret is of type undefined: it may be text of at least 32 bytes; make one with: openssl rand -base64 32$/],
    [{ secret: [] }, /secret is an empty list/],
    [{ secret: [secret, 5] }, /secret is of type number/],
    [{ secret: 'hunter2' }, /secret has 7 bytes: at least 32 are needed$/],
    [{ secret: [secret, 'x'.repeat(32)] }, /secret is made of fewer than 8 different characters$/],
    [{ secret: `whsec_${'hunter2x'.repeat(8)}` }, /secret repeats itself$/],
    [{ secret: `whsec_${randomBytes(31).toString('base64')}` }, /secret has 31 bytes/],
    [{ secret: `whsec_${'hunter2!'.repeat(6)}` }, /secret begins with whsec_: base64 must follow$/],
    [{ allowPrivate: 'yes' }, /webhookChannel\.allowPrivate is 'yes': it may be true or false$/],
    [{ timeout: '2m' }, /webhookChannel\.timeout is 120000 ms: it may be 10 to 60000$/],
    [{ timeout: 'x' }, /webhookChannel\.timeout is 'x'/],
    [{ ca: 5 }, /webhookChannel\.ca is 5: it may be certificates in PEM$/],
    [{ lookup: 5 }, /webhookChannel\.lookup is 5: it may be a function like dns\.lookup$/],
    [{ secrets: ['hunter2'] }, /webhookChannel\.secrets is not an option: there are url, secret, ca, allowPrivate, timeout, lookup$/]
  ]
  for (const [given, message] of faults) {
    const make = () => webhookChannel({ url: 'https://hooks.example', secret, ...given } as WebhookOptions)
    t.throws(make, { code: 'FST_SESSION_LIMITS_OPTIONS', statusCode: 500, message }, String(message))
    try { make() } catch (error) { t.notMatch(String(error), /hunter2/) }
  }
  t.ok(new Undeliverable('x') instanceof Error)
})
