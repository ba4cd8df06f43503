import { randomBytes } from 'node:crypto'
import type { Redis } from 'ioredis'

const CHANNEL = '__redis__:invalidate'
/** ms without a heartbeat coming back after which watching begins anew */
const LOST = 500
/** Heartbeats under way that are remembered. */
const MAX_SENT = 64

export interface WatchOptions {
  /** Makes a connection that nothing else uses, to the server that `beat` writes to. */
  connect: () => Redis
  /** Writes a key whose name ends so, among the heartbeats of that server. */
  beat: (ending: string) => Promise<void>
  /** How heartbeats begin, and the other keys that are watched. */
  prefixes: { beats: string, others: readonly string[] }
  /** Is told watched keys that changed; `'all'` where some may have been missed. */
  heard: (keys: readonly string[] | 'all') => void
  /** Is told the first failure after all was well. */
  failed: (error: unknown) => void
}

/**
 * Watches the keys of one primary, by invalidations (`CLIENT TRACKING`), and proves that it does: a heartbeat must come back as one.
 * A connection that answers proves nothing: a broken subscription and a primary that was cut off both answer.
 */
export class Watch {
  readonly #options: WatchOptions
  /** Tells its own heartbeats from those of others. */
  readonly #name = randomBytes(9).toString('base64url')
  /** When heartbeats were sent, by number. */
  readonly #sent = new Map<number, number>()
  #connection: Redis | null = null
  #count = 0
  #provedAt = -Infinity
  #beganAt = -Infinity
  /** Whether something may have been missed since the last heartbeat that came back. */
  #gap = true
  #failing = false
  #closed = false

  constructor (options: WatchOptions) {
    this.#options = options
  }

  /** ms since the last heartbeat that came back was sent */
  get staleness (): number {
    return performance.now() - this.#provedAt
  }

  /** Sends a heartbeat; where none comes back, begins anew. */
  pulse (): void {
    const now = performance.now()
    if (now - Math.max(this.#provedAt, this.#beganAt) > LOST) this.#begin()
    const number = ++this.#count
    this.#sent.set(number, now)
    this.#sent.delete(number - MAX_SENT)
    this.#options.beat(`${this.#name}:${number}`).catch(error => this.#failed(error))
  }

  close (): void {
    this.#closed = true
    this.#disconnect()
  }

  #disconnect (): void {
    this.#connection?.disconnect()
    this.#connection = null
  }

  /** Tells the first failure since a heartbeat came back. */
  #failed (error: unknown, connection = this.#connection): void {
    if (this.#closed || this.#failing || connection !== this.#connection) return
    this.#failing = true
    this.#options.failed(error)
  }

  #begin (): void {
    this.#disconnect()
    this.#beganAt = performance.now()
    const connection = this.#options.connect()
    this.#connection = connection
    connection.on('error', error => this.#failed(error, connection))
    connection.on('close', () => { this.#gap = true })
    connection.on('ready', () => { this.#subscribe(connection).catch(error => this.#failed(error, connection)) })
    connection.on('messageBuffer', (_channel: Buffer, keys: Buffer[] | null) => {
      if (connection === this.#connection) this.#hear(keys)
    })
    connection.connect().catch(() => {}) // told as 'error'
  }

  async #subscribe (connection: Redis): Promise<void> {
    const { beats, others } = this.#options.prefixes
    this.#gap = true
    const id = await connection.client('ID')
    await connection.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'BCAST', ...[beats, ...others].flatMap(prefix => ['PREFIX', prefix]))
    await connection.subscribe(CHANNEL)
  }

  /** @param keys null where the server forgot all of them (FLUSHALL) */
  #hear (keys: Buffer[] | null): void {
    if (keys === null) return this.#options.heard('all')
    const names = keys.map(key => key.toString())
    const changed = names.filter(name => !name.startsWith(this.#options.prefixes.beats))
    // First: what has just been told may be older than the heartbeat.
    if (changed.length > 0) this.#options.heard(changed)
    for (const name of names) {
      const at = name.indexOf(`${this.#name}:`)
      if (at > 0) this.#prove(Number(name.slice(at + this.#name.length + 1)))
    }
  }

  #prove (number: number): void {
    const sentAt = this.#sent.get(number)
    // Its key is told once more, when it expires.
    if (sentAt === undefined || sentAt <= this.#provedAt) return
    for (const earlier of this.#sent.keys()) if (earlier <= number) this.#sent.delete(earlier)
    if (this.#gap) this.#options.heard('all')
    this.#gap = false
    this.#failing = false
    this.#provedAt = sentAt
  }
}
