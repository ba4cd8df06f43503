import { randomBytes } from 'node:crypto'
import { Clock } from './clock.ts'
import { isCluster, type Connection } from './connection.ts'
import type { Keys } from './keys.ts'
import { Losses, type Loss } from './losses.ts'
import { beat } from './scripts/beat.ts'
import { HashTags } from './slots.ts'
import { Topology } from './topology.ts'
import { Watch } from './watch.ts'

/** ms between two heartbeats */
const BEAT = 200

/** What other processes change, and the store's clock: heartbeats prove the one and tell the other. */
export class Coherence {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #clock = new Clock()
  readonly #topology: Topology
  readonly #tags = new HashTags()
  readonly #listeners = new Set<(names: readonly string[] | 'all') => void>()
  /** By the address of their primary. */
  readonly #watches = new Map<string, Watch>()
  readonly #losses = new Losses()
  /** Where this process counts its heartbeats. */
  readonly #process = randomBytes(9).toString('base64url')
  /** When it was last proved that changes are heard, by the monotonic clock. */
  #provedAt = -Infinity
  readonly #lossListeners = new Set<(address: string, loss: Loss) => void>()
  #timer: NodeJS.Timeout | undefined

  constructor (connection: Connection, keys: Keys) {
    this.#connection = connection
    this.#keys = keys
    this.#topology = new Topology(() => connection.addresses(), () => {
      this.#arrange()
      this.#heard('all')
    })
  }

  /** ms since it was last proved that invalidations arrive, from each primary, and that no other keeps a key */
  get staleness (): number {
    return performance.now() - this.#provedAt
  }

  /** ms that a change takes to be heard of, from the slowest primary */
  get delay (): number {
    return Math.max(0, ...[...this.#watches.values()].map(({ delay }) => delay))
  }

  /** ms since the epoch, by the clock of Redis */
  now (): number {
    return this.#clock.now()
  }

  /** Tells the keys of sessions and marks that changed; `'all'` where some may have been missed. */
  onChange (listener: (names: readonly string[] | 'all') => void): void {
    this.#listeners.add(listener)
  }

  /** Tells that a server has lost what was written, or may have: it was restarted from a snapshot, or promoted before it had everything. */
  onLoss (listener: (address: string, loss: Loss) => void): void {
    this.#lossListeners.add(listener)
  }

  begin (): void {
    this.#pulse()
    this.#timer = setInterval(() => this.#pulse(), BEAT).unref()
  }

  close (): void {
    clearInterval(this.#timer)
    for (const watch of this.#watches.values()) watch.close()
    this.#watches.clear()
    this.#prove()
  }

  /** What is asked at each request is worked out where it changes. */
  #prove (): void {
    const times = [...this.#watches.values()].map(watch => watch.provedAt)
    if (this.#connection.cluster) times.push(this.#topology.provedAt)
    this.#provedAt = this.#watches.size === 0 ? -Infinity : Math.min(...times)
  }

  #pulse (): void {
    this.#arrange()
    for (const watch of this.#watches.values()) watch.pulse()
  }

  /** Watches those that keep keys now, and no other. */
  #arrange (): void {
    const addresses = new Set(this.#connection.addresses())
    for (const address of addresses) if (!this.#watches.has(address)) this.#watches.set(address, this.#newWatch(address))
    for (const [address, watch] of this.#watches) {
      if (addresses.has(address)) continue
      watch.close()
      this.#watches.delete(address)
    }
    this.#prove()
  }

  #newWatch (address: string): Watch {
    return new Watch({
      connect: () => this.#connection.newWatcher(address),
      channel: `${this.#keys.prefix}changes`,
      tracked: refusal => this.#connection.tracked(refusal),
      beat: async (start, end) => await this.#beat(address, start, end),
      prefixes: { beats: this.#keys.kind('h'), others: [this.#keys.kind('s'), this.#keys.kind('d')] },
      heard: names => this.#heard(names),
      proved: () => {
        this.#prove()
        this.#connection.proved(this.#provedAt)
      },
      failed: error => this.#connection.failed(error, `Redis at ${address} does not return heartbeats: nothing is served from the cache until it does`)
    })
  }

  async #beat (address: string, start: string, end: string): Promise<void> {
    const { client } = this.#connection
    const tag = isCluster(client) ? this.#tags.leadingTo(address, client) : ''
    const sentAt = performance.now()
    const sent = this.#losses.send(tag, sentAt)
    const [names, settings] = [[start + tag + end, this.#keys.kind('n') + tag + this.#process], this.#connection.publishes ? '0p' : '0']
    const reply = await this.#connection.ask('a heartbeat', client => beat.run(client, names, [this.#keys.prefix, tag, settings, sent.number]))
    const [micros, epoch, last, server] = reply as [string, string, string, string] // as the script says
    this.#clock.learn(sentAt, performance.now(), Number(micros) / 1000)
    const loss = this.#losses.learn(tag, sent, Number(last), server)
    if (loss !== null) for (const listener of this.#lossListeners) listener(address, loss)
    if (!isCluster(client)) return
    this.#topology.learn(client, address, epoch, sentAt)
    this.#prove()
  }

  #heard (names: readonly string[] | 'all'): void {
    for (const listener of this.#listeners) listener(names)
  }
}
