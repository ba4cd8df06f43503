import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { TokenValidation, type FoundSessions, type Page, type SessionQuery, type SessionRecord, type TokenStore } from '../token-registry/index.ts'

/** Where a list goes on in one store: null at its beginning, false behind its end. */
const PositionSchema = Type.Union([Type.String(), Type.Null(), Type.Literal(false)])
type Position = Static<typeof PositionSchema>

const PositionsSchema = Type.Tuple([PositionSchema, PositionSchema])
type Positions = Static<typeof PositionsSchema>

type Find = TokenStore['find']

interface Part {
  sessions: SessionRecord[]
  next: Position
}

/**
 * A page of what two stores hold, as of one: the newest first, as far as each of them sorts. A cursor holds those of both.
 *
 * A store gives a cursor only for the end of a page. So a page of each is looked at, and where only a part of it is wanted, a page of just
 * that length is asked for and given: whatever ends meanwhile, nothing is passed over and nothing comes twice.
 */
export async function mergedFind (finds: readonly [Find, Find], query: SessionQuery, { limit, cursor = null }: Page): Promise<FoundSessions> {
  const from = cursor === null ? [null, null] as const : parse(cursor)
  const seen = await both(index => part(finds[index], query, limit, from[index]))
  const wanted = shares(seen, limit)
  const [first, second] = await both<Part>(async index => {
    if (wanted[index] === seen[index].sessions.length) return seen[index]
    return wanted[index] === 0 ? { sessions: [], next: from[index] } : await part(finds[index], query, wanted[index], from[index])
  })
  const isEnd = first.next === false && second.next === false
  return { sessions: merged(first.sessions, second.sessions), cursor: isEnd ? null : format([first.next, second.next]) }
}

async function both<T> (make: (index: 0 | 1) => Promise<T>): Promise<[T, T]> {
  return await Promise.all([make(0), make(1)])
}

async function part (find: Find, query: SessionQuery, limit: number, from: Position): Promise<Part> {
  if (from === false) return { sessions: [], next: false }
  const { sessions, cursor } = await find(query, { limit, cursor: from })
  return { sessions, next: cursor ?? false }
}

/** How many of each are among the first. */
function shares ([first, second]: readonly [Part, Part], limit: number): [number, number] {
  const own = new Set(first.sessions)
  const count = merged(first.sessions, second.sessions).slice(0, limit).filter(session => own.has(session)).length
  return [count, Math.min(limit - count, second.sessions.length)]
}

function merged (first: readonly SessionRecord[], second: readonly SessionRecord[]): SessionRecord[] {
  const all: SessionRecord[] = []
  let next = 0
  for (const session of first) {
    for (let other = second[next]; other !== undefined && other.issuedAt > session.issuedAt; other = second[++next]) all.push(other)
    all.push(session)
  }
  return [...all, ...second.slice(next)]
}

function format (positions: Positions): string {
  return Buffer.from(JSON.stringify(positions)).toString('base64url')
}

function parse (cursor: string): Positions {
  try {
    const positions: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    if (Value.Check(PositionsSchema, positions) && format(positions) === cursor) return positions
  } catch {
    // It is no JSON.
  }
  throw new TokenValidation('cursor is not one that a list gave: pass it on as it came')
}
