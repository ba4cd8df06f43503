import { StoreCorrupt, TokenValidation, type EndCause, type Ending, type SessionMeta, type SessionRecord } from '../token-registry/index.ts'

/*
 * A session as Redis keeps it: lines of text, so that scripts change what they must and copy the rest byte for byte (cjson would make an empty
 * list an object, and round numbers). Short, since most of what Redis keeps is this.
 *
 *   <use> <generation> <revision> <kid> <rotatedAt> <lastUsedAt> <idleTimeout> <issuedAt> <order> <expiresAt>
 *   groups · op · tenant · sub · client · binding · origin · scope · version · meta        each on a line, as JSON; groups as one text, with spaces
 *
 * Nothing stands for null, for the one tenant, for an empty scope, and for no groups. Times but `issuedAt` count from it, in ms; `order`, the microsecond in which it
 * was stored, does so in µs. What has ended has this before that:
 *
 *   E <at>
 *   reason · by · op · detail                                                              each on a line, as JSON
 */

const uses = { session: 's', refresh: 'r', once: 'o' } as const
const useOf = new Map<string | undefined, SessionRecord['use']>([['s', 'session'], ['r', 'refresh'], ['o', 'once']])
const HEAD = 10
const TEXTS = 10
/** Lines that say how it ended. */
const ENDING = 5
/** What groups may be called: they stand in names of keys. */
const GROUP = /^[A-Za-z0-9_-]{1,32}$/

/** A record, and the place of its session among all: the microsecond of the epoch in which it was stored. */
export interface Stored {
  session: SessionRecord
  order: number
  ending: Ending | null
}

/** A record that is not stored yet: the script `insert` says when. */
export function encode (record: SessionRecord): string {
  const { use, generation, revision, kid, rotatedAt, lastUsedAt, idleTimeout, issuedAt, expiresAt } = record
  const order = 0
  const head = [uses[use], generation, revision, kid, rotatedAt === null ? null : rotatedAt - issuedAt, lastUsedAt - issuedAt, idleTimeout, issuedAt, order, expiresAt - issuedAt]
  const { groups, op, client, binding, origin, scope, version, meta } = record
  const texts = [groupsLine(groups), JSON.stringify(op), subjectLines(record), text(client), text(binding), text(origin), scope.length === 0 ? '' : JSON.stringify(scope), text(version), JSON.stringify(meta)]
  return [head.join(' '), ...texts].join('\n') // of null, join makes nothing
}

/** @throws {TokenValidation} for what is no name of a group */
export function groupsLine (groups: readonly string[]): string {
  if (groups.length === 0) return ''
  for (const group of groups) if (!GROUP.test(group)) throw new TokenValidation('the name of a group is 1 to 32 letters, digits, - or _')
  return JSON.stringify(groups.join(' '))
}

/** What scripts take for groups in such a line, also where it is damaged. */
export function groupsOf (line: string): string[] {
  return line.match(/[\w-]+/g) ?? []
}

/** What scripts take of a cause: the lines that are kept of it, and op. */
export function causeArguments ({ reason, by, op, detail }: EndCause): string[] {
  return [[text(reason), text(by), text(op), detail === undefined ? '' : JSON.stringify(detail)].join('\n'), text(op)]
}

/** Tenant and sub, as they stand in a record and in the name of an index: a name that no other subject has. */
export function subjectLines ({ tenant, sub }: { tenant: string, sub: string }): string {
  return `${tenant === '' ? '' : JSON.stringify(tenant)}\n${JSON.stringify(sub)}`
}

/** Text as JSON, which has no line breaks; null as nothing. */
export function text (value: string | null | undefined): string {
  return value === null || value === undefined ? '' : JSON.stringify(value)
}

export function untext (line: string): string | null {
  return line === '' ? null : JSON.parse(line)
}

/**
 * @param used when it was last used, where that was noted since the record was written
 * @throws {StoreCorrupt}
 */
export function decode (id: string, value: string, used: string | null = null): Stored {
  try {
    const lines = value.split('\n')
    const end = value.startsWith('E') ? lines.splice(0, ENDING) : null
    const { session, order } = decodeLines(id, lines)
    if (used !== null) session.lastUsedAt = Math.max(session.lastUsedAt, integer(used))
    return { session, order, ending: end === null ? null : endingOf(session, end) }
  } catch (cause) {
    throw new StoreCorrupt(id, { cause })
  }
}

function decodeLines (id: string, [head = '', ...lines]: readonly string[]): Omit<Stored, 'ending'> {
  const texts: unknown[] = JSON.parse(`[${lines.map(line => line === '' ? 'null' : line).join()}]`) // at once: it takes half the time
  const parts = head.split(' ')
  if (texts.length !== TEXTS || parts.length !== HEAD) throw new SyntaxError('no record')
  const [groups, op, tenant, sub, client, binding, origin, scope, version, meta] = texts
  const [useName, generation, revision, kid, rotatedAt, lastUsedAt, idleTimeout, issued, order, expiresAt] = parts
  const use = useOf.get(useName)
  if (use === undefined) throw new SyntaxError('no use')

  const issuedAt = integer(issued)
  const session: SessionRecord = {
    id,
    tenant: string(tenant ?? ''),
    sub: string(sub),
    client: nullable(client),
    use,
    scope: list(scope ?? []),
    groups: groups === null ? [] : string(groups).split(' '),
    generation: integer(generation),
    revision: integer(revision),
    issuedAt,
    expiresAt: issuedAt + integer(expiresAt),
    idleTimeout: idleTimeout === '' ? null : integer(idleTimeout),
    lastUsedAt: issuedAt + integer(lastUsedAt),
    rotatedAt: rotatedAt === '' ? null : issuedAt + integer(rotatedAt),
    origin: nullable(origin),
    binding: nullable(binding),
    meta: object(meta),
    kid: kid === '' ? null : integer(kid),
    op: string(op)
  }
  if (version !== null) session.version = string(version)
  return { session, order: issuedAt * 1000 + integer(order) }
}

function endingOf ({ id, tenant, sub }: SessionRecord, [first = '', reason = '', by = '', op = '', detail = '']: readonly string[]): Ending {
  const [why, who, operation, details] = JSON.parse(`[${reason},${by === '' ? 'null' : by},${op},${detail === '' ? 'null' : detail}]`)
  const ending: Ending = { id, tenant, sub, reason: why, by: who, op: operation, at: integer(first.slice('E '.length)) }
  if (details !== null) ending.detail = details
  return ending
}

function string (value: unknown): string {
  if (typeof value !== 'string') throw new SyntaxError('no text')
  return value
}

function nullable (value: unknown): string | null {
  return value === null ? null : string(value)
}

function list (value: unknown): string[] {
  if (!Array.isArray(value)) throw new SyntaxError('no list')
  return value
}

function object (value: unknown): SessionMeta {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new SyntaxError('no object')
  return value
}

function integer (digits: string | undefined): number {
  const number = Number(digits)
  if (digits === undefined || digits === '' || !Number.isSafeInteger(number)) throw new SyntaxError('no number')
  return number
}
