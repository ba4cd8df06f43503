import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import type { TokenRegistry } from '../token-registry/index.ts'
import { Audit } from './audit.ts'
import type { AuditEvent } from './entry.ts'
import { memoryLedger } from './ledgers/memory.ts'
import { resolveOptions, type AuditPluginOptions } from './options.ts'
import { recordRegistry } from './recorder.ts'
import { rememberIssued, wireRequests } from './requests.ts'
import { Signer, signingKeysOf } from './signing.ts'

declare module 'fastify' {
  interface FastifyInstance {
    audit: Audit
  }
  interface FastifyRequest {
    /**
     * Records what a request does; who, from where and which request is known. In routes that may change something the answer waits for it; in others await it.
     *
     * @throws `FST_AUDIT_UNAVAILABLE` where what is required cannot be recorded
     */
    audit (event: AuditEvent): Promise<void>
    /**
     * Does something, and records it, as `fastify.audit.act` does: before, that it is to be done (where that is required), and after, what came of it.
     *
     * @param event is read before and after: what is known only then can be added to it meanwhile
     * @throws what `work` throws; `FST_AUDIT_UNAVAILABLE` where nothing was done, or what was done is not on record
     * @example
     * await request.audit({ type: 'price.change', target: { kind: 'article', id } }, async () => await articles.setPrice(id, price))
     */
    audit<T> (event: AuditEvent, work: () => Promise<T>): Promise<T>
  }
  interface FastifyContextConfig {
    /** Whether answers of the route wait for what it records: true unless it only reads (GET, HEAD, OPTIONS, TRACE). */
    audit?: boolean
  }
}

/** ms that hooks get beyond what they wait for the ledger */
const MARGIN = 1000

const audit: FastifyPluginAsync<AuditPluginOptions> = async (app, given) => {
  const { tokenRegistry } = app
  const log = app.log.child({ plugin: 'audit' })
  const { ledger = memoryLedger(), masterKeys, signingKeys, ...rest } = resolveOptions(given)
  const options = {
    ...rest,
    ledger,
    // With those of the registry at the end, a log that began without keys of its own can be given some.
    masterKeys: [...masterKeys, ...tokenRegistry.deriveKeys('audit')],
    signingKeys: signingKeysOf(tokenRegistry, signingKeys)
  }
  const audit = new Audit({ options, cursorKeys: tokenRegistry.deriveKeys('audit cursor'), now: () => tokenRegistry.now(), log: (error, message) => log.error(error, message), observed: async (observed, work) => await tokenRegistry.observed(observed, work) })
  await audit.open()

  app.decorate('audit', audit)
  const told = new WeakSet()
  recordRegistry({
    registry: tokenRegistry,
    required: options.guarantee === 'required',
    record: async (event, op) => await audit.record(event, op),
    note: async (event, op) => await audit.note(event, op),
    issued: rememberIssued,
    told,
    timeout: options.timeout + MARGIN
  })
  wireRequests(app, audit, told)
  tokenRegistry.stats.register('audit', () => audit.figures)
  tokenRegistry.healthChecks.add('audit', async () => await audit.health(), { required: options.guarantee === 'required' })
  app.addHook('preClose', async () => { await audit.endFollowing() })
  app.addHook('onClose', async () => { await audit.close() })

  const { guarantee, timeout, gather, checkpointInterval, origin, copies, anchors } = options
  await audit.record({
    type: 'audit.start',
    data: { guarantee, timeout, gather, checkpointInterval, origin, vkeys: audit.vkeys, ledger: ledger.name, copies: copies.map(({ name }) => name), anchors: anchors.length }
  })
}

/** What `fastify.audit.vkeys` is with these options, for who checks a log without a server of it. */
export function vkeysOf (registry: Pick<TokenRegistry, 'deriveKeys'>, options: Pick<AuditPluginOptions, 'origin' | 'signingKeys' | 'formerKeys'>): string[] {
  const { origin, signingKeys, formerKeys } = resolveOptions(options)
  return [...new Signer(origin, signingKeysOf(registry, signingKeys)).vkeys, ...formerKeys]
}

export default fp(audit, { name: 'audit', fastify: '5.x', dependencies: ['token-registry'] })
export { fileAnchor, webhookAnchor, type Anchor } from './anchors.ts'
export * from './errors.ts'
export { memoryLedger } from './ledgers/memory.ts'
export { sqlLedger, type SqlLedgerOptions } from './ledgers/sql.ts'
export { maskEmail, maskIp } from './privacy/mask.ts'
export type { ActOptions, Audit, FollowOptions } from './audit.ts'
export type { AuditActor, AuditEvent, AuditOutcome, AuditTarget, Leaf, SealedBox } from './entry.ts'
export type * from './ledger.ts'
export type { AuditPluginOptions } from './options.ts'
export type { Kept, Person } from './persons.ts'
export type { VerifyOptions } from './proofs.ts'
export { auditRoutes, type AuditRoutesOptions } from './routes.ts'
export type { AuditEntry, AuditQuery, ReadOptions, ReadPage } from './reading.ts'
export { fileSink, type FileSinkOptions } from './sinks/file.ts'
export { pinoSink } from './sinks/pino.ts'
export type { Sink } from './sinks/sink.ts'
export { linesOf, verifyLedger } from './walk.ts'
