import { Readable } from 'node:stream'
import { Type, type TSchema } from '@sinclair/typebox'
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import strictInput from '../strict-input/index.ts'
import { errorAnswers } from '../token-registry/index.ts'
import type { AuditEntry } from './reading.ts'

export interface AuditRoutesOptions {
  /** Scope of who may read: `'audit:read'` by default. */
  scope?: string
  /** Scope of who may read what is sealed too: `'audit:pii'` by default. */
  personalScope?: string
  /** Lets sessions with a scope read every tenant; without it (the default) each reads its own. */
  allTenantsScope?: string
  /** ms after which a stream sends a sign of life, and after twice which a reader that takes nothing is cut off; 15 s by default. */
  heartbeat?: number
}

const tags = ['audit']
const size = (description: string) => Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description, examples: [1] })
const text = (description: string, example: string) => Type.String({ minLength: 1, maxLength: 256, description, examples: [example] })
const nullable = (example: string) => Type.Union([Type.String(), Type.Null()], { examples: [example] })
const exactly = (properties: Parameters<typeof Type.Object>[0], options = {}) => Type.Object(properties, { additionalProperties: false, ...options })
const time = (description: string) => Type.String({ format: 'date-time', description, examples: ['2026-01-31T09:30:00.000Z'] })
const CHECKPOINT = 'example.com/audit\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— example.com/audit …\n'
const Hash = Type.String({ description: '32 bytes as base64', examples: ['47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='] })

const Entry = exactly({
  seq: size('place in the log'),
  at: time('when it happened'),
  type: Type.String({ examples: ['session.start'] }),
  outcome: Type.String({ examples: ['success', 'failure', 'denied'] }),
  actor: exactly({ sub: nullable('alice'), client: nullable('web'), ip: nullable('203.0.113.7'), userAgent: nullable('Mozilla/5.0 …') }),
  target: Type.Union([exactly({ kind: Type.String(), id: Type.String(), sub: nullable('alice') }), Type.Null()], { examples: [null] }),
  tenant: Type.String({ examples: [''] }),
  requestId: nullable('req-1'),
  reason: nullable('revoked'),
  data: Type.Union([Type.Object({}, { additionalProperties: true }), Type.Null()], { examples: [null] }),
  op: nullable('8dkqRz2P0'),
  sealed: Type.Array(Type.String({ examples: ['actor.ip'] }), { description: 'what only who has the scope for it can read' }),
  kept: Type.Union([Type.Object({}, { additionalProperties: true }), Type.Null()], { description: 'what anonymising kept', examples: [null] })
})

const EntriesAnswer = exactly({
  entries: Type.Array(Entry),
  cursor: Type.Union([Type.String(), Type.Null()], { description: 'for the next page; null at the end', examples: [null] })
}, { description: 'Entries, newest first' })

const answers = (answer: TSchema) => ({ 200: answer, ...errorAnswers })

const EntriesQuery = exactly({
  type: Type.Optional(text('of the event', 'session.start')),
  sub: Type.Optional(text('who acted, or whose what they acted on was', 'alice')),
  client: Type.Optional(text('OAuth client', 'web')),
  outcome: Type.Optional(Type.Union([Type.Literal('success'), Type.Literal('failure'), Type.Literal('denied')], { examples: ['denied'] })),
  target: Type.Optional(text('id of what was acted on, such as a session', '1Kz4_7cpHvAsp864SZoUrGX8')),
  since: Type.Optional(time('not before')),
  until: Type.Optional(time('before')),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100, examples: [20] })),
  cursor: Type.Optional(Type.String({ maxLength: 256, description: 'of the page before', examples: ['2s.AAAAAAAAAAAAAAAA'] }))
})

const ReceiptAnswer = exactly({
  version: Type.Literal(1),
  entry: Type.String({ description: 'the leaf, verbatim', examples: ['{"actor":…,"type":"session.end","v":1}'] }),
  index: size('its place'),
  size: size('of the log that the checkpoint signs'),
  proof: Type.Array(Hash),
  checkpoint: Type.String({ description: 'a signed note', examples: [CHECKPOINT] })
}, { description: 'Proof that the session ended: fastify-token-registry/audit/verify checks it' })

/**
 * The audit over HTTP, for whoever has the scope: `app.register(auditRoutes, { prefix: '/audit' })`.
 *
 * GET /entries, /stream (server-sent events), /checkpoint, /proof/inclusion, /proof/consistency, /receipts/:sessionId
 */
export const auditRoutes: FastifyPluginAsync<AuditRoutesOptions> = async (app, options) => {
  const { scope = 'audit:read', personalScope = 'audit:pii', allTenantsScope, heartbeat = 15_000 } = options
  const { audit } = app
  const config = { session: { scope, noStore: true } }
  const security = [{ bearer: [] }]
  await app.register(strictInput)

  const tenantOf = (request: FastifyRequest): { tenant?: string } => {
    const { session: { tenant }, scope } = request.requireAuth()
    return allTenantsScope !== undefined && scope.includes(allTenantsScope) ? {} : { tenant }
  }
  const personal = (request: FastifyRequest): boolean => request.requireAuth().scope.includes(personalScope)

  app.get<{ Querystring: { type?: string, sub?: string, client?: string, outcome?: AuditEntry['outcome'], target?: string, since?: string, until?: string, limit?: number, cursor?: string } }>('/entries', {
    config,
    schema: { operationId: 'listAuditEntries', summary: 'Who did what, newest first', tags, security, querystring: EntriesQuery, response: answers(EntriesAnswer) }
  }, async request => {
    const { since, until, target, limit = 100, cursor, ...query } = request.query
    return await audit.entries({
      ...query,
      ...tenantOf(request),
      ...target !== undefined && { target: { id: target } },
      ...since !== undefined && { since: Date.parse(since) },
      ...until !== undefined && { until: Date.parse(until) }
    }, { limit, personal: personal(request), ...cursor !== undefined && { cursor } })
  })

  app.get<{ Querystring: { type?: string }, Headers: { 'last-event-id'?: string } }>('/stream', {
    config,
    schema: {
      operationId: 'streamAuditEntries',
      summary: 'Entries as they come, as server-sent events; resumes after Last-Event-ID',
      tags,
      security,
      produces: ['text/event-stream'],
      querystring: exactly({ type: Type.Optional(text('of the event', 'session.start')) }),
      headers: Type.Object({ 'last-event-id': Type.Optional(Type.String({ pattern: '^[0-9]{1,15}$', description: '`seq` of the last entry that was seen', examples: ['41'] })) }),
      response: answers(Type.String({ description: 'id: seq, event: type, data: the entry', examples: ['id: 41\nevent: session.start\ndata: {}\n\n'] }))
    }
  }, (request, reply) => {
    const after = request.headers['last-event-id']
    const gone = new AbortController()
    const { session: { id }, scope: granted } = request.requireAuth()
    const stop = app.tokenRegistry.watch(id, () => gone.abort())
    const entries = audit.follow({ ...tenantOf(request), ...request.query, personal: personal(request), signal: gone.signal, idle: heartbeat, ...after !== undefined && { after: Number(after) } })
    // What the session may read is looked at again and again: a scope can be taken from it.
    const mayStill = async (): Promise<boolean> => {
      const session = await app.tokenRegistry.getById(id)
      return session !== null && [scope, personalScope, allTenantsScope].every(name => name === undefined || !granted.includes(name) || session.scope.includes(name))
    }
    const stream = Readable.from(eventsOf(entries, mayStill, heartbeat), { objectMode: false, highWaterMark: 65_536 })
    // A reader that takes nothing holds its place for so long, and no more memory than fits in its buffers.
    reply.raw.setTimeout(2 * heartbeat, () => reply.raw.destroy())
    reply.raw.once('close', () => {
      stop()
      gone.abort()
    })
    return reply.header('content-type', 'text/event-stream').header('x-accel-buffering', 'no').send(stream)
  })

  app.get('/checkpoint', {
    config,
    schema: {
      operationId: 'getAuditCheckpoint',
      summary: 'What the log is now, signed (C2SP tlog-checkpoint)',
      tags,
      security,
      produces: ['text/plain'],
      response: answers(Type.String({ description: 'a signed note', examples: [CHECKPOINT] }))
    }
  }, async (_request, reply) => {
    return reply.type('text/plain; charset=utf-8').send(await audit.checkpoint())
  })

  app.get<{ Querystring: { index: number, size: number } }>('/proof/inclusion', {
    config,
    schema: {
      operationId: 'proveAuditInclusion',
      summary: 'Proof that an entry is in the log (RFC 6962 §2.1.1)',
      tags,
      security,
      querystring: exactly({ index: size('of the entry'), size: size('of the log') }),
      response: answers(exactly({ index: size('of the entry'), size: size('of the log'), leafHash: Hash, proof: Type.Array(Hash) }, { description: 'The proof' }))
    }
  }, async ({ query: { index, size } }) => await audit.inclusionProof(index, size))

  app.get<{ Querystring: { from: number, to: number } }>('/proof/consistency', {
    config,
    schema: {
      operationId: 'proveAuditConsistency',
      summary: 'Proof that the log was only appended to (RFC 6962 §2.1.2)',
      tags,
      security,
      querystring: exactly({ from: size('of the log before'), to: size('of the log after') }),
      response: answers(exactly({ from: size('of the log before'), to: size('of the log after'), proof: Type.Array(Hash) }, { description: 'The proof' }))
    }
  }, async ({ query: { from, to } }) => await audit.consistencyProof(from, to))

  app.get<{ Params: { sessionId: string } }>('/receipts/:sessionId', {
    config,
    schema: {
      operationId: 'getRevocationReceipt',
      summary: 'Proof for an outsider that a session ended',
      tags,
      security,
      params: exactly({ sessionId: text('of the session', '1Kz4_7cpHvAsp864SZoUrGX8') }),
      response: answers(ReceiptAnswer)
    }
  }, async request => await audit.receipt(request.params.sessionId, tenantOf(request).tenant))
}

async function * eventsOf (pages: AsyncIterable<readonly AuditEntry[]>, mayStill: () => Promise<boolean>, interval: number): AsyncGenerator<string> {
  let looked = performance.now()
  for await (const page of pages) {
    if (performance.now() - looked >= interval) {
      if (!await mayStill()) return
      looked = performance.now()
    }
    yield page.length === 0 ? ': here\n\n' : page.map(entry => `id: ${entry.seq}\nevent: ${entry.type}\ndata: ${JSON.stringify(entry)}\n\n`).join('')
  }
}
