import { spawn, type ChildProcess, type ChildProcessByStdio } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import { Redis } from 'ioredis'
import root, { type Test } from 'tap'
import { find, redis } from './services.ts'

/** Lines of a redis.conf: directives, each with its arguments, '' for an empty one. */
type Config = Readonly<Record<string, string>>

interface Address {
  readonly host: string
  readonly port: number
}

const host = '127.0.0.1'
/** How long anything here may take before it counts as failed, ms. */
const patience = 20_000
/** Replicas get their copy at once, not with whoever else asks within 5 s. */
const quick: Config = { save: '', appendonly: 'no', 'repl-diskless-sync-delay': '0' }

function isAlive ({ exitCode, signalCode }: Pick<ChildProcess, 'exitCode' | 'signalCode'>): boolean {
  return exitCode === null && signalCode === null
}

/** A Redis server, or Sentinel, that tests may kill and hang. */
export class RedisServer implements Address {
  readonly host = host
  readonly port: number
  readonly url: string
  /** Where its config and its data are. */
  readonly folder = mkdtempSync(join(tmpdir(), 'redis-'))
  /** What it logged, over all its starts. */
  log = ''
  readonly #arguments: readonly string[]
  readonly #undertaker: ChildProcessByStdio<Writable, null, null>
  #process: ChildProcess | null = null
  #paused = false

  /** One that does not run yet. */
  constructor (port: number, config: Config, flags: readonly string[] = []) {
    this.port = port
    this.url = `redis://${host}:${port}`
    const directives = Object.entries({ port: String(port), bind: host, dir: this.folder, ...config })
    // The program rewrites its config: a file, so that what Sentinel made of a server outlives its restart.
    writeFileSync(join(this.folder, 'redis.conf'), directives.map(([name, value]) => `${name} ${value === '' ? '""' : value}\n`).join(''))
    this.#arguments = ['redis.conf', ...flags]
    // The shell is told what runs. It ends that when its input ends, and that ends with this process, however this process ends.
    const script = 'while read -r pid; do last=$pid; done; [ -z "$last" ] || kill -KILL "-$last"; rm -rf "$PWD"'
    this.#undertaker = spawn('sh', ['-c', script], { cwd: this.folder, detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
    this.#undertaker.stdin.on('error', () => {})
  }

  /** @throws where it does not run */
  get pid (): number {
    const pid = this.#process?.pid
    if (pid === undefined) throw new Error(`Redis on port ${this.port} does not run`)
    return pid
  }

  /** Whether it runs and is not paused. */
  get answers (): boolean {
    return this.#process !== null && !this.#paused
  }

  /** Starts it, on the same port and with the data that its folder holds, and waits until it takes commands. */
  async start (): Promise<void> {
    if (this.#process !== null) throw new Error(`Redis on port ${this.port} runs already`)
    const bin = find(redis)
    if (bin === null) throw new Error('Redis is not installed: "npm test" installs it')

    const before = this.log.length
    const child = spawn(join(bin, 'redis-server'), this.#arguments, { cwd: this.folder, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#undertaker.stdin.write(`${child.pid}\n`)
    this.#process = child
    for (const output of [child.stdout, child.stderr]) output.setEncoding('utf8').on('data', text => { this.log += text })
    child.once('close', () => {
      this.#undertaker.stdin.write('\n')
      this.#process = null
      this.#paused = false
    })
    await until(`Redis on port ${this.port} is ready`, [this], () => !this.answers || /Ready to accept connections|Sentinel ID is/.test(this.log.slice(before)))
    if (!this.answers) throw new Error(`Redis on port ${this.port} ended as it started:\n${this.log.slice(before)}`)
  }

  /** Ends it as a crash does, and waits until it is gone. */
  async kill (): Promise<void> {
    const process = this.#process
    if (process === null) return
    const closed = once(process, 'close')
    // It may have ended by itself just now.
    if (isAlive(process)) {
      const exited = once(process, 'exit')
      this.#signal('SIGKILL')
      await exited
    }
    // Whoever else has its output open keeps nobody waiting.
    for (const output of [process.stdout, process.stderr]) output?.destroy()
    await closed
  }

  /** Hangs it: connections stay open, new ones are taken, nothing is answered. */
  pause (): void {
    this.#signal('SIGSTOP')
    this.#paused = true
  }

  resume (): void {
    this.#signal('SIGCONT')
    this.#paused = false
  }

  /** Starts it without the data it had, having killed it where it runs. */
  async restartEmpty (): Promise<void> {
    await this.kill()
    for (const data of ['dump.rdb', 'appendonlydir']) rmSync(join(this.folder, data), { recursive: true, force: true })
    await this.start()
  }

  /** Runs one command on a connection of its own. */
  async command (name: string, ...args: ReadonlyArray<string | number | Buffer>): Promise<unknown> {
    const client = new Redis({
      host,
      port: this.port,
      protocol: 2,
      lazyConnect: true,
      enableReadyCheck: false,
      disableClientInfo: true,
      retryStrategy: null,
      connectTimeout: 10_000,
      commandTimeout: 10_000
    })
    client.on('error', () => {})
    try {
      await client.connect()
      return await client.call(name, ...args)
    } finally {
      client.disconnect()
    }
  }

  /** Kills it and removes its folder, for good. */
  async end (): Promise<void> {
    await this.kill()
    if (!isAlive(this.#undertaker)) return
    const exit = once(this.#undertaker, 'exit')
    this.#undertaker.stdin.end()
    await exit
  }

  /** Reaches what it forked to save its data, too. */
  #signal (signal: NodeJS.Signals): void {
    process.kill(-this.pid, signal)
  }
}

/**
 * A Redis of its own on a private port, ended with the test.
 *
 * @param config directives of redis.conf, beside those that keep nothing on disk
 */
export async function redisServer (t: Test, config: Config = {}): Promise<RedisServer> {
  return await started(t, async () => new RedisServer(await freePort(), { ...quick, ...config }))
}

let shared: Promise<RedisServer> | undefined

/** The Redis of a test file, started by the first call. Tests keep apart by the prefixes of their keys. */
export function sharedRedis (): Promise<RedisServer> {
  shared ??= redisServer(root)
  return shared
}

interface SentinelOptions {
  readonly replicas?: number
  readonly sentinels?: number
  /** For how long a server answers nothing before a Sentinel takes it for down, ms. */
  readonly downAfter?: number
}

export interface RedisSentinels {
  /** What Sentinel calls the group. */
  readonly name: string
  /** What a client is told. */
  readonly sentinels: readonly Address[]
  /** The Sentinels themselves, to be killed or paused. */
  readonly sentinelServers: readonly RedisServer[]
  /** The primary as it was made, then the replicas. */
  readonly servers: readonly RedisServer[]
  /** The primary that a Sentinel names and that says it is one. Waits while there is none, as in a failover. */
  primary (): Promise<RedisServer>
}

/** A primary with replicas, and Sentinels whose majority decides which it is. They know one another and the replicas are in sync. */
export async function redisSentinels (t: Test, { replicas = 2, sentinels = 3, downAfter = 1000 }: SentinelOptions = {}): Promise<RedisSentinels> {
  const name = 'primary'
  const first = await redisServer(t)
  const followers = await Promise.all(times(replicas, () => redisServer(t, { replicaof: `${host} ${first.port}` })))
  const servers = [first, ...followers]
  await until('the replicas are in sync', servers, () => inSync([first], followers))

  const watchers = await Promise.all(times(sentinels, () => started(t, async () => new RedisServer(await freePort(), {
    [`sentinel monitor ${name}`]: `${host} ${first.port} ${Math.floor(sentinels / 2) + 1}`,
    [`sentinel down-after-milliseconds ${name}`]: String(downAfter),
    [`sentinel failover-timeout ${name}`]: '3000',
    [`sentinel parallel-syncs ${name}`]: '1'
  }, ['--sentinel']))))
  // They meet by what they publish, find what came back by INFO, and decide nothing for the tilt period after a machine was too busy to run them.
  const soon = ['publish-period', 200, 'info-period', 1000, 'tilt-period', 2000]
  await Promise.all(watchers.map(watcher => watcher.command('sentinel', 'debug', ...soon)))
  await until('the Sentinels know one another', [...watchers, ...servers], () => every(watchers, async watcher => {
    const followed = tables(await watcher.command('sentinel', 'replicas', name))
    const others = tables(await watcher.command('sentinel', 'sentinels', name))
    return followed.filter(of => of['flags'] === 'slave' && of['master-link-status'] === 'ok').length === replicas &&
      others.filter(of => of['flags'] === 'sentinel').length === sentinels - 1
  }))

  return {
    name,
    sentinels: watchers.map(addressOf),
    sentinelServers: watchers,
    servers,
    primary: () => until('a Sentinel names a primary that is one', [...watchers, ...servers], async () => {
      const [, port] = list(await watchers.find(({ answers }) => answers)?.command('sentinel', 'get-master-addr-by-name', name))
      const server = servers.find(server => server.answers && String(server.port) === port)
      return server !== undefined && list(await server.command('role'))[0] === 'master' && server
    })
  }
}

interface ClusterOptions {
  readonly primaries?: number
  /** Of each primary. */
  readonly replicas?: number
  /** For how long a node answers nothing before another takes it for down, ms. */
  readonly nodeTimeout?: number
}

export interface RedisCluster {
  /** What a client is told. */
  readonly nodes: readonly Address[]
  /** The primaries as they were made, in the order of their slots, then the replicas of the first, of the second, and so on. */
  readonly servers: readonly RedisServer[]
  /** The primary that answers for a key. Waits while there is none, as in a failover. */
  primaryOf (key: string): Promise<RedisServer>
}

/** A Redis Cluster that answers for all slots. Its nodes know one another and the replicas are in sync. */
export async function redisCluster (t: Test, { primaries = 3, replicas = 1, nodeTimeout = 1000 }: ClusterOptions = {}): Promise<RedisCluster> {
  const members = await Promise.all(times(primaries * (1 + replicas), i => clusterNode(t, nodeTimeout, i + 1)))
  const servers = members.map(({ server }) => server)
  const [leaders, followers] = [servers.slice(0, primaries), servers.slice(primaries)]
  const firstSlot = (i: number): number => Math.floor(16_384 * i / primaries)
  await Promise.all(leaders.map((leader, i) => leader.command('cluster', 'addslotsrange', firstSlot(i), firstSlot(i + 1) - 1)))
  await Promise.all(members.slice(1).map(({ server, busPort }) => servers[0]?.command('cluster', 'meet', host, server.port, busPort)))
  const know = (flag: string, count: number): Promise<boolean> => every(servers, async server => {
    const known = await nodesOf(server)
    return known.length === servers.length && known.every(({ linked }) => linked) && known.filter(({ flags }) => flags.includes(flag)).length === count
  })
  await until('the nodes know one another', servers, () => know('master', servers.length))

  await Promise.all(followers.map(async (follower, i) => {
    const id = await leaders[Math.floor(i / replicas)]?.command('cluster', 'myid')
    await follower.command('cluster', 'replicate', String(id))
  }))
  await until('the cluster answers for all slots', servers, async () => await know('slave', followers.length) && await inSync(leaders, followers) &&
    await every(servers, async server => /cluster_state:ok[^]*cluster_slots_ok:16384/.test(String(await server.command('cluster', 'info')))))

  return {
    nodes: servers.map(addressOf),
    servers,
    primaryOf: key => until(`a primary answers for ${key}`, servers, async () => {
      const claims = await Promise.all(servers.filter(({ answers }) => answers).map(async server => {
        const slot = Number(await server.command('cluster', 'keyslot', key))
        const self = (await nodesOf(server)).find(({ flags }) => flags.includes('myself'))
        return { server, epoch: self?.owns(slot) === true ? self.epoch : -1 }
      }))
      // One that was paused believes for a moment that it is still the primary.
      const [latest] = claims.filter(({ epoch }) => epoch >= 0).sort((a, b) => b.epoch - a.epoch)
      return latest !== undefined && latest.server
    })
  }
}

async function clusterNode (t: Test, nodeTimeout: number, epoch: number): Promise<{ server: RedisServer, busPort: number }> {
  let busPort = 0
  const server = await started(t, async () => {
    busPort = await freePort()
    return new RedisServer(await freePort(), {
      ...quick,
      'cluster-enabled': 'yes',
      'cluster-port': String(busPort),
      'cluster-node-timeout': String(nodeTimeout),
      'cluster-require-full-coverage': 'no'
    })
  })
  // Nodes that meet with the same epoch need some rounds to settle whose slots are whose.
  await server.command('cluster', 'set-config-epoch', epoch)
  return { server, busPort }
}

interface ClusterNode {
  readonly flags: readonly string[]
  readonly epoch: number
  /** Whether it is known and reached. */
  readonly linked: boolean
  owns (slot: number): boolean
}

/** The nodes of a cluster as one of them sees them. */
async function nodesOf (server: RedisServer): Promise<ClusterNode[]> {
  const lines = String(await server.command('cluster', 'nodes')).trim().split('\n')
  return lines.map(line => {
    const [, , allFlags = '', , , , epoch, link, ...ranges] = line.split(' ')
    const flags = allFlags.split(',')
    return {
      flags,
      epoch: Number(epoch),
      linked: link === 'connected' && !/handshake|noaddr|fail/.test(allFlags),
      owns: slot => ranges.map(range => range.split('-').map(Number)).some(([from = NaN, to = from]) => from <= slot && slot <= to)
    }
  })
}

/** Whether replicas have their copy, and their primaries know it. */
async function inSync (primaries: readonly RedisServer[], replicas: readonly RedisServer[]): Promise<boolean> {
  const replication = async (server: RedisServer): Promise<string> => String(await server.command('info', 'replication'))
  const known = await Promise.all(primaries.map(async primary => (await replication(primary)).match(/state=online/g)?.length ?? 0))
  return known.reduce((a, b) => a + b, 0) === replicas.length && await every(replicas, async replica => (await replication(replica)).includes('master_link_status:up'))
}

/** Starts one on a free port, and on another where somebody took that meanwhile. It ends with the test. */
async function started (t: Test, make: () => Promise<RedisServer>): Promise<RedisServer> {
  for (let attempt = 1; ; attempt++) {
    const server = await make()
    t.teardown(() => server.end())
    try {
      await server.start()
      return server
    } catch (error) {
      if (attempt === 5 || !server.log.includes('Address already in use')) throw error
    }
  }
}

const given = new Set<number>()

/**
 * A port on which nobody listens, and that this process was not given before.
 *
 * It lies below those that systems give to outgoing connections: a client that reconnects to a killed server would take its port.
 */
export async function freePort (): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_768)
    if (given.has(port) || !await isFree(port)) continue
    given.add(port)
    return port
  }
}

async function isFree (port: number): Promise<boolean> {
  const server = createServer()
  try {
    await once(server.listen(port, host), 'listening')
    server.close()
    return true
  } catch (error) {
    if (Reflect.get(Object(error), 'code') !== 'EADDRINUSE') throw error
    return false
  }
}

/**
 * Asks again and again until the answer is not false. To fail is no answer.
 *
 * @param what what is waited for, as a sentence
 * @param servers whose logs tell why it did not come within 20 s
 */
export async function until<T> (what: string, servers: readonly RedisServer[], ask: () => T | Promise<T>): Promise<Exclude<T, false>> {
  const deadline = performance.now() + patience
  let cause: unknown
  const holds = (answer: T): answer is Exclude<T, false> => answer !== false
  for (;;) {
    try {
      const answer = await ask()
      if (holds(answer)) return answer
      cause = undefined
    } catch (error) {
      cause = error
    }
    if (performance.now() > deadline) break
    await setTimeout(10)
  }
  const logs = servers.map(({ port, log }) => `port ${port}:\n${log.split('\n').slice(-30).join('\n')}`)
  throw new Error(`Within ${patience} ms it did not come that ${what}.\n${logs.join('\n')}`, { cause })
}

async function every<T> (all: readonly T[], holds: (one: T) => Promise<boolean>): Promise<boolean> {
  return (await Promise.all(all.map(holds))).every(Boolean)
}

function times<T> (count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i))
}

function addressOf ({ host, port }: Address): Address {
  return { host, port }
}

function list (answer: unknown): unknown[] {
  return Array.isArray(answer) ? answer : []
}

/** Answers that give names and values by turns. */
function tables (answer: unknown): Array<Record<string, unknown>> {
  return list(answer).map(list).map(flat => Object.fromEntries(flat.flatMap((name, i) => i % 2 === 0 ? [[name, flat[i + 1]]] : [])))
}
