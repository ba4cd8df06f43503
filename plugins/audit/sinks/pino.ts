import { Type } from '@sinclair/typebox'
import type { FastifyBaseLogger } from 'fastify'
import { faultOf } from '../../token-registry/index.ts'
import { parseLeaf } from '../entry.ts'
import { AuditOptions } from '../errors.ts'
import type { StoredEntry } from '../ledger.ts'
import type { Sink } from './sink.ts'

const levels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const
const Options = Type.Object({ level: Type.Union(levels.map(level => Type.Literal(level)), { errorMessage: `one of ${levels.join(', ')}` }) })

/**
 * A line of the log for each entry. Nothing that tells of a person is in it: they are named by pseudonyms.
 *
 * @param logger pino, such as `fastify.log`
 * @throws {AuditOptions}
 * @example
 * await app.register(audit, { copies: [pinoSink(app.log)] })
 */
export function pinoSink<Level extends typeof levels[number] = 'info'> (logger: Pick<FastifyBaseLogger, Level>, level = 'info' as Level): Sink {
  const fault = faultOf(Options, { level }, '')
  if (fault !== null) throw new AuditOptions(`pinoSink: ${fault}`)
  let last = -1
  return {
    name: 'pino',
    async write (entries: readonly StoredEntry[]) {
      for (const { leaf } of entries.filter(({ seq }) => seq > last)) {
        const { seq, at, type, outcome, tenant, actor, target, reason, requestId } = parseLeaf(leaf)
        logger[level]({ audit: { seq, at, type, outcome, tenant, actor, target, reason, requestId } }, type)
        last = seq
      }
    },
    async close () {}
  }
}
