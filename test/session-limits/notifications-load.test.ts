import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import type { NotificationDraft } from '../../plugins/session-limits/notifications/event.ts'
import { Notifications } from '../../plugins/session-limits/notifications/notifications.ts'
import { resolveNotificationOptions } from '../../plugins/session-limits/notifications/options.ts'
import { webhookChannel } from '../../plugins/session-limits/notifications/webhook.ts'
import { memoryStore } from '../../plugins/token-registry/index.ts'
import { childEnv } from '../support/child-env.ts'

const MANY = 10_000
const QUEUE = 500
const MiB = 1024 * 1024

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

let count = 0

/** A notification like no other, of more than 4 KiB. */
function newDraft (): NotificationDraft {
  count++
  const session = { id: `session-${count}`, client: null, issuedAt: 0, ipAddress: '203.0.113.7', userAgent: randomBytes(2048).toString('hex') }
  return { type: 'new-device', tenant: '', sub: `user-${count}`, at: 0, session, device: null, detail: {} }
}

/** The port of a server that takes connections and says nothing, or of none. */
async function deadPort (t: Test, how: 'refuses' | 'hangs'): Promise<number> {
  const server = createServer(socket => {
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  if (how === 'hangs') t.teardown(() => { server.close() })
  else await promisify(server.close.bind(server))()
  return port
}

async function deadWebhook (t: Test, how: 'refuses' | 'hangs') {
  const store = memoryStore()
  const log: string[] = []
  const channel = webhookChannel({ url: `http://127.0.0.1:${await deadPort(t, how)}`, secret: randomBytes(32).toString('base64'), allowPrivate: true })
  const notifications = new Notifications(resolveNotificationOptions({ queue: QUEUE, flush: 0, channels: [channel] }), {
    mark: async (...mark) => await store.mark(...mark),
    now: Date.now,
    log: (_, message) => { log.push(message) }
  })
  t.teardown(async () => {
    await notifications.close()
    await store.close()
  })
  return { notifications, log }
}

for (const how of ['refuses', 'hangs'] as const) {
  t.test(`10,000 notifications against a webhook that ${how}`, async t => {
    t.test('all at once: the queue is full, the others are dropped and counted, and the caller goes on', async t => {
      const { notifications, log } = await deadWebhook(t, how)
      const drafts = Array.from({ length: MANY }, newDraft)
      for (const draft of drafts) notifications.notify(draft)
      t.match(notifications.stats, { queued: QUEUE, dropped: MANY - QUEUE, sent: 0 })
      t.equal(log.length, 1)
    })

    t.test('over time: no more is queued than there is room for, and memory is bounded', async t => {
      const { notifications, log } = await deadWebhook(t, how)
      collect()
      const before = process.memoryUsage().heapUsed
      let most = 0
      for (let i = 0; i < MANY; i++) {
        notifications.notify(newDraft())
        most = Math.max(most, notifications.stats.queued)
        if (i % 10 === 0) await setImmediate()
      }
      collect()
      const grown = process.memoryUsage().heapUsed - before
      const { queued, failed, dropped, ...rest } = notifications.stats
      t.ok(most <= 2 * QUEUE, 'its queue, and the one in front of the store')
      t.ok(grown < 2 * QUEUE * 8192 + 8 * MiB, `${grown / MiB} MiB`)
      t.equal(queued + failed + dropped, MANY, 'none is forgotten')
      t.ok(dropped > MANY / 2)
      t.strictSame(rest, { sent: 0, duplicates: 0, limited: 0 })
      t.ok(log.length <= 2)
    })

    t.test('a request that tells is answered before anything is sent, also where nothing can be', async t => {
      const { notifications } = await deadWebhook(t, how)
      const app = Fastify()
      t.teardown(() => app.close())
      app.get('/', async () => {
        const draft = newDraft()
        t.equal(notifications.notify(draft), undefined, 'there is nothing to wait for')
        return { device: draft.session?.id }
      })
      for (let i = 0; i < MANY; i++) notifications.notify(newDraft())
      const answers = await Promise.all(Array.from({ length: 100 }, async () => await app.inject('/')))
      t.ok(answers.every(({ statusCode }) => statusCode === 200))
      t.equal(notifications.stats.sent, 0)
    })
  })
}

t.test('a process that has closed ends, whatever its channels do, and one that has not is not kept', async t => {
  const here = new URL('../../plugins/session-limits/notifications/', import.meta.url)
  const port = await deadPort(t, 'hangs')
  const script = (close: boolean) => `
    const { Notifications } = await import(${JSON.stringify(new URL('notifications.ts', here).href)})
    const { resolveNotificationOptions } = await import(${JSON.stringify(new URL('options.ts', here).href)})
    const { webhookChannel } = await import(${JSON.stringify(new URL('webhook.ts', here).href)})
    const channels = [() => new Promise(() => {}), () => { throw new Error('later') }]
    if (${close}) channels.push(webhookChannel({ url: 'http://127.0.0.1:${port}', secret: 'Zm9ydHktdHdvIGlzIHRoZSBhbnN3ZXIgdG8gZXZlcnl0aGluZw==', allowPrivate: true, timeout: '1m' }))
    const notifications = new Notifications(resolveNotificationOptions({ flush: 50, timeout: '1m', pause: '5m', channels }), { mark: async () => true, now: Date.now, log: () => {} })
    notifications.notify({ type: 'all-ended', tenant: '', sub: 'alice', at: 0, session: null, device: null, detail: {} })
    while (notifications.stats.queued < channels.length) await new Promise(setImmediate)
    if (${close}) await notifications.close()
    console.log(notifications.stats.queued)`
  for (const [close, queued] of [[true, 0], [false, 2]] as const) {
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '--conditions=@fastify-token-registry/source', '--input-type=module', '--eval', script(close)], { cwd: new URL('../..', import.meta.url), env: childEnv, timeout: 20_000 })
    t.equal(stdout, `${queued}\n`)
  }
})
