import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Undeliverable, type Channel, type Notification, type NotificationDraft, type NotificationType } from '../../plugins/session-limits/notifications/event.ts'
import { Notifications, type NotificationParts } from '../../plugins/session-limits/notifications/notifications.ts'
import { resolveNotificationOptions, type NotificationOptions } from '../../plugins/session-limits/notifications/options.ts'
import { pauseBefore } from '../../plugins/session-limits/notifications/work-queue.ts'
import { memoryStore, type TokenStore } from '../../plugins/token-registry/index.ts'
import { Clock } from '../support/clock.ts'
import { deferred } from '../support/deferred.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

const session = { id: 'session-1', client: null, issuedAt: 1, ipAddress: '203.0.113.7', userAgent: 'Firefox' }
const device = { id: 'device-1', name: 'Firefox on Linux' }
const draft: NotificationDraft = { type: 'new-device', tenant: '', sub: 'alice', at: 1_700_000_000_000, session, device, detail: {} }

/** A notification like no other. */
const another = (given: Partial<NotificationDraft> = {}): NotificationDraft => ({ ...draft, key: randomBytes(8).toString('hex'), ...given })

interface Rig {
  notifications: Notifications
  /** What reached the channel that stands for a working one. */
  sent: Notification[]
  clock: Clock
  store: TokenStore
  log: Array<{ error: unknown, message: string }>
}

/** Notifications with one channel that works. */
function rig (t: Test, options: NotificationOptions = {}, parts: Partial<NotificationParts> & { store?: TokenStore, clock?: Clock } = {}): Rig {
  const { clock = new Clock(), store = memoryStore({ now: clock.now }), ...rest } = parts
  const sent: Notification[] = []
  const log: Rig['log'] = []
  const notifications = new Notifications(resolveNotificationOptions({ pause: 1, channels: [notification => { sent.push(notification) }], ...options }), {
    mark: async (...mark) => await store.mark(...mark),
    now: clock.now,
    log: (error, message) => { log.push({ error, message }) },
    ...rest
  })
  t.teardown(async () => {
    await notifications.close()
    await store.close()
  })
  return { notifications, sent, clock, store, log }
}

async function until (holds: () => boolean): Promise<void> {
  while (!holds()) await setImmediate()
}

/** Waits until all is sent, failed or dropped. */
async function settled ({ notifications }: Pick<Rig, 'notifications'>): Promise<void> {
  await until(() => notifications.stats.queued === 0)
}

t.test('what is sent', async t => {
  t.test('a notification reaches every channel that asks for its type, the same for all', async t => {
    const all = rig(t)
    const some: Notification[] = []
    all.notifications.add(notification => { some.push(notification) }, { types: ['password-changed', 'all-ended'] })
    all.notifications.notify(draft)
    all.notifications.notify({ ...draft, type: 'all-ended', detail: { count: 3, by: 'root' } })
    await settled(all)
    t.strictSame(all.sent.map(({ type }) => type), ['new-device', 'all-ended'])
    t.strictSame(some, all.sent.slice(1))
    t.match(some, [{ id: /^[\da-f-]{36}$/, type: 'all-ended', tenant: '', sub: 'alice', at: draft.at, session, device, detail: { count: 3, by: 'root' } }])
    t.not(all.sent[0]?.id, all.sent[1]?.id)
    t.match(all.notifications.stats, { queued: 0, sent: 3, failed: 0, dropped: 0 })
  })

  t.test('it holds nothing that it need not, and what a channel or the caller does with it changes nothing', async t => {
    const { notifications, sent, ...rest } = rig(t)
    const given = { ...draft, session: { ...session, token: 'trs_secret' }, device: { ...device, secret: 'x' }, detail: { reason: 'limit' } }
    notifications.notify(given)
    given.session.id = given.device.name = given.detail.reason = 'changed'
    await settled({ notifications, ...rest })
    t.strictSame({ ...sent[0], id: '' }, { ...draft, id: '', detail: { reason: 'limit' } })
    for (const part of [sent[0], sent[0]?.session, sent[0]?.device, sent[0]?.detail]) t.ok(Object.isFrozen(part))
  })

  t.test('what nobody asks for costs nothing', async t => {
    const { notifications, ...rest } = rig(t, { channels: [] }, { mark: async () => await Promise.reject(t.fail('the store is not asked')) })
    notifications.add(() => { t.fail('it asked for another type') }, { types: ['new-network'] })
    notifications.notify(draft)
    await settled({ notifications, ...rest })
    t.strictSame(notifications.stats, { queued: 0, sent: 0, failed: 0, dropped: 0, duplicates: 0, limited: 0 })
  })

  t.test('what is left out is the tenant without a name, now, or none', async t => {
    const all = rig(t)
    const unset = { session: undefined, device: undefined, detail: null, key: null } as unknown as Partial<NotificationDraft>
    all.notifications.notify({ type: 'all-ended', sub: 'alice' })
    all.notifications.notify({ type: 'password-changed', sub: 'alice', ...unset })
    await settled(all)
    const rest = { tenant: '', sub: 'alice', at: all.clock.now(), session: null, device: null, detail: {} }
    t.strictSame(all.sent.map(({ id, ...told }) => told), [{ type: 'all-ended', ...rest }, { type: 'password-changed', ...rest }])
  })

  t.test('what is no notification has failed, and is told once a minute: nothing throws', async t => {
    const hostile = { get type () { throw new Error('mine') } }
    const nonsense: unknown[] = [
      undefined, null, 5, 5n, Symbol('x'), 'x', [], {}, hostile, new Proxy({}, { get: () => { throw new Error('mine') } }), { type: 'all-ended' }, { sub: 'alice' }, { ...draft, sub: '' }, { ...draft, sub: 5n },
      { ...draft, type: 'other' }, { ...draft, tenant: 5 }, { ...draft, at: NaN }, { ...draft, at: 1e300 }, { ...draft, at: new Date() }, { ...draft, session: 'x' }, { ...draft, session: { issuedAt: 1 } },
      { ...draft, device: { id: 'x' } }, { ...draft, detail: 'x' }, { ...draft, key: 5n }
    ]
    const all = rig(t)
    for (const given of nonsense) t.doesNotThrow(() => all.notifications.notify(given as NotificationDraft))
    t.match(all.notifications.stats, { queued: 0, sent: 0, failed: nonsense.length, dropped: 0 })
    t.match(all.log, [{ error: { message: /^what notify was given is no notification:/ }, message: 'notifications are lost: 1 were not understood so far' }])
    t.equal(all.log.length, 1)
    all.clock.advance(MINUTE)
    all.notifications.notify({ ...draft, sub: 5 as unknown as string })
    t.match(all.log[1], { error: { message: 'what notify was given is no notification: /sub Expected string' } })
  })

  t.test('what is kept with a session and is no text counts as none', async t => {
    const all = rig(t)
    const odd = { ...session, client: 5n, ipAddress: ['192.0.2.1'], userAgent: undefined } as unknown as typeof session
    all.notifications.notify({ ...draft, session: odd })
    await settled(all)
    t.strictSame(all.sent[0]?.session, { ...session, client: null, ipAddress: null, userAgent: null })
  })

  t.test('nothing begins before the turn that notifies is over', async t => {
    let begun = 0
    const { notifications, ...rest } = rig(t, { channels: [() => { begun++ }] }, { mark: async () => ++begun > 0 })
    notifications.notify(draft)
    await Promise.resolve().then(() => {})
    t.equal(begun, 0)
    await settled({ notifications, ...rest })
    t.equal(begun, 3)
  })
})

t.test('the same is sent once', async t => {
  t.test('for a device that is new its id makes it the same, else that of the session', async t => {
    const all = rig(t, { perUser: false })
    const other = { session: { ...session, id: 'session-2' }, device: { ...device, id: 'device-2' } }
    const once: Array<Partial<NotificationDraft>> = [
      {},
      { device: other.device },
      { device: null },
      { type: 'ended-by-limit' },
      { type: 'ended-by-limit', session: other.session },
      { type: 'ended-by-limit', session: null },
      { sub: 'bob' },
      { tenant: 'b' },
      { key: 'mine' }
    ]
    const same: Array<Partial<NotificationDraft>> = [
      { session: other.session, at: 5, detail: { reason: 'x' } },
      { type: 'ended-by-limit', device: null },
      { key: 'mine', session: null, device: null }
    ]
    for (const given of [...once, ...same, ...once]) all.notifications.notify({ ...draft, ...given })
    await settled(all)
    t.equal(all.sent.length, once.length)
    t.match(all.notifications.stats, { sent: once.length, duplicates: same.length + once.length })
  })

  t.test('without a key, session or device each is its own', async t => {
    const all = rig(t)
    for (let i = 0; i < 2; i++) all.notifications.notify({ ...draft, type: 'password-changed', session: null, device: null })
    await settled(all)
    t.equal(all.sent.length, 2)
  })

  t.test('until the time is over, 10 min', async t => {
    const all = rig(t)
    all.notifications.notify(draft)
    await settled(all)
    all.clock.advance(10 * MINUTE - 1)
    all.notifications.notify(draft)
    await settled(all)
    t.equal(all.sent.length, 1)
    all.clock.advance(1)
    all.notifications.notify(draft)
    await settled(all)
    t.equal(all.sent.length, 2)
  })

  t.test('and always with dedupeFor: 0', async t => {
    const all = rig(t, { dedupeFor: 0 })
    for (let i = 0; i < 2; i++) all.notifications.notify(draft)
    await settled(all)
    t.equal(all.sent.length, 2)
  })

  t.test('by all instances together', async t => {
    const one = rig(t)
    const two = rig(t, {}, { store: one.store, clock: one.clock })
    for (const { notifications } of [one, two, two, one]) notifications.notify(draft)
    await Promise.all([one, two].map(settled))
    t.equal(one.sent.length + two.sent.length, 1)
    t.equal(one.notifications.stats.duplicates + two.notifications.stats.duplicates, 3)
  })

  t.test('what was dropped does not count as sent', async t => {
    const held = deferred()
    const { notifications } = rig(t, { queue: 1, channels: [() => held.promise] })
    notifications.notify(draft)
    await until(() => notifications.stats.queued === 1)
    notifications.notify({ ...draft, sub: 'bob' })
    held.resolve()
    await until(() => notifications.stats.sent === 1)
    notifications.notify({ ...draft, sub: 'bob' })
    await until(() => notifications.stats.sent === 2)
    t.equal(notifications.stats.dropped, 1)
  })
})

t.test('a device that has to be looked for', async t => {
  const found = { ...device, secret: 'x' }
  const about: NotificationDraft = { ...draft, type: 'ended-by-reuse', device: null }

  t.test('is looked for where the notification is sent, and only there', async t => {
    let asked = 0
    const find = async () => { asked++; return found }
    const all = rig(t, { perUser: { max: 2 } })
    all.notifications.notify(about, find)
    t.equal(asked, 0, 'no caller waits')
    all.notifications.notify(about, find)
    all.notifications.notify(another(about), async () => null)
    all.notifications.notify(another(about), find)
    await settled(all)
    t.strictSame(all.sent.map(({ device }) => device), [device, null])
    for (const part of [all.sent[0], all.sent[0]?.device]) t.ok(Object.isFrozen(part))
    t.match(all.notifications.stats, { duplicates: 1, limited: 1 })
    t.equal(asked, 1)
  })

  t.test('is left out where that fails, or takes longer than a second', async t => {
    const all = rig(t)
    const start = performance.now()
    all.notifications.notify(another(about), async () => { throw new Error('ECONNREFUSED') })
    all.notifications.notify(another(about), () => { throw new Error('at once') })
    all.notifications.notify(another(about), () => new Promise(() => {}))
    await settled(all)
    t.ok(performance.now() - start < 4000)
    t.strictSame(all.sent.map(({ device }) => device), [null, null, null])
    t.match(all.log, [{ error: { message: /^(ECONNREFUSED|at once)$/ }, message: 'notifications are sent without the device that they are about' }])
    t.equal(all.log.length, 1)
  })
})

t.test('a user gets 20 an hour', async t => {
  t.test('of sign-ins and limits, and 20 of what tells of a takeover: neither hides the other', async t => {
    const all = rig(t)
    const routine = ['new-device', 'new-network', 'ended-by-limit'] as const
    const takeover = ['password-changed', 'all-ended', 'ended-by-reuse', 'ended-by-administrator'] as const
    for (const types of [routine, takeover]) for (let i = 0; i < 10; i++) for (const type of types) all.notifications.notify(another({ type }))
    await settled(all)
    const sent = (types: readonly NotificationType[]) => all.sent.filter(({ type }) => types.includes(type)).length
    t.same([sent(routine), sent(takeover)], [20, 20])
    t.match(all.notifications.stats, { sent: 40, limited: 30 })
  })

  t.test('from all instances together, again in the next hour, and others are not limited by it', async t => {
    const one = rig(t)
    const two = rig(t, {}, { store: one.store, clock: one.clock })
    const instances = [one, two, rig(t, {}, { store: one.store, clock: one.clock })]
    const sent = () => instances.flatMap(({ sent }) => sent)
    for (let i = 0; i < 30; i++) for (const { notifications } of instances) notifications.notify(another())
    await Promise.all(instances.map(settled))
    t.equal(sent().length, 20)
    t.equal(instances.reduce((sum, { notifications: { stats } }) => sum + stats.limited, 0), 70)

    one.notifications.notify(another({ sub: 'bob' }))
    two.notifications.notify(another({ tenant: 'b' }))
    await Promise.all(instances.map(settled))
    t.equal(sent().length, 22)

    one.clock.advance(HOUR)
    for (let i = 0; i < 10; i++) one.notifications.notify(another())
    await settled(one)
    t.equal(sent().length, 32)
  })

  t.test('or as the option says', async t => {
    const few = rig(t, { perUser: { max: 2, window: '1m' } })
    const any = rig(t, { perUser: false })
    for (let i = 0; i < 30; i++) for (const { notifications } of [few, any]) notifications.notify(another())
    await Promise.all([few, any].map(settled))
    t.equal(few.sent.length, 2)
    t.equal(any.sent.length, 30)
    few.clock.advance(MINUTE)
    few.notifications.notify(another())
    await settled(few)
    t.equal(few.sent.length, 3)
  })

  t.test('at two questions of the store each, and none for what this process knows', async t => {
    const asked: string[] = []
    const all = rig(t, { perUser: { max: 10 } }, { mark: async purpose => asked.push(purpose) > 0 })
    const drafts = Array.from({ length: 10 }, () => another())
    for (const given of [...drafts, ...drafts]) all.notifications.notify(given)
    await settled(all)
    t.equal(all.sent.length, 10)
    t.equal(asked.length, 20)
    all.notifications.notify({ ...draft, session: null, device: null })
    await settled(all)
    t.equal(all.notifications.stats.limited, 1)
    t.equal(asked.length, 20)
  })

  t.test('what is remembered of users and keys has an end', async t => {
    const all = rig(t, { perUser: { max: 1 }, queue: 100_000 }, { mark: async () => true })
    for (let i = 0; i < 10_001; i++) all.notifications.notify({ ...draft, sub: `user-${i}` })
    await settled(all)
    t.equal(all.sent.length, 10_001)
    for (const i of [10_000, 0, 10_000]) all.notifications.notify({ ...draft, sub: `user-${i}` })
    await settled(all)
    t.match(all.notifications.stats, { sent: 10_002, duplicates: 2 }, 'the oldest was forgotten, and alone')
  })
})

t.test('a store that is down', async t => {
  t.test('loses nothing: this process alone says what is new, and limits', async t => {
    let asked = 0
    const all = rig(t, { perUser: { max: 5 } }, { mark: async () => { asked++; throw new Error('ECONNREFUSED') } })
    const drafts = Array.from({ length: 8 }, () => another())
    for (const given of [...drafts, ...drafts]) all.notifications.notify(given)
    await settled(all)
    t.equal(all.sent.length, 5)
    t.match(all.notifications.stats, { duplicates: 8, limited: 3, dropped: 0 })
    t.match(all.log, [{ error: { message: 'ECONNREFUSED' }, message: /the store does not say/ }], 'told once')

    const before = asked
    all.notifications.notify(another({ sub: 'bob' }))
    await settled(all)
    t.equal(asked, before, 'it is left alone for a second')
    all.clock.advance(1000)
    all.notifications.notify(another({ sub: 'bob' }))
    await settled(all)
    t.ok(asked > before)
    t.equal(all.log.length, 1)
    all.clock.advance(MINUTE)
    all.notifications.notify(another({ sub: 'bob' }))
    await settled(all)
    t.equal(all.log.length, 2, 'told again after a minute')
  })

  t.test('one that does not answer holds them up for a second', async t => {
    const all = rig(t, {}, { mark: () => new Promise(() => {}) })
    const start = performance.now()
    for (let i = 0; i < 20; i++) all.notifications.notify(another({ sub: `user-${i}` }))
    await settled(all)
    t.ok(performance.now() - start < 4000)
    t.equal(all.sent.length, 20)
    t.match(all.log, [{ error: { message: 'the store did not answer within 1000 ms' } }])
  })
})

t.test('a channel that fails', async t => {
  t.test('is called again, with the same notification; the others are not', async t => {
    const tries: Array<{ notification: Notification, attempt: number }> = []
    const all = rig(t)
    all.notifications.add((notification, { attempt }): void => {
      tries.push({ notification, attempt })
      if (attempt < 3) throw new Error('later')
    })
    all.notifications.notify(draft)
    await settled(all)
    t.strictSame(tries.map(({ attempt }) => attempt), [1, 2, 3])
    t.ok(tries.every(({ notification }) => notification === tries[0]?.notification))
    t.equal(all.sent.length, 1)
    t.match(all.notifications.stats, { sent: 2, failed: 0 })
    t.strictSame(all.log, [])
  })

  t.test('for good is given up after three tries, or at once where it says so, and told once a minute', async t => {
    const tries = new Map<string, number>()
    const failing = (name: string, error: Error) => {
      tries.set(name, (tries.get(name) ?? 0) + 1)
      throw error
    }
    const all = rig(t, { perUser: false })
    all.notifications.add(() => failing('broken', new Error('broken')), { name: 'broken' })
    all.notifications.add(async function gone () { failing('gone', new Undeliverable('gone')) })
    for (let i = 0; i < 10; i++) all.notifications.notify(another())
    await settled(all)
    t.strictSame(Object.fromEntries(tries), { broken: 30, gone: 10 })
    t.match(all.notifications.stats, { sent: 10, failed: 20 })
    t.strictSame(all.log.map(({ message }) => message).sort(), ['broken', 'gone'].map(name => `notifications are lost: the channel ${name} failed 1 times so far`))
    all.clock.advance(MINUTE)
    all.notifications.notify(another())
    await settled(all)
    t.strictSame(all.log.slice(2).map(({ message }) => message).sort(), ['broken', 'gone'].map(name => `notifications are lost: the channel ${name} failed 11 times so far`))
  })

  t.test('in whatever way hurts nothing', async t => {
    const nonsense: unknown[] = [
      () => 5,
      () => ({ then: 'x' }),
      () => ({ then () { throw new Error('then') } }),
      () => ({ get then () { throw new Error('get then') } }),
      // eslint-disable-next-line no-throw-literal -- a channel may throw anything
      () => { throw undefined },
      // eslint-disable-next-line prefer-promise-reject-errors -- or reject with it
      () => Promise.reject(null),
      (notification: Notification) => { Object.assign(notification, { sub: 'eve' }) }
    ]
    const all = rig(t, { channels: nonsense as Channel[], attempts: 1 })
    all.notifications.add(notification => { all.sent.push(notification) })
    all.notifications.notify(draft)
    await settled(all)
    t.match(all.sent, [{ sub: 'alice' }])
    t.match(all.notifications.stats, { sent: 3, failed: 5 })
  })

  t.test('waits between tries', async t => {
    const tries: number[] = []
    const all = rig(t, {
      pause: 100,
      channels: [() => {
        tries.push(performance.now())
        throw new Error('later')
      }]
    })
    all.notifications.notify(another())
    await settled(all)
    const [first = NaN, second = NaN, third = NaN] = tries
    t.ok(second - first >= 49)
    t.ok(third - second >= 199)
  })

  t.test('longer each time, and not in step with others', async t => {
    for (const [attempt, longest] of [[2, 100], [3, 400], [4, 1600], [10, 300_000]] as const) {
      const pauses = Array.from({ length: 100 }, () => pauseBefore(attempt, 100))
      t.ok(pauses.every(ms => ms >= longest / 2 && ms < longest), `before attempt ${attempt}`)
      t.ok(new Set(pauses).size > 90)
    }
  })
})

t.test('tries that fail at once leave time to others, except when it closes', async t => {
  const options: NotificationOptions = { attempts: 1, concurrency: 1, perUser: false, channels: [() => { throw new Error('down') }] }
  const all = rig(t, options)
  const start = performance.now()
  for (let i = 0; i < 5; i++) all.notifications.notify(another())
  await settled(all)
  t.ok(performance.now() - start >= 4 * 49)

  const closing = rig(t, { ...options, flush: '1s' })
  for (let i = 0; i < 100; i++) closing.notifications.notify(another())
  await until(() => closing.notifications.stats.failed === 1)
  await closing.notifications.close()
  t.match(closing.notifications.stats, { failed: 100, dropped: 0 })
})

t.test('a channel that hangs', async t => {
  t.test('is told to stop, and counts as failed where it does; the others are served meanwhile', async t => {
    const reasons: unknown[] = []
    const all = rig(t, { timeout: 50, attempts: 1 })
    all.notifications.add(async (_, { signal }) => await new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => {
        reasons.push(signal.reason)
        reject(signal.reason)
      })
    }), { name: 'slow' })
    all.notifications.notify(draft)
    await until(() => all.sent.length === 1)
    t.equal(all.notifications.stats.queued, 1)
    await settled(all)
    t.match(all.notifications.stats, { sent: 1, failed: 1 })
    t.match(reasons, [{ message: 'it did not answer in time' }])
    t.match(all.log, [{ error: reasons[0], message: /slow/ }])
  })

  t.test('and does not stop holds no more than its queue, until it answers', async t => {
    const held: Array<() => void> = []
    const all = rig(t, { timeout: 20, attempts: 1, queue: 10, perUser: false, channels: [async () => await new Promise(resolve => held.push(resolve))] })
    for (let i = 0; i < 50; i++) {
      all.notifications.notify(another())
      await settled(all)
    }
    t.equal(held.length, 10)
    t.match(all.notifications.stats, { sent: 0, failed: 10, dropped: 40 })
    for (const answer of held) answer()
    await setImmediate()
    t.match(all.notifications.stats, { sent: 0, failed: 10 }, 'a late answer counts no more')
    all.notifications.notify(another())
    await until(() => held.length === 11)
    held[10]?.()
    await settled(all)
    t.equal(all.notifications.stats.sent, 1)
  })
})

t.test('a queue', async t => {
  t.test('has an end: the newest are dropped, counted, and told once a minute', async t => {
    const held = deferred()
    const got: number[] = []
    const all = rig(t, { queue: 10, perUser: false, channels: [async ({ at }) => { await held.promise; got.push(at) }] })
    for (let i = 0; i < 25; i++) {
      all.notifications.notify(another({ at: i }))
      await until(() => all.notifications.stats.dropped + all.notifications.stats.queued === i + 1)
      await setImmediate()
    }
    t.match(all.notifications.stats, { queued: 10, dropped: 15 })
    t.match(all.log, [{ error: { dropped: 1 }, message: /^notifications are dropped: 10 wait for the channel .* already/ }])
    t.equal(all.log.length, 1)
    all.clock.advance(MINUTE)
    all.notifications.notify(another())
    t.match(all.log, [{}, { error: { dropped: 16 } }])
    held.resolve()
    await settled(all)
    t.strictSame(got, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })

  t.test('counts what waits for its next try', async t => {
    const all = rig(t, { queue: 5, pause: '5m', perUser: false, channels: [() => { throw new Error('later') }] })
    for (let i = 0; i < 5; i++) all.notifications.notify(another())
    await until(() => all.notifications.stats.queued === 5)
    while (all.notifications.stats.dropped === 0) {
      all.notifications.notify(another())
      await setImmediate()
    }
    t.equal(all.notifications.stats.queued, 5)
  })

  t.test('has an end also in front of a slow store', async t => {
    const held = deferred<boolean>()
    const all = rig(t, { queue: 10 }, { mark: async () => await held.promise })
    for (let i = 0; i < 25; i++) all.notifications.notify(another({ sub: `user-${i}` }))
    t.match(all.notifications.stats, { queued: 10, dropped: 15 })
    t.match(all.log, [{ message: /the store already/ }])
    held.resolve(true)
    await settled(all)
    t.equal(all.sent.length, 10)
  })

  t.test('tries four at once, or as many as the option says, and no more in one turn', async t => {
    for (const concurrency of [undefined, 2]) {
      const max = concurrency ?? 4
      let [now, most, turn, mostInTurn] = [0, 0, 0, 0]
      const all = rig(t, {
        perUser: false,
        ...concurrency !== undefined && { concurrency },
        channels: [async () => {
          most = Math.max(most, ++now)
          mostInTurn = Math.max(mostInTurn, ++turn)
          await Promise.resolve()
          now--
        }]
      })
      for (let i = 0; i < 40; i++) all.notifications.notify(another())
      while (all.notifications.stats.queued > 0) {
        turn = 0
        await setImmediate()
      }
      t.equal(all.notifications.stats.sent, 40)
      t.equal(most, max)
      t.ok(mostInTurn <= 2 * max, 'of two turns, between which we look')
    }
  })
})

t.test('closing', async t => {
  t.test('gives what waits one more try, and takes nothing on', async t => {
    let down = true
    const sent: Notification[] = []
    const all = rig(t, {
      pause: '5m',
      channels: [notification => {
        if (down) throw new Error('later')
        sent.push(notification)
      }]
    })
    for (let i = 0; i < 10; i++) all.notifications.notify(another())
    await until(() => all.notifications.stats.queued === 10)
    await setImmediate()
    down = false
    all.notifications.notify(another())
    const closing = all.notifications.close()
    t.equal(all.notifications.close(), closing)
    all.notifications.notify(another())
    await closing
    all.notifications.notify(another())
    await setImmediate()
    t.equal(sent.length, 11)
    t.match(all.notifications.stats, { queued: 0, sent: 11, failed: 0, dropped: 2 })
  })

  t.test('a try that fails then is the last', async t => {
    let tries = 0
    const all = rig(t, { pause: '5m', channels: [() => { tries++; throw new Error('later') }] })
    all.notifications.notify(draft)
    await until(() => tries === 1)
    await setImmediate()
    await all.notifications.close()
    t.equal(tries, 2)
    t.match(all.notifications.stats, { queued: 0, failed: 1 })
  })

  t.test('waits for no channel and no store that hangs', async t => {
    const signals: AbortSignal[] = []
    const all = rig(t, { flush: 50, timeout: '1m', concurrency: 2, perUser: false, channels: [async (_, { signal }) => { signals.push(signal); await new Promise(() => {}) }] })
    for (let i = 0; i < 5; i++) all.notifications.notify(another())
    await until(() => signals.length === 2)
    const start = performance.now()
    await all.notifications.close()
    t.ok(performance.now() - start < 1000)
    t.ok(signals.every(({ aborted }) => aborted))
    t.match(all.notifications.stats, { queued: 0, sent: 0, failed: 2, dropped: 3 })

    const stuck = rig(t, { flush: 50 }, { mark: () => new Promise(() => {}) })
    stuck.notifications.notify(draft)
    await until(() => stuck.notifications.stats.queued === 1)
    await stuck.notifications.close()
    t.match(stuck.notifications.stats, { queued: 0, sent: 0 })
  })
})

t.test('options are checked, and the message says what they may be', async t => {
  const faults: Array<[unknown, string]> = [
    [{ queue: 0 }, 'notifications.queue is 0: it may be a whole number from 1 to 100000'],
    [{ perUser: { max: 0 } }, 'notifications.perUser.max is 0: it may be a whole number from 1 to 1000'],
    [{ perUser: { max: 1001 } }, 'notifications.perUser.max is 1001: it may be a whole number from 1 to 1000'],
    [{ perUser: { window: 'x' } }, 'notifications.perUser.window is \'x\': it may be a number of milliseconds, or text such as "15m"'],
    [{ perUser: { window: 10 } }, 'notifications.perUser.window is 10 ms: it may be 1000 to 86400000'],
    [{ perUser: true }, 'notifications.perUser is true: it may be false, or { max, window }'],
    [{ perUser: { per: 1 } }, 'notifications.perUser.per is not an option: there are max, window'],
    [{ dedupeFor: '2d' }, 'notifications.dedupeFor is 172800000 ms: it may be 0 to 86400000'],
    [{ attempts: 1.5 }, 'notifications.attempts is 1.5: it may be a whole number from 1 to 10'],
    [{ timeout: 0 }, 'notifications.timeout is 0 ms: it may be 10 to 60000'],
    [{ pause: 0 }, 'notifications.pause is 0 ms: it may be 1 to 300000'],
    [{ flush: '2m' }, 'notifications.flush is 120000 ms: it may be 0 to 60000'],
    [{ concurrency: 101 }, 'notifications.concurrency is 101: it may be a whole number from 1 to 100'],
    [{ channels: ['mail'] }, 'notifications.channels.0 is \'mail\': it may be a function'],
    [{ channel: [] }, 'notifications.channel is not an option: there are channels, queue, dedupeFor, perUser, attempts, timeout, pause, flush, concurrency']
  ]
  for (const [given, fault] of faults) {
    t.throws(() => resolveNotificationOptions(given as NotificationOptions), { code: 'FST_SESSION_LIMITS_OPTIONS', statusCode: 500, message: `session-limits: ${fault}` }, fault)
  }
  t.strictSame(resolveNotificationOptions(), { channels: [], queue: 1000, dedupeFor: 600_000, perUser: { max: 20, window: HOUR }, attempts: 3, timeout: 5000, pause: 1000, flush: 5000, concurrency: 4 })
  t.doesNotThrow(() => resolveNotificationOptions(Object.freeze({ perUser: Object.freeze({ max: 5 }), channels: Object.freeze([]) })), 'nothing is changed in what was given')

  const { notifications } = rig(t)
  t.throws(() => notifications.add('x' as unknown as Channel), { code: 'FST_SESSION_LIMITS_OPTIONS', message: 'session-limits: a channel of notifications is of type string: it may be a function' })
  t.throws(() => notifications.add(() => {}, { types: ['new-devise' as 'new-device'] }), { code: 'FST_SESSION_LIMITS_OPTIONS', message: /new-devise is no type of notification: there are new-device, / })
})
