import { StoreCorrupt, type EndCause, type Ending, type SessionRecord } from '../token-registry/index.ts'

/*
 * A session as Redis keeps it: lines of text, so that scripts change what they must and copy the rest byte for byte (cjson would make an empty
 * list an object, and round numbers).
 *
 *   L <use> <generation> <revision> <kid> <rotatedAt> <lastUsedAt> <idleTimeout> <issuedAt> <order> <expiresAt>
 *   op · tenant · sub · client · binding · origin · scope · version · meta         each on a line, as JSON
 *
 * `-` and an empty line stand for null. `order`: the microsecond in which it was stored, counted from `issuedAt`.
 * What has ended has two lines before that:
 *
 *   E <at>
 *   reason · by · op                                                               each on a line, as JSON
 */

const uses = { session: 's', refresh: 'r', once: 'o' } as const
const useOf = new Map<string | undefined, SessionRecord['use']>([['s', 'session'], ['r', 'refresh'], ['o', 'once']])
const HEAD = 11
const TEXTS = 9

/** A record, and the place of its session among all: the microsecond of the epoch in which it was stored. */
export interface Stored {
  session: SessionRecord
  order: number
  ending: Ending | null
}

/** What the script `insert` takes of a record: id, head, texts. */
export function insertArguments (record: SessionRecord): Array<string | number> {
  const { id, use, generation, revision, kid, rotatedAt, lastUsedAt, idleTimeout, issuedAt, expiresAt } = record
  const order = 0
  return [id, uses[use], generation, revision, kid ?? '-', rotatedAt ?? '-', lastUsedAt, idleTimeout ?? '-', issuedAt, order, expiresAt, textsOf(record)]
}

/** What scripts take of a cause: reason, by, op. */
export function causeArguments ({ reason, by, op }: EndCause): string[] {
  return [text(reason), text(by), text(op)]
}

function textsOf ({ op, client, binding, origin, scope, version, meta, ...subject }: SessionRecord): string {
  return [JSON.stringify(op), subjectLines(subject), text(client), text(binding), text(origin), JSON.stringify(scope), text(version), JSON.stringify(meta)].join('\n')
}

/** Tenant and sub, as they stand in a record and in the name of an index: a name that no other subject has. */
export function subjectLines ({ tenant, sub }: { tenant: string, sub: string }): string {
  return `${JSON.stringify(tenant)}\n${JSON.stringify(sub)}`
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
    const end = value.startsWith('E') ? lines.splice(0, 4) : null
    const { session, order } = decodeLines(id, lines)
    if (used !== null) session.lastUsedAt = Math.max(session.lastUsedAt, integer(used))
    return { session, order, ending: end === null ? null : endingOf(session, end) }
  } catch (cause) {
    throw new StoreCorrupt(id, { cause })
  }
}

function decodeLines (id: string, lines: readonly string[]): Omit<Stored, 'ending'> {
  if (lines.length !== 1 + TEXTS) throw new SyntaxError(`${lines.length} lines`)
  const [head = '', op = '', tenant = '', sub = '', client = '', binding = '', origin = '', scope = '', version = '', meta = ''] = lines
  const parts = head.split(' ')
  const [state, useName, generation, revision, kid, rotatedAt, lastUsedAt, idleTimeout, issuedAt, order, expiresAt] = parts
  const use = useOf.get(useName)
  if (state !== 'L' || use === undefined || parts.length !== HEAD) throw new SyntaxError('no record')

  const session: SessionRecord = {
    id,
    tenant: JSON.parse(tenant),
    sub: JSON.parse(sub),
    client: untext(client),
    use,
    scope: JSON.parse(scope),
    generation: integer(generation),
    revision: integer(revision),
    issuedAt: integer(issuedAt),
    expiresAt: integer(expiresAt),
    idleTimeout: nullable(idleTimeout),
    lastUsedAt: integer(lastUsedAt),
    rotatedAt: nullable(rotatedAt),
    origin: untext(origin),
    binding: untext(binding),
    meta: JSON.parse(meta),
    kid: nullable(kid),
    op: JSON.parse(op)
  }
  if (version !== '') session.version = JSON.parse(version)
  return { session, order: session.issuedAt * 1000 + integer(order) }
}

function endingOf ({ id, tenant, sub }: SessionRecord, [first = '', reason = '', by = '', op = '']: readonly string[]): Ending {
  return { id, tenant, sub, reason: JSON.parse(reason), by: untext(by), op: JSON.parse(op), at: integer(first.slice('E '.length)) }
}

function integer (digits: string | undefined): number {
  const number = Number(digits)
  if (digits === undefined || digits === '' || !Number.isSafeInteger(number)) throw new SyntaxError('no number')
  return number
}

function nullable (digits: string | undefined): number | null {
  return digits === '-' ? null : integer(digits)
}
