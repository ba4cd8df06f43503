import { randomBytes } from 'node:crypto'
import type { Redis } from 'ioredis'

const INVALIDATIONS = '__redis__:invalidate'
/** Heartbeats that were written and did not come back, after which watching begins anew. (Not a time: a process that was paused has heard nothing, and missed nothing.) */
const LOST = 3
/** Heartbeats under way that are remembered. */
const MAX_SENT = 64

export interface WatchOptions {
  /** Makes a connection that nothing else uses, to the server that `beat` writes to. */
  connect: () => Redis
  /** On which scripts publish the names of keys that they change, where watching is refused. */
  channel: string
  /** Is told whether it was refused. */
  tracked: (refusal: Error | null) => void
  /** Writes a key whose name begins and ends so. */
  beat: (start: string, end: string) => Promise<void>
  /** How heartbeats begin, and the other keys that are watched. */
  prefixes: { beats: string, others: readonly string[] }
  /** Is told watched keys that changed; `'all'` where some may have been missed. */
  heard: (keys: readonly string[] | 'all') => void
  /** Is told that a heartbeat came back. */
  proved: () => void
  /** Is told what keeps it from watching. */
  failed: (error: unknown) => void
}

/**
 * Watches the keys of one primary, by invalidations (`CLIENT TRACKING`) or by what scripts publish, and proves that it does: a heartbeat must come back.
 * A connection that answers proves nothing: a broken subscription and a primary that was cut off both answer.
 */
export class Watch {
  readonly #options: WatchOptions
  /** How its own heartbeats begin: nobody else is told them. */
  readonly #beats: string
  /** When heartbeats were sent, by number. */
  readonly #sent = new Map<number, number>()
  #connection: Redis | null = null
  /** Whether the server was asked for invalidations on this connection, and said yes. */
  #armed = false
  #count = 0
  /** Heartbeats that were written since the last one that came back. */
  #unheard = 0
  #provedAt = -Infinity
  #delay = 0
  /** Whether something may have been missed since the last heartbeat that came back. */
  #gap = true

  constructor (options: WatchOptions) {
    this.#options = options
    this.#beats = `${options.prefixes.beats}${randomBytes(9).toString('base64url')}:`
  }

  /** When the last heartbeat that came back was sent, by the monotonic clock: what changed before is known. */
  get provedAt (): number {
    return this.#provedAt
  }

  /** ms that the last heartbeat took from here to the server and back: as long as others take to hear of a change */
  get delay (): number {
    return this.#delay
  }

  /** Sends a heartbeat; where those before did not come back, begins anew. */
  pulse (): void {
    if (this.#armed && this.#unheard >= LOST) {
      this.#options.failed(new Error('no heartbeat comes back'))
      this.#disconnect()
    }
    if (this.#connection === null) this.#begin()
    const number = ++this.#count
    this.#sent.set(number, performance.now())
    this.#sent.delete(number - MAX_SENT)
    this.#options.beat(this.#beats, `:${number}`).then(() => { this.#unheard++ }, this.#options.failed)
  }

  close (): void {
    this.#disconnect()
  }

  #disconnect (): void {
    this.#connection?.disconnect()
    this.#connection = null
    this.#deaf()
  }

  #deaf (): void {
    this.#armed = false
    this.#gap = true
    this.#unheard = 0
  }

  #begin (): void {
    const connection = this.#options.connect()
    this.#connection = connection
    const ifCurrent = (act: () => void): void => { if (connection === this.#connection) act() }
    connection.on('error', error => ifCurrent(() => this.#options.failed(error)))
    connection.on('close', () => ifCurrent(() => this.#deaf()))
    connection.on('ready', () => ifCurrent(() => { this.#subscribe(connection) }))
    // An invalidation has a list of names; what is published is one.
    connection.on('messageBuffer', (_channel: Buffer, told: Buffer | Buffer[] | null) => ifCurrent(() => this.#hear(Buffer.isBuffer(told) ? [told] : told)))
    connection.connect().catch(() => {}) // told as 'error'
  }

  async #subscribe (connection: Redis): Promise<void> {
    try {
      await connection.subscribe(await this.#track(connection) ? INVALIDATIONS : this.#options.channel)
    } catch (error) {
      if (connection !== this.#connection) return
      this.#options.failed(error)
      return this.#disconnect()
    }
    if (connection !== this.#connection) return
    this.#armed = true
    this.#unheard = 0
    this.pulse()
  }

  /** @returns false where the server refuses it: some proxies and hosted ones do, and an ACL may */
  async #track (connection: Redis): Promise<boolean> {
    const prefixes = [this.#beats, ...this.#options.prefixes.others].flatMap(prefix => ['PREFIX', prefix])
    try {
      await connection.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', await connection.client('ID'), 'BCAST', ...prefixes)
      this.#options.tracked(null)
      return true
    } catch (error) {
      if (!(error instanceof Error && error.name === 'ReplyError')) throw error
      this.#options.tracked(error)
      return false
    }
  }

  /** @param keys null where the server forgot all of them (FLUSHALL) */
  #hear (keys: Buffer[] | null): void {
    if (keys === null) return this.#options.heard('all')
    const names = keys.map(key => key.toString())
    const changed = names.filter(name => !name.startsWith(this.#options.prefixes.beats))
    // First: what has just been told may be older than the heartbeat.
    if (changed.length > 0) this.#options.heard(changed)
    for (const name of names) if (name.startsWith(this.#beats)) this.#prove(Number(name.slice(name.lastIndexOf(':') + 1)))
  }

  #prove (number: number): void {
    const sentAt = this.#sent.get(number)
    if (sentAt === undefined) return
    for (const earlier of this.#sent.keys()) if (earlier <= number) this.#sent.delete(earlier)
    if (this.#gap) this.#options.heard('all')
    this.#gap = false
    this.#unheard = 0
    this.#provedAt = sentAt
    this.#delay = performance.now() - sentAt
    this.#options.proved()
  }
}
