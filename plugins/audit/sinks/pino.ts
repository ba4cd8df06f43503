import type { FastifyBaseLogger } from 'fastify'
import { parseLeaf } from '../entry.ts'
import type { StoredEntry } from '../ledger.ts'
import type { Sink } from './sink.ts'

/**
 * A line of the log for each entry. Nothing that tells of a person is in it: they are named by pseudonyms.
 *
 * @param logger pino, such as `fastify.log`
 */
export function pinoSink (logger: Pick<FastifyBaseLogger, 'info'>): Sink {
  return {
    name: 'pino',
    async write (entries: readonly StoredEntry[]) {
      for (const { leaf } of entries) {
        const { seq, at, type, outcome, actor, target, tenant, requestId, reason } = parseLeaf(leaf)
        logger.info({ audit: { seq, at, type, outcome, actor, target, tenant, requestId, reason } }, type)
      }
    },
    async close () {}
  }
}
