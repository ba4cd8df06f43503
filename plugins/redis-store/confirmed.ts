import { randomBytes } from 'node:crypto'
import { StoreUnavailable } from '../token-registry/index.ts'
import { Connection, isCluster, type Client } from './connection.ts'
import { StoreUnconfirmed } from './errors.ts'
import type { Keys } from './keys.ts'
import type { ResolvedOptions } from './options.ts'

/** ms that a fence lives: as long as the scripts say */
const FENCE_LIVES = 60_000

/** Changes that wait while others are confirmed; what comes beyond them fails at once. */
const MAX_WAITING = 10_000

interface Job {
  /** @param fence a name for it */
  run: (client: Client, fence: string) => Promise<unknown>
  resolve: (reply: unknown) => void
  reject: (error: unknown) => void
}

/**
 * Changes that count only when all replicas have them, each of which may be promoted. `WAIT` blocks its connection, so they have one of their own;
 * what comes while one is under way goes together then.
 *
 * Each change writes a fence with it, which is looked for before the wait: a primary that was promoted in between, and lost the change, lacks it too.
 */
export class Confirmed {
  readonly #connection: Connection
  readonly #keys: Keys
  /** ms to wait for replicas */
  readonly #timeout: number
  readonly #copy: Client | null
  readonly #name = randomBytes(9).toString('base64url')
  /** What waits, by hash tag: what shares one goes together. */
  readonly #waiting = new Map<string, Job[]>()
  #fences = 0

  constructor (options: ResolvedOptions, keys: Keys, log: (error: unknown, message: string) => void) {
    const { client } = options
    // The copy of a host's client is our own.
    this.#copy = client === undefined ? null : isCluster(client) ? client.duplicate() : client.duplicate()
    // What fails is told by the change that it fails; ioredis would print each attempt to connect.
    this.#copy?.on('error', () => {})
    this.#connection = new Connection(this.#copy === null ? options : { ...options, client: this.#copy }, log)
    this.#keys = keys
    this.#timeout = Math.floor(options.commandTimeout / 2)
  }

  /** @throws {StoreUnconfirmed} where the change was made, but may be lost */
  async run (tag: string, run: Job['run']): Promise<unknown> {
    return await new Promise((resolve, reject) => {
      const job = { run, resolve, reject }
      const waiting = this.#waiting.get(tag)
      if (waiting === undefined) this.#runAll(tag, [job]).catch(reject)
      else if (waiting.length < MAX_WAITING) waiting.push(job)
      else reject(new StoreUnavailable('too many changes wait for replicas'))
    })
  }

  async open (): Promise<void> {
    await this.#connection.open()
  }

  close (): void {
    this.#connection.close()
    this.#copy?.disconnect()
  }

  async #runAll (tag: string, first: Job[]): Promise<void> {
    const waiting: Job[] = []
    this.#waiting.set(tag, waiting)
    for (let jobs = first; jobs.length > 0; jobs = waiting.splice(0)) {
      const fences = jobs.map(() => `${this.#name}:${this.#fences++}`)
      const replies = await Promise.allSettled(jobs.map(async ({ run }, index) => await this.#connection.ask('a change', client => run(client, fences[index] as string))))
      const made = fences.filter((_, index) => replies[index]?.status === 'fulfilled')
      const fault = made.length === 0 ? null : await this.#faultOf(tag, made)
      for (const [index, { resolve, reject }] of jobs.entries()) {
        const reply = replies[index]
        if (reply?.status === 'rejected') reject(reply.reason)
        else if (fault !== null) reject(fault)
        else resolve(reply?.value)
      }
    }
    this.#waiting.delete(tag)
  }

  /** Why changes are not confirmed; null where they are. */
  async #faultOf (tag: string, fences: readonly string[]): Promise<Error | null> {
    const keys = fences.map(fence => this.#keys.kind('w') + tag + fence)
    const [last = ''] = keys
    try {
      return await this.#connection.ask('a confirmation', async client => {
        // In a Cluster the first command says which server the others go to.
        const [, role] = resultsOf(await client.pipeline().exists(last).role().exec())
        const [, , { length: needed }] = role as [string, number, unknown[]] // what ROLE says of a primary; a replica refuses scripts, and WAIT
        if (needed === 0) return new StoreUnconfirmed('it has no replicas')

        // WAIT counts from the last write of its connection, which may be a new one.
        const [found, , confirmed] = resultsOf(await client.pipeline().exists(...keys).pexpire(last, FENCE_LIVES).wait(needed, this.#timeout).exec())
        if (found !== keys.length) return new StoreUnconfirmed('a new primary lacks it')
        if (Number(confirmed) < needed) return new StoreUnconfirmed(`${Number(confirmed)} of ${needed} replicas have it`)
        this.#connection.proved(performance.now())
        return null
      })
    } catch (error) {
      return new StoreUnconfirmed('Redis does not answer', { cause: error })
    }
  }
}

/**
 * A pipeline fulfils although commands of it failed.
 *
 * @param replies null only of a transaction
 * @throws what the first that failed answered
 */
function resultsOf (replies: Array<[Error | null, unknown]> | null): unknown[] {
  return (replies as Array<[Error | null, unknown]>).map(([error, result]) => { // see above
    if (error !== null) throw error
    return result
  })
}
