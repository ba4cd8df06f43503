import type { Cluster, Redis } from 'ioredis'
import { Clock } from './clock.ts'
import type { Connection } from './connection.ts'
import type { Keys } from './keys.ts'
import { beat } from './scripts/beat.ts'
import { Watch } from './watch.ts'

/** ms between two heartbeats */
const BEAT = 200
/** ms that the key of a heartbeat lives */
const BEAT_LIVES = 5000
/** Hash tags among which each primary of a Cluster finds one of its own. */
const TAGS = 1024

/** What other processes change, and the store's clock: heartbeats prove the one and tell the other. */
export class Coherence {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #log: (error: unknown, message: string) => void
  readonly #clock = new Clock()
  readonly #listeners = new Set<(names: readonly string[] | 'all') => void>()
  /** By the address of their primary. */
  readonly #watches = new Map<string, Watch>()
  /** Slots of a Cluster, with a hash tag that leads there. */
  #tags: Promise<ReadonlyArray<readonly [slot: number, tag: string]>> | null = null
  #timer: NodeJS.Timeout | undefined

  constructor (connection: Connection, keys: Keys, log: (error: unknown, message: string) => void) {
    this.#connection = connection
    this.#keys = keys
    this.#log = log
  }

  /** ms since it was last proved that invalidations arrive, from each primary */
  get staleness (): number {
    let staleness = this.#watches.size === 0 ? Infinity : 0
    for (const watch of this.#watches.values()) staleness = Math.max(staleness, watch.staleness)
    return staleness
  }

  /** ms since the epoch, by the clock of Redis */
  now (): number {
    return this.#clock.now()
  }

  /** Tells the keys of sessions and marks that changed; `'all'` where some may have been missed. */
  onChange (listener: (names: readonly string[] | 'all') => void): void {
    this.#listeners.add(listener)
  }

  begin (): void {
    this.#pulse()
    this.#timer = setInterval(() => this.#pulse(), BEAT).unref()
  }

  close (): void {
    clearInterval(this.#timer)
    for (const watch of this.#watches.values()) watch.close()
  }

  #pulse (): void {
    const primaries = new Map(this.#connection.primaries().map(primary => [addressOf(primary), primary]))
    for (const [address, watch] of this.#watches) {
      if (primaries.has(address)) continue
      watch.close()
      this.#watches.delete(address)
    }
    for (const address of primaries.keys()) {
      const watch = this.#watches.get(address) ?? this.#newWatch(address)
      this.#watches.set(address, watch)
      watch.pulse()
    }
  }

  #newWatch (address: string): Watch {
    return new Watch({
      connect: () => this.#connection.newWatcher(this.#connection.primaries().find(primary => addressOf(primary) === address) as Redis),
      beat: async ending => await this.#beat(address, ending),
      prefixes: { beats: this.#keys.kind('h'), others: [this.#keys.kind('s'), this.#keys.kind('d')] },
      heard: names => { for (const listener of this.#listeners) listener(names) },
      failed: error => this.#log(error, `changes in Redis at ${address} are not heard of: nothing is served from the cache`)
    })
  }

  async #beat (address: string, ending: string): Promise<void> {
    const tag = this.#connection.cluster ? await this.#tagOn(address) : ''
    const sentAt = performance.now()
    const micros = await this.#connection.ask('a heartbeat', client => beat.run(client, [this.#keys.kind('h') + tag + ending], [this.#keys.prefix, tag, 0, BEAT_LIVES]))
    this.#clock.learn(sentAt, performance.now(), Number(micros) / 1000)
  }

  /** A hash tag of which the keys are kept by that primary. */
  async #tagOn (address: string): Promise<string> {
    const cluster = this.#connection.client as Cluster // only a Cluster has hash tags
    this.#tags ??= this.#askTags(cluster)
    const found = (await this.#tags).find(([slot]) => cluster.slots[slot]?.[0] === address)
    if (found === undefined) throw new Error(`no slot is known that ${address} keeps`)
    return found[1]
  }

  async #askTags (cluster: Cluster): Promise<ReadonlyArray<readonly [slot: number, tag: string]>> {
    try {
      return await Promise.all(Array.from({ length: TAGS }, async (_, index) => [await cluster.cluster('KEYSLOT', `{${index}}`), `{${index}}`] as const))
    } catch (error) {
      this.#tags = null
      throw error
    }
  }
}

function addressOf ({ options: { host, port } }: Redis): string {
  return `${host}:${port}`
}
