import type { FastifyInstance, FastifyReply, FastifyRequest, onSendHookHandler } from 'fastify'
import { SessionScope, type SessionRecord, type SessionScopeError } from '../token-registry/index.ts'
import type { Audit } from './audit.ts'
import type { AuditEvent } from './entry.ts'
import { KeyCorrupt, LedgerUnavailable } from './errors.ts'
import { actorOf, reasonOf } from './recorder.ts'

const kEvents = Symbol('fastify-token-registry audit events')
const kIssued = Symbol('fastify-token-registry audit sessions')

interface AuditedRequest extends FastifyRequest {
  /** What its answer waits for. */
  [kEvents]?: Array<Promise<void>>
  /** Ids of sessions that it was given. */
  [kIssued]?: string[]
}

interface RouteConfig {
  audit?: boolean
}

/** Methods whose routes change nothing, unless they say `config.audit`. */
const safe = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])

/**
 * Brings the audit to requests: who did it is known, and answers wait for what has to be on record.
 *
 * @param told errors that are on record already
 */
export function wireRequests (app: FastifyInstance, audit: Audit, told: WeakSet<object>): void {
  function recordOf (this: FastifyRequest, event: AuditEvent): Promise<void>
  function recordOf<T> (this: FastifyRequest, event: AuditEvent, work: () => Promise<T>): Promise<T>
  function recordOf<T> (this: AuditedRequest, event: AuditEvent, work?: () => Promise<T>): Promise<T | void> {
    const { auth, id } = this
    const inFull = (): AuditEvent => ({ requestId: id, ...auth !== null && { tenant: auth.session.tenant }, ...event, actor: { ...actorOf(this), ...event.actor } })
    const recorded = work === undefined ? audit.record(inFull(), null, this) : audit.actAs(inFull, work, this)
    const onRecord = recorded.then(nothing, ifNotOnRecord)
    onRecord.catch(nothing) // told by onSend, where nobody waits for it
    const events = this[kEvents] ??= []
    events.push(onRecord)
    return recorded
  }
  app.decorateRequest('audit', recordOf)

  // On the routes that may change something: those that read cost nothing.
  app.addHook('onRoute', route => {
    const methods = Array.isArray(route.method) ? route.method : [route.method]
    const { audit: asked }: RouteConfig = route.config ?? {}
    if (asked ?? !methods.every(method => safe.has(method))) route.onSend = [onSend, ...[route.onSend ?? []].flat()]
  })

  // It runs where a request fails, and never else.
  app.addHook('onError', (request, _reply, error, done) => {
    const cause = refusalIn(error)
    if (cause !== null && !told.has(cause)) audit.note({ ...refusedBy(request, cause), type: 'request.refuse', outcome: 'denied', reason: reasonOf(cause) })
    done()
  })
}

/** An answer leaves when what it tells of is on record; else the sessions that it would give are not given. */
const onSend: onSendHookHandler = (request: AuditedRequest, reply, payload, done) => {
  const events = request[kEvents]
  if (events === undefined) return done(null, payload)
  delete request[kEvents]
  Promise.all(events).then(() => done(null, payload), async (error: Error) => {
    await withhold(request, reply)
    // One that tells of such a failure already needs no other.
    if (reply.statusCode < 500) done(error)
    else done(null, payload)
  })
}

/** Remembers what is to be taken back where the answer is withheld. */
export function rememberIssued (request: AuditedRequest, sessions: readonly SessionRecord[]): void {
  (request[kIssued] ??= []).push(...sessions.map(({ id }) => id))
}

async function withhold (request: AuditedRequest, reply: FastifyReply): Promise<void> {
  reply.removeHeader('set-cookie')
  const { [kIssued]: issued = [], server: { tokenRegistry }, log } = request
  if (issued.length > 0) await tokenRegistry.withdraw(issued).catch((error: unknown) => log.error(error, 'sessions could not be withdrawn'))
}

/** What else went wrong is the route's to tell. */
function ifNotOnRecord (error: unknown): void {
  if (error instanceof LedgerUnavailable || error instanceof KeyCorrupt) throw error
}

function nothing (): void {}

const refusals = /^FST_(TOKEN_(MISSING|INVALID|EXPIRED|REVOKED|REUSED|MISMATCH|MALFORMED)|SESSION_(SCOPE|CROSS_SITE))$/

/** Why the registry refused a request, as precisely as it knows. */
function refusalIn (error: Error): Error | null {
  return refusals.test(reasonOf(error)) ? error.cause instanceof Error ? error.cause : error : null
}

/** Who it was is known where only the scope was missing. */
function refusedBy (request: FastifyRequest, error: Error): Omit<AuditEvent, 'type'> {
  const { method, routeOptions: { url }, id, ip, headers } = request
  const auth = request.auth ?? (isScopeError(error) ? error.auth : null)
  return { actor: actorOf({ auth, ip, headers }), ...auth !== null && { tenant: auth.session.tenant }, requestId: id, target: { kind: 'route', id: `${method} ${url ?? ''}` } }
}

function isScopeError (error: Error): error is SessionScopeError {
  return error instanceof SessionScope && 'auth' in error
}
