import { once } from 'node:events'
import { Cluster, Redis } from 'ioredis'
import { StoreTimeout, StoreUnavailable, within } from '../token-registry/index.ts'
import { discreet, lastNodeError, StoreAbsent } from './errors.ts'
import type { Address, ResolvedOptions } from './options.ts'
import { Sentinels } from './sentinels.ts'

export type Client = Redis | Cluster

/** ms between two attempts to leave a server that refuses writes */
const LEAVE_AGAIN = 1000
/** ms between two looks at who keeps which slots of a Cluster, besides those that an error brings */
const LOOK_AT_SLOTS = 5000

/** ms until a connection is tried again: about twice as long each time, never in step with others */
function backoff (times: number): number {
  return Math.min(2 ** times * 10, 500) * (0.5 + Math.random())
}

/** The clients of one Redis: our own, which is replaced where it reaches its end or Sentinels name another primary; or the host's. */
export class Connection {
  /** Where it is, without user and password: for messages. */
  readonly where: string
  /** Whether scripts publish what they change: until it is known that keys can be watched, and where they cannot. */
  publishes = true
  /** Clients that took the place of another one: after a failover, or an end. */
  replacements = 0
  readonly #options: ResolvedOptions
  readonly #log: (error: unknown, message: string) => void
  readonly #sentinels: Sentinels | null
  #client: Client
  /** Whether it is where the keys are: not before Sentinels have said where. */
  #known: boolean
  #replacing: NodeJS.Timeout | undefined
  #closed = false
  /** When it was last told that something is out of order, by the monotonic clock; Infinity where nothing is. An outage is logged once. */
  #faultAt = Infinity
  #fault: Error | null = null
  #leftAt = -Infinity
  #refusalTold = false

  constructor (options: ResolvedOptions, log: (error: unknown, message: string) => void) {
    const { client, sentinels, name = '' } = options
    this.#options = options
    this.#log = log
    this.where = placeOf(options)
    this.#sentinels = sentinels === undefined ? null : new Sentinels(sentinels, name, address => this.#newSentinel(address), primary => this.#replace(primary))
    this.#known = this.#sentinels === null
    this.#client = client ?? (this.#sentinels === null ? this.#make() : ended())
  }

  get client (): Client {
    return this.#client
  }

  get cluster (): boolean {
    return isCluster(this.#client)
  }

  /**
   * Waits for the first answer, as long as a connection may take.
   *
   * @throws {StoreAbsent}
   */
  async open (): Promise<void> {
    const { connectTimeout } = this.#options
    try {
      await within(this.#begin(), connectTimeout, () => new Error(`no answer within ${connectTimeout} ms`))
    } catch (error) {
      const told = this.#fault ?? (error instanceof Error && error.cause instanceof Error ? error.cause : error)
      const fault = discreet(lastNodeError(told) ?? told)
      throw new StoreAbsent(this.where, String(fault).replace(/^\w*Error: /, ''), { cause: fault })
    }
  }

  /** Addresses of the servers that keep keys: one, or the primary of each slot of a Cluster, whether connected or not. */
  addresses (): string[] {
    const client = this.#client
    if (!this.#known) return []
    if (!isCluster(client)) return [addressOf(client)]
    const addresses = new Set<string>()
    for (const [primary] of client.slots.filter(Boolean)) if (primary !== undefined) addresses.add(primary)
    return [...addresses]
  }

  /**
   * The servers that keep keys: one, or each primary of a Cluster.
   *
   * @throws {StoreUnavailable} where one is not connected: ioredis forgets it until somebody asks for its slots
   */
  primaries (): Redis[] {
    const client = this.#client
    if (!isCluster(client)) return [client]
    const nodes = new Map(client.nodes('master').map(node => [addressOf(node), node]))
    return this.addresses().map(address => {
      const node = nodes.get(address)
      if (node === undefined) throw new StoreUnavailable(`the primary at ${address}`)
      return node
    })
  }

  /** A connection for what is watched on one of them. In RESP 2: ioredis drops the invalidations of RESP 3. */
  newWatcher (address: string): Redis {
    const client = this.#client
    const own = { ...this.#common(), protocol: 2 as const, lazyConnect: true, enableOfflineQueue: true, autoResubscribe: false, socketTimeout: undefined, retryStrategy: backoff }
    if (!isCluster(client)) return client.duplicate(own)
    const port = address.lastIndexOf(':')
    const there = { host: address.slice(0, port), port: Number(address.slice(port + 1)), readOnly: false }
    const [like = new Redis({ lazyConnect: true })] = client.nodes()
    return like.duplicate({ ...client.options.redisOptions, ...own, ...there })
  }

  /**
   * Does something with the client; what fails has a code, and what takes too long does. A host's client may queue for ever.
   *
   * @throws {StoreUnavailable | StoreTimeout}
   */
  async ask<T> (operation: string, work: (client: Client) => Promise<T>): Promise<T> {
    if (this.#options.client === undefined) return await this.askMany(operation, work)
    const { commandTimeout } = this.#options
    return await within(this.askMany(operation, work), commandTimeout, () => new StoreTimeout(operation, commandTimeout))
  }

  /** As `ask`, for work of many commands: each has its time, where the client is our own. */
  async askMany<T> (operation: string, work: (client: Client) => Promise<T>): Promise<T> {
    const client = this.#client
    try {
      return await work(client)
    } catch (error) {
      discreet(error)
      if (!(error instanceof Error) || 'critical' in error) throw error
      if (error.message.includes('READONLY')) this.#leave(client)
      if (error.message === 'Command timed out') throw new StoreTimeout(operation, this.#options.commandTimeout, { cause: error })
      throw new StoreUnavailable(operation, { cause: error })
    }
  }

  /** Tells that something is out of order: once, until `proved` says that it is not. */
  failed (error: unknown, message: string): void {
    if (this.#closed) return
    const known = this.#faultAt !== Infinity
    this.#faultAt = performance.now()
    // Of an error of ours, which says what was not done, the cause says why.
    if (!known) this.#log(error instanceof Error && 'critical' in error && error.cause !== undefined ? error.cause : error, message)
  }

  /** Tells that all was in order at a time. */
  proved (at: number): void {
    if (at > this.#faultAt) this.#faultAt = Infinity
  }

  /** Learns whether keys can be watched. */
  tracked (refusal: Error | null): void {
    this.publishes = refusal !== null
    if (refusal === null || this.#refusalTold) return
    this.#refusalTold = true
    this.#log(refusal, `Redis at ${this.where} does not let keys be watched: changes are published instead`)
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#replacing)
    this.#sentinels?.close()
    if (this.#options.client === undefined) this.#client.disconnect()
  }

  async #begin (): Promise<void> {
    try {
      if (this.#sentinels !== null) await this.#sentinels.ask()
      else if (this.#options.client === undefined) await this.#client.connect()
      if (this.#sentinels !== null && this.#client.status !== 'ready') await once(this.#client, 'ready')
    } finally {
      if (!this.#closed) this.#sentinels?.watch(() => this.#client.status === 'ready')
    }
    await this.ask('start', client => client.ping())
    const { url, client, database = url === undefined ? 0 : Number(new URL(url).pathname.slice(1)) } = this.#options
    // Where it is refused ioredis goes on with database 0.
    if (client === undefined && database !== 0) await this.ask('start', client => client.select(database))
  }

  /** Its 'end' is not the end: a name that could not be resolved, for example. */
  #make (primary?: Address): Client {
    const client = this.#connect(primary)
    client.on('error', (error: Error) => {
      if (client !== this.#client) return
      this.#fault = error
      this.failed(error, `Redis at ${this.where} does not answer`)
    })
    client.on('end', () => {
      if (this.#closed || client !== this.#client) return
      this.#replacing = setTimeout(() => this.#replace(primary), backoff(5)).unref()
    })
    return client
  }

  #replace (primary?: Address): void {
    this.replacements++
    clearTimeout(this.#replacing)
    const old = this.#client
    this.#known = true
    this.#client = this.#make(primary)
    this.#client.connect().catch(() => {}) // told as 'error'; and its end brings the next one
    old.disconnect()
  }

  /** Leaves a server that has become a replica: its address may lead to another one by now. */
  #leave (client: Client): void {
    const now = performance.now()
    if (this.#options.client !== undefined || client !== this.#client || now - this.#leftAt < LEAVE_AGAIN) return
    this.#leftAt = now
    client.disconnect(true)
  }

  #connect (primary?: Address): Client {
    const { url, nodes, database } = this.#options
    const own = { ...this.#common(), ...this.#access(), lazyConnect: true, enableOfflineQueue: false, retryStrategy: backoff }
    if (nodes === undefined) return url === undefined ? new Redis({ ...own, ...primary, db: database ?? 0 }) : new Redis(url, { ...own, ...database !== undefined && { db: database } })
    return new Cluster([...nodes], {
      redisOptions: { ...this.#common(), ...this.#access() },
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: backoff,
      slotsRefreshTimeout: this.#options.commandTimeout,
      slotsRefreshInterval: LOOK_AT_SLOTS,
      retryDelayOnFailover: 50,
      retryDelayOnClusterDown: 50
    })
  }

  #access () {
    const { username, password, tls } = this.#options
    return { ...username !== undefined && { username }, ...password !== undefined && { password }, ...this.#encryption(tls) }
  }

  #newSentinel (address: Address): Redis {
    const { sentinelUsername: username, sentinelPassword: password, tls } = this.#options
    const access = { ...username !== undefined && { username }, ...password !== undefined && { password }, ...this.#encryption(tls) }
    return new Redis({ ...this.#common(), ...access, ...address, protocol: 2, lazyConnect: true, enableReadyCheck: false, disableClientInfo: true, retryStrategy: null })
  }

  #encryption (tls: ResolvedOptions['tls']) {
    return tls === undefined || tls === false ? {} : { tls: tls === true ? {} : tls }
  }

  #common () {
    const { connectTimeout, commandTimeout } = this.#options
    // Nothing is sent twice by itself: operations have ids for that.
    return { connectTimeout, commandTimeout, socketTimeout: commandTimeout, disconnectTimeout: 500, maxLoadingRetryTime: 200, maxRetriesPerRequest: 1, autoResendUnfulfilledCommands: false }
  }
}

export function isCluster (client: Client): client is Cluster {
  return client.isCluster === true
}

/** A client every command of which fails: for a primary that is not known yet. */
function ended (): Redis {
  const client = new Redis({ lazyConnect: true })
  client.disconnect()
  return client
}

function addressOf ({ options }: Redis): string {
  return options.path ?? `${options.host}:${options.port}`
}

function placeOf ({ url, nodes, sentinels, name }: ResolvedOptions): string {
  if (url !== undefined) return new URL(url).host
  const addresses = (nodes ?? sentinels)?.map(({ host, port }) => `${host}:${port}`).join(', ')
  return addresses === undefined ? 'the client that was given' : sentinels === undefined ? addresses : `${addresses} (Sentinels of ${name})`
}
