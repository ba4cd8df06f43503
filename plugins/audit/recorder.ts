import type { FastifyRequest } from 'fastify'
import type { Change, Ending, HookContext, OperationName, Outcome, SessionRecord, TokenRegistry } from '../token-registry/index.ts'
import type { AuditActor, AuditEvent, AuditOutcome, AuditTarget } from './entry.ts'

/** Stores what happened; `op` is the operation of the registry that it belongs to. */
type Record = (event: AuditEvent, op: string) => Promise<unknown>

export interface RecorderParts {
  registry: TokenRegistry
  /** Whether what is to change has to be on record before it does. */
  required: boolean
  /** Rejects where it cannot in time. */
  record: Record
  /** Does it as soon as it can. */
  note: Record
  /** Is told what a request was given. */
  issued: (request: FastifyRequest, sessions: readonly SessionRecord[]) => void
  /** Takes what was thrown and is on record by that. */
  told: WeakSet<object>
  /** ms: longer than `record` takes */
  timeout: number
}

/** An operation between its `preChange` and its `preAnswer`. */
interface UnderWay {
  change: Change
  context: HookContext
  /** Entries of endings: the answer waits for them too. */
  endings: Array<Promise<unknown>>
}

const types: { [Operation in OperationName]: string } = {
  issue: 'session.start',
  save: 'session.start',
  verify: 'session.verify',
  get: 'session.get',
  update: 'session.update',
  rotate: 'session.rotate',
  consume: 'token.consume',
  revoke: 'session.end',
  revokeAll: 'session.end_all',
  enforce: 'session.enforce',
  deny: 'jwt.deny'
}

/** From what the registry does to entries, one for each event: intents before, outcomes and endings after. */
export function recordRegistry ({ registry, required, record, note, issued, told, timeout }: RecorderParts): void {
  const underWay = new Map<string, UnderWay>()
  const store = required ? record : note

  registry.addHook('preChange', async (change, context) => {
    if (required) await record(intentOf(change, context), context.op)
    underWay.set(context.op, { change, context, endings: [] })
  }, { timeout })

  registry.addHook('onEnd', (session, ending) => {
    const [base = ''] = ending.op.split('.')
    const operation = underWay.get(base)
    const work = (operation === undefined ? note : store)(endingEvent(session, ending, operation), base)
    work.catch(() => {}) // told to who waits for the answer, and to the log
    operation?.endings.push(work)
  })

  registry.addHook('preAnswer', async (outcome, context) => {
    const operation = underWay.get(context.op)
    if (operation === undefined) return // it was under way when the plugin came
    underWay.delete(context.op)
    if (outcome.error instanceof Error) told.add(outcome.error)
    if (context.request !== null && operation.change.sessions !== undefined) issued(context.request, outcome.sessions)
    const work = eventsOf(outcome, operation).map(async event => await store(event, context.op))
    if (required) await Promise.all([...work, ...operation.endings])
    else for (const each of work) each.catch(() => {})
  }, { timeout })
}

/** Who makes a request, from where. */
export function actorOf ({ auth, ip, headers: { 'user-agent': userAgent } }: Pick<FastifyRequest, 'auth' | 'ip' | 'headers'>): Partial<AuditActor> {
  return { ip, userAgent: userAgent ?? null, ...auth !== null && { sub: auth.session.sub, tenant: auth.session.tenant, client: auth.session.client } }
}

/** The code of an error: its message may quote what a caller sent. */
export function reasonOf (error: unknown): string {
  const { code, name } = Object(error) as { code?: unknown, name?: unknown } // whatever was thrown
  return typeof code === 'string' ? code : String(name)
}

function intentOf (change: Change, context: HookContext): AuditEvent {
  const { sessions = [], reason = null } = change
  return {
    type: 'intent',
    ...circumstancesOf(change, context),
    reason,
    data: { operation: context.operation, ...sessions.length > 1 && { count: sessions.length } }
  }
}

function eventsOf ({ error, sessions, count }: Outcome, { change, context, endings }: UnderWay): AuditEvent[] {
  const { operation } = context
  const ofAll = circumstancesOf(change, context)
  const failure = error === null ? [] : [{ ...ofAll, type: typeOfFailure(error, change, operation), ...failureOf(error) }]
  if (operation === 'issue' || operation === 'save') {
    return [...sessions.map(session => ({ ...ofOne(session, context), type: startOf(session), data: { use: session.use, adopted: operation === 'save', expiresAt: session.expiresAt } })), ...failure]
  }
  if (operation === 'revokeAll' || operation === 'enforce' || operation === 'deny') {
    return error === null ? [{ ...ofAll, type: types[operation], outcome: operation === 'deny' && count === 0 ? 'failure' : 'success', reason: change.reason ?? null, data: { count } }] : failure
  }
  // What it ended is told by onEnd.
  const done = operation === 'revoke' ? [] : sessions.map(session => ({ ...ofOne(session, context), type: types[operation], data: { generation: session.generation } }))
  const events = [...done, ...failure]
  const nothing: AuditEvent = { ...ofAll, type: types[operation], outcome: 'failure', reason: 'FST_SESSION_NOT_FOUND' }
  return events.length + endings.length > 0 ? events : [nothing]
}

function endingEvent (session: SessionRecord, { reason, by, detail }: Ending, operation: UnderWay | undefined): AuditEvent {
  const circumstances = operation === undefined ? {} : circumstancesOf(operation.change, operation.context)
  return {
    type: 'session.end',
    ...circumstances,
    actor: { ...circumstances.actor, ...by !== null && { sub: by } },
    tenant: session.tenant,
    target: targetOf(session),
    reason,
    data: detail === undefined ? null : { ...detail }
  }
}

/** Who did it, from where, to what: as far as is known before it is done. */
function circumstancesOf ({ id, subject, sessions = [], by, client }: Change, { operation, request }: HookContext): Omit<AuditEvent, 'type'> {
  const [first] = sessions
  if (first !== undefined) {
    const ofFirst = ofOne(first, { request })
    return sessions.length === 1 ? ofFirst : { ...ofFirst, target: null }
  }
  const ofSubject = subject === undefined ? null : { kind: 'subject', id: subject.sub }
  return {
    actor: { ...client != null && { client }, ...request !== null && actorOf(request), ...by != null && { sub: by } },
    tenant: subject?.tenant ?? request?.auth?.session.tenant ?? '',
    requestId: request?.id ?? null,
    target: id === undefined ? ofSubject : { kind: operation === 'deny' ? 'jwt' : 'session', id }
  }
}

/** Likewise of a session that is there: whoever signs in is its subject. */
function ofOne (session: SessionRecord, { request }: Pick<HookContext, 'request'>): Omit<AuditEvent, 'type'> {
  const { sub, tenant, client, meta: { ipAddress = null, userAgent = null } } = session
  return {
    actor: { sub, tenant, client, ...request === null ? { ip: ipAddress, userAgent } : actorOf(request) },
    tenant,
    requestId: request?.id ?? null,
    target: targetOf(session)
  }
}

function targetOf ({ id, sub, use }: SessionRecord): AuditTarget {
  return { kind: use === 'once' ? 'token' : 'session', id, sub }
}

function startOf (session: SessionRecord): string {
  return session.use === 'once' ? 'token.issue' : 'session.start'
}

/** How what was thrown is told: a refusal is no failure. */
export function failureOf (error: unknown): { outcome: AuditOutcome, reason: string } {
  const refused = error instanceof Error && 'statusCode' in error && Number(error.statusCode) < 500
  return { outcome: refused ? 'denied' : 'failure', reason: reasonOf(error) }
}

function typeOfFailure (error: unknown, { sessions: [first] = [] }: Change, operation: OperationName): string {
  if (reasonOf(error) === 'FST_TOKEN_REUSED') return 'session.reuse'
  return first === undefined ? types[operation] : startOf(first)
}
