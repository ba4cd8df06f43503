import { within } from '../../token-registry/index.ts'
import { Admission, type Mark } from './admission.ts'
import { checkDraft, keyOf, notificationOf, notificationTypes, withDevice, type Channel, type Notification, type NotificationDraft, type NotificationType } from './event.ts'
import { occasionally, type Log } from './occasionally.ts'
import { refuse, type ResolvedNotificationOptions } from './options.ts'
import { WorkQueue, type Work } from './work-queue.ts'

/** What the store is asked of at once. */
const JUDGED_AT_ONCE = 8
/** ms; each question has a deadline of its own */
const JUDGED_WITHIN = 60_000
/** ms */
const FOUND_WITHIN = 1000

/** Finds the device that a notification is about; null where there is none. */
export type FindDevice = () => Promise<Notification['device']>

export interface NotificationParts {
  /** The store's `mark`, which all instances share. */
  mark: Mark
  /** ms since the epoch */
  now: () => number
  log: Log
}

export interface ChannelOptions {
  /** What the log calls it; the name of the function, or a number. */
  name?: string
  /** What it is called for; everything where it is left out. */
  types?: readonly NotificationType[]
}

/** Counted since the start, but for `queued`. `sent` and `failed` count each channel. */
export interface NotificationFigures extends Record<string, number> {
  /** not sent yet */
  queued: number
  sent: number
  /** tried in vain, and not tried again; or not understood */
  failed: number
  /** there was no room, or no time when it was closed */
  dropped: number
  /** the same was sent a short while ago */
  duplicates: number
  /** the user had got as many as one gets */
  limited: number
}

interface Arrival {
  notification: Notification
  key: string | null
  findDevice: FindDevice | undefined
}

interface OpenChannel {
  types: readonly NotificationType[]
  deliveries: WorkQueue<Notification>
}

/** Tells users what happens to their sessions, by channels, in the background. */
export class Notifications {
  readonly #options: ResolvedNotificationOptions
  readonly #admission: Admission
  readonly #now: () => number
  readonly #newLog: () => Log
  readonly #tellFailed: Log
  readonly #tellNotFound: Log
  readonly #arrivals: WorkQueue<Arrival>
  readonly #channels: OpenChannel[] = []
  #duplicates = 0
  #limited = 0
  #failed = 0
  #closed: Promise<void> | null = null

  constructor (options: ResolvedNotificationOptions, { mark, now, log }: NotificationParts) {
    this.#options = options
    this.#now = now
    this.#newLog = () => occasionally(now, log)
    this.#tellFailed = this.#newLog()
    this.#tellNotFound = this.#newLog()
    const tell = this.#newLog()
    this.#admission = new Admission(options, mark, now, error => tell(error, 'the store does not say which notifications were sent: some may be sent twice'))
    this.#arrivals = this.#queue('the store', { ...options, concurrency: JUDGED_AT_ONCE, attempts: 1, timeout: JUDGED_WITHIN }, async arrival => await this.#judge(arrival))
    for (const channel of options.channels) this.add(channel)
  }

  /**
   * Adds a channel. Each has its own queue and tries: none waits for another.
   *
   * @throws {LimitOptions} where it is no function, or a type is unknown
   */
  add (channel: Channel, { name, types = notificationTypes }: ChannelOptions = {}): void {
    if (typeof channel !== 'function') refuse(`a channel of notifications is of type ${typeof channel}: it may be a function`)
    const unknown = types.find(type => !notificationTypes.includes(type))
    if (unknown !== undefined) refuse(`${unknown} is no type of notification: there are ${notificationTypes.join(', ')}`)
    const called = name ?? (channel.name || this.#channels.length + 1)
    this.#channels.push({ types, deliveries: this.#queue(`the channel ${called}`, this.#options, channel) })
  }

  /**
   * Takes a notification on for every channel that asks for its type. Returns at once and never throws: what becomes of it shows in `stats`. What is no
   * notification has failed.
   *
   * @param findDevice is asked where it is to be sent, for a second at most; where that fails it is sent without a device
   */
  notify (draft: NotificationDraft, findDevice?: FindDevice): void {
    try {
      checkDraft(draft)
      this.#take(draft, findDevice)
    } catch (error) {
      this.#failed++
      this.#tellFailed(error, `notifications are lost: ${this.#failed} were not understood so far`)
    }
  }

  get stats (): NotificationFigures {
    const figures = { queued: this.#arrivals.size, sent: 0, failed: this.#failed + this.#arrivals.failed, dropped: this.#arrivals.dropped, duplicates: this.#duplicates, limited: this.#limited }
    for (const { deliveries: { size, done, failed, dropped } } of this.#channels) {
      figures.queued += size
      figures.sent += done
      figures.failed += failed
      figures.dropped += dropped
    }
    return figures
  }

  /** Tries what waits once more, for as long as `flush` says. Nothing is taken on afterwards, nothing left open. */
  close (): Promise<void> {
    this.#closed ??= this.#close(performance.now() + this.#options.flush)
    return this.#closed
  }

  async #close (deadline: number): Promise<void> {
    const left = (): number => Math.max(0, deadline - performance.now())
    await this.#arrivals.close(left())
    await Promise.all(this.#channels.map(async ({ deliveries }) => await deliveries.close(left())))
  }

  #take (draft: NotificationDraft, findDevice: FindDevice | undefined): void {
    const wanting = this.#wanting(draft.type)
    if (wanting.length === 0) return
    const key = this.#options.dedupeFor === 0 ? null : keyOf(draft)
    if (key !== null && this.#admission.knows(key)) this.#duplicates++
    // What nobody has room for is not noted as sent.
    else if (wanting.every(({ deliveries }) => deliveries.full)) wanting.forEach(({ deliveries }) => deliveries.drop())
    else if (this.#arrivals.full) this.#arrivals.drop()
    else this.#admit({ notification: notificationOf(draft, this.#now()), key, findDevice })
  }

  #admit (arrival: Arrival): void {
    if (arrival.key !== null) this.#admission.remember(arrival.key)
    this.#arrivals.add(arrival)
  }

  async #judge ({ notification, key, findDevice }: Arrival): Promise<void> {
    const verdict = await this.#admission.judge(notification, key)
    if (verdict === 'duplicate') this.#duplicates++
    else if (verdict === 'limited') this.#limited++
    else this.#deliver(findDevice === undefined ? notification : withDevice(notification, await this.#found(findDevice)))
  }

  async #found (findDevice: FindDevice): Promise<Notification['device']> {
    try {
      return await within(findDevice(), FOUND_WITHIN, () => new Error(`it was not found within ${FOUND_WITHIN} ms`))
    } catch (error) {
      this.#tellNotFound(error, 'notifications are sent without the device that they are about')
      return null
    }
  }

  #deliver (notification: Notification): void {
    for (const { deliveries } of this.#wanting(notification.type)) deliveries.add(notification)
  }

  #wanting (type: NotificationType): OpenChannel[] {
    return this.#channels.filter(({ types }) => types.includes(type))
  }

  #queue<T> (name: string, options: ResolvedNotificationOptions, work: Work<T>): WorkQueue<T> {
    const [tellFailed, tellDropped] = [this.#newLog(), this.#newLog()]
    const queue = new WorkQueue<T>(work, options, {
      failed: error => tellFailed(error, `notifications are lost: ${name} failed ${queue.failed} times so far`),
      dropped: () => tellDropped({ dropped: queue.dropped }, `notifications are dropped: ${options.queue} wait for ${name} already, or the server closes`)
    })
    return queue
  }
}
