import { Cluster, Redis } from 'ioredis'
import { StoreTimeout, StoreUnavailable } from '../token-registry/index.ts'
import { StoreAbsent, StoreOptions } from './errors.ts'
import type { ResolvedOptions } from './options.ts'

export type Client = Redis | Cluster

/** ms until a connection is tried again: about twice as long each time, never in step with others */
function backoff (times: number): number {
  return Math.min(2 ** times * 10, 500) * (0.5 + Math.random())
}

/** The clients of one Redis: our own, which is replaced where it reaches its end, or the host's. */
export class Connection {
  /** Where it is, without user and password: for messages. */
  readonly where: string
  readonly #options: ResolvedOptions
  readonly #log: (error: unknown, message: string) => void
  #client: Client
  #closed = false
  /** Whether it is known to be out of order, which is told once. */
  #down = false
  #fault: Error | null = null

  /** @throws {StoreOptions} */
  constructor (options: ResolvedOptions, log: (error: unknown, message: string) => void) {
    this.#options = options
    this.#log = log
    this.where = placeOf(options)
    this.#client = options.client ?? this.#make()
    if (options.client?.options.keyPrefix) throw new StoreOptions('client has a keyPrefix of its own, which scripts would not see: give keyPrefix to redis-store instead')
  }

  get client (): Client {
    return this.#client
  }

  get cluster (): boolean {
    return isCluster(this.#client)
  }

  /**
   * Waits for the first answer.
   *
   * @throws {StoreAbsent}
   */
  async open (): Promise<void> {
    try {
      if (this.#options.client === undefined) await this.#client.connect()
      await this.ask('start', client => client.ping())
    } catch (error) {
      const fault = this.#fault ?? (error instanceof Error && error.cause instanceof Error ? error.cause : error)
      throw new StoreAbsent(this.where, fault instanceof Error ? fault.message || fault.name : String(fault), { cause: fault })
    }
  }

  /** Where keys live: one, or each primary of a Cluster. */
  primaries (): Redis[] {
    return isCluster(this.#client) ? this.#client.nodes('master') : [this.#client]
  }

  /** A connection for what is watched on one of them. In RESP 2: ioredis drops the invalidations of RESP 3. */
  newWatcher (primary: Redis): Redis {
    return primary.duplicate({ ...this.#common(), protocol: 2, lazyConnect: true, enableOfflineQueue: true, autoResubscribe: false, socketTimeout: undefined, retryStrategy: backoff })
  }

  /**
   * Does something with the client; what fails has a code.
   *
   * @throws {StoreUnavailable | StoreTimeout}
   */
  async ask<T> (operation: string, work: (client: Client) => Promise<T>): Promise<T> {
    try {
      return await work(this.#client)
    } catch (error) {
      if (!(error instanceof Error) || 'critical' in error) throw error
      if (error.message === 'Command timed out') throw new StoreTimeout(operation, this.#options.commandTimeout, { cause: error })
      throw new StoreUnavailable(operation, { cause: error })
    }
  }

  close (): void {
    this.#closed = true
    if (this.#options.client === undefined) this.#client.disconnect()
  }

  /** Its 'end' is not the end: a Sentinel that knew no primary, for example. */
  #make (): Client {
    const client = this.#connect()
    client.on('error', (error: Error) => {
      this.#fault = error
      if (!this.#down && !this.#closed) this.#log(error, `Redis at ${this.where} does not answer`)
      this.#down = true
    })
    client.on('ready', () => { this.#down = false })
    client.on('end', () => {
      if (this.#closed || client !== this.#client) return
      setTimeout(() => {
        if (this.#closed) return
        this.#client = this.#make()
        this.#client.connect().catch(() => {}) // told as 'error'; and its end brings the next one
      }, backoff(5)).unref()
    })
    return client
  }

  #connect (): Client {
    const { url, nodes, sentinels, name, database, username, password, tls, sentinelUsername, sentinelPassword } = this.#options
    const access = { ...username !== undefined && { username }, ...password !== undefined && { password }, ...tls !== undefined && tls !== false && { tls: tls === true ? {} : tls } }
    const own = { ...this.#common(), ...access, lazyConnect: true, enableOfflineQueue: false, retryStrategy: backoff }
    if (url !== undefined) return new Redis(url, { ...own, ...database !== undefined && { db: database } })
    if (sentinels !== undefined) {
      return new Redis({
        ...own,
        sentinels: [...sentinels],
        ...name !== undefined && { name },
        db: database ?? 0,
        ...sentinelUsername !== undefined && { sentinelUsername },
        ...sentinelPassword !== undefined && { sentinelPassword },
        ...'tls' in access && { sentinelTLS: access.tls, enableTLSForSentinelMode: true },
        sentinelRetryStrategy: backoff,
        sentinelCommandTimeout: this.#options.commandTimeout
      })
    }
    return new Cluster([...nodes ?? []], {
      redisOptions: { ...this.#common(), ...access },
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: backoff,
      slotsRefreshTimeout: this.#options.commandTimeout,
      retryDelayOnFailover: 50,
      retryDelayOnClusterDown: 50
    })
  }

  #common () {
    const { connectTimeout, commandTimeout } = this.#options
    // Nothing is sent twice by itself: operations have ids for that.
    return { connectTimeout, commandTimeout, socketTimeout: commandTimeout, maxRetriesPerRequest: 1, autoResendUnfulfilledCommands: false }
  }
}

function isCluster (client: Client): client is Cluster {
  return client.isCluster === true
}

function placeOf ({ url, nodes, sentinels, name }: ResolvedOptions): string {
  if (url !== undefined) return new URL(url).host
  const addresses = (nodes ?? sentinels)?.map(({ host, port }) => `${host}:${port}`).join(', ')
  return addresses === undefined ? 'the client that was given' : sentinels === undefined ? addresses : `${addresses} (Sentinels of ${name})`
}
