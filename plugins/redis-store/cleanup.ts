import { setTimeout } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import type { Connection } from './connection.ts'
import { grouped } from './grouped.ts'
import type { Keys } from './keys.ts'
import { Lease } from './lease.ts'
import type { Runner } from './runner.ts'
import { askAll, scan } from './scan.ts'
import { heal } from './scripts/change.ts'

/** Keys that Redis looks at for a page: some 0.1 ms. */
const PAGE = 250
/** Sessions that one step ends, each of which is read, written and told: half a millisecond of Redis. */
const SLICE = 10
/** How many times as long as a step it pauses after it: others have Redis, and this process, for that part of the time at least. */
const PAUSE = 3
/** ms that it pauses at most, so as to keep the lease where Redis is slow */
const LONGEST_PAUSE = 1000
/** Passes that fail, one after the other, until that is told: a hitch is none. */
const PERSISTENT = 2

/** An index that lists what is past its deadline. */
interface Due {
  name: string
  ids: string[]
  /** Entries, from the first, that stay although they are past it: what cannot be read does, as long as it is there. */
  kept: number
}

export interface CleanupOptions {
  /** ms between two passes; false for none */
  interval: number | false
  /** The store's clock. */
  now: () => number
  /** Ends what has expired, and tells it. @returns the ids that it ended */
  expire: (ids: readonly string[], tag: string) => Promise<readonly string[]>
  /** Is told why passes fail. */
  failed: (error: unknown) => void
}

/**
 * Ends what has expired and nobody asks for: goes through the indexes of all subjects from time to time, in small steps with pauses in between. Of all
 * processes one does, and where it dies another one begins anew.
 */
export class Cleanup {
  /** Passes that this process has done. */
  passes = 0
  /** Sessions that it came by in its last pass, and when that ended. */
  #counted = { sessions: 0, at: -Infinity }
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #runner: Runner
  readonly #options: CleanupOptions
  readonly #lease: Lease
  readonly #closing = new AbortController()
  #underWay = false
  #failures = 0

  constructor (connection: Connection, keys: Keys, runner: Runner, options: CleanupOptions) {
    this.#connection = connection
    this.#keys = keys
    this.#runner = runner
    this.#options = options
    this.#lease = new Lease(runner, keys.lease('cleanup'), options.now)
  }

  /** How many sessions live, of all processes; undefined where another process has gone through last. */
  get sessions (): number | undefined {
    return performance.now() - this.#counted.at < 2 * Number(this.#options.interval) ? this.#counted.sessions : undefined
  }

  begin (): void {
    if (this.#options.interval !== false) this.#run(this.#options.interval).catch(() => {}) // it ends where it is closed
  }

  /** At once: what it was about to do another one does. */
  close (): void {
    this.#closing.abort()
    if (this.#underWay) this.#lease.leave().catch(() => {})
  }

  async #run (interval: number): Promise<never> {
    for (;;) {
      // Processes that were started together do not ask for the lease together.
      await this.#sleep(interval * (0.75 + Math.random() / 2))
      try {
        await this.#pass(interval)
        this.#failures = 0
      } catch (error) {
        if (++this.#failures === PERSISTENT) this.#options.failed(error)
      }
    }
  }

  async #pass (interval: number): Promise<void> {
    this.#underWay = true
    try {
      if (!await this.#lease.take() || !await this.#goThrough()) return
      this.passes++
      // However many processes there are, there are no more passes.
      await this.#lease.rest(interval / 2)
    } catch (error) {
      this.#lease.leave().catch(() => {}) // it ends by itself
      throw error
    } finally {
      this.#underWay = false
    }
  }

  /** @returns false where the lease was lost */
  async #goThrough (): Promise<boolean> {
    const steps = this.#steps()
    for (;;) {
      const began = performance.now()
      const step = await steps.next()
      if (step.done === true) {
        this.#counted = { sessions: step.value, at: performance.now() }
        return true
      }
      await this.#sleep(Math.min(PAUSE * (performance.now() - began), LONGEST_PAUSE))
      if (!await this.#lease.keep()) return false
    }
  }

  /** @returns how many sessions live */
  async * #steps (): AsyncGenerator<void, number> {
    let sessions = 0
    for (const primary of this.#connection.primaries()) {
      for await (const names of scan(this.#connection, 'cleanup', primary, this.#keys.pattern('[xo]'), 'zset', PAGE)) {
        let indexes: Due[] = names.filter(name => this.#keys.subjectIn(name) !== null).map(name => ({ name, ids: [], kept: 0 }))
        sessions += await this.#count(primary, indexes)
        while (indexes.length > 0) {
          const due = await this.#look(primary, indexes)
          for (const some of inSlices(due)) {
            yield
            await this.#end(some)
          }
          indexes = due.filter(({ ids }) => ids.length === SLICE)
        }
        yield
      }
    }
    return sessions
  }

  /** How many live by the indexes. One-time tokens have indexes of their own, and do not count. */
  async #count (primary: Redis, indexes: readonly Due[]): Promise<number> {
    const ofSessions = indexes.filter(({ name }) => name.startsWith(this.#keys.kind('x')))
    const counts = await askAll(this.#connection, 'cleanup', primary, pipeline => {
      for (const { name } of ofSessions) pipeline.zcount(name, `(${this.#options.now()}`, '+inf')
    })
    return counts.reduce<number>((sum, count) => sum + Number(count ?? 0), 0)
  }

  /** What has expired by the indexes, of each a slice. */
  async #look (primary: Redis, indexes: readonly Due[]): Promise<Due[]> {
    const now = this.#options.now()
    const replies = await askAll(this.#connection, 'cleanup', primary, pipeline => {
      for (const { name, kept } of indexes) pipeline.zrangebyscore(name, '-inf', now, 'LIMIT', kept, SLICE)
    })
    return indexes.flatMap((index, place) => {
      const ids = replies[place] as string[] | undefined // as asked
      return ids === undefined || ids.length === 0 ? [] : [{ ...index, ids }]
    })
  }

  async #end (indexes: readonly Due[]): Promise<void> {
    await Promise.all(grouped(indexes, ({ name }) => this.#keys.tagIn(name)).map(async ([tag, own]) => {
      const ended = new Set(await this.#options.expire(own.flatMap(({ ids }) => ids), tag))
      await Promise.all(own.map(async index => { index.kept += await this.#heal(index, ended) }))
    }))
  }

  /** Takes off an index what is gone, without having been ended now. @returns how many entries stay */
  async #heal ({ name, ids }: Due, ended: ReadonlySet<string>): Promise<number> {
    const others = ids.filter(id => !ended.has(id))
    if (others.length === 0) return 0
    return others.length - await this.#runner.run<number>('cleanup', heal, this.#keys.tagIn(name), [name], others)
  }

  async #sleep (ms: number): Promise<void> {
    await setTimeout(ms, undefined, { ref: false, signal: this.#closing.signal })
  }
}

/** Indexes that list no more together than one step ends. */
function inSlices (indexes: readonly Due[]): Due[][] {
  const slices: Due[][] = []
  let size = SLICE
  for (const index of indexes) {
    size += index.ids.length
    if (size > SLICE) {
      slices.push([])
      size = index.ids.length
    }
    slices.at(-1)?.push(index)
  }
  return slices
}
