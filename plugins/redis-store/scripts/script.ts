import { createHash } from 'node:crypto'
import type { Cluster, Redis } from 'ioredis'
import { prelude } from './prelude.ts'

/** One atomic step: a Lua script with the prelude before it. */
export class Script {
  readonly #source: string
  readonly #sha: string

  /** @param grows whether it stores something new, which Redis refuses when it is full; all else goes on then, and what is to end can end */
  constructor (body: string, { grows = false }: { grows?: boolean } = {}) {
    this.#source = (grows ? '' : '#!lua flags=allow-oom\n') + prelude + body
    this.#sha = createHash('sha1').update(this.#source).digest('hex')
  }

  /** Sends the digest; the whole text only where the server does not know it: after a restart, a failover, `SCRIPT FLUSH`. */
  async run (client: Redis | Cluster, keys: readonly string[], args: ReadonlyArray<string | number>): Promise<unknown> {
    try {
      return await client.evalsha(this.#sha, keys.length, ...keys, ...args)
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error
      return await client.eval(this.#source, keys.length, ...keys, ...args)
    }
  }
}
