import type { ChainableCommander, Redis } from 'ioredis'
import type { Connection } from './connection.ts'

/**
 * Goes through the keys of one primary, page by page. What is there all the while is met at least once; each page has its own deadline.
 *
 * @param count keys that Redis looks at for a page, those of others too
 */
export async function * scan (connection: Connection, operation: string, primary: Redis, pattern: string, type: 'string' | 'zset', count: number): AsyncGenerator<string[]> {
  let cursor = '0'
  do {
    const [next, names] = await connection.ask(operation, () => primary.scan(cursor, 'MATCH', pattern, 'COUNT', count, 'TYPE', type))
    yield names
    cursor = next
  } while (cursor !== '0')
}

/**
 * Asks a primary for many small things at once, each of one key.
 *
 * @param add puts commands on the pipeline
 * @returns what each answered; undefined where the key is on its way to another primary of the Cluster
 */
export async function askAll (connection: Connection, operation: string, primary: Redis, add: (pipeline: ChainableCommander) => void): Promise<unknown[]> {
  return await connection.ask(operation, async () => {
    const pipeline = primary.pipeline()
    add(pipeline)
    const replies = await pipeline.exec() as Array<[Error | null, unknown]> // null only of a transaction
    return replies.map(([error, reply]) => {
      if (error === null) return reply
      if (/^(MOVED|ASK) /.test(error.message)) return undefined
      throw error
    })
  })
}
