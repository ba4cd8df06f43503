import assert from 'node:assert/strict'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import type { Append, EntryPage, EntryQuery, Head, Ledger, StoredEntry, StoredKey } from './ledger.ts'

/** A rule of the contract, and how it is checked. */
export interface Rule {
  name: string
  check: (bench: Bench) => Promise<void>
}

export type Draft = Partial<Omit<StoredEntry, 'seq'>>

/** What a step stores beside entries. */
export type Deed = Partial<Pick<Append, 'tiles' | 'destroyed' | 'pruned'>>

/** When the first entry was recorded, ms since the epoch; each further one a second later. */
export const START = 1_700_000_000_000

/** An empty ledger to check a rule on. */
export class Bench {
  readonly ledger: Ledger
  readonly #another: (() => Promise<Ledger>) | undefined
  readonly #opened: Ledger[] = []

  constructor (ledger: Ledger, another?: () => Promise<Ledger>) {
    this.ledger = ledger
    this.#another = another
  }

  /** Some over the same place; one that is by itself is all of them. */
  async several (count: number): Promise<readonly Ledger[]> {
    const all = [this.ledger]
    while (all.length < count) all.push(await this.another())
    return all
  }

  async another (): Promise<Ledger> {
    const ledger = await this.#another?.()
    if (ledger !== undefined) this.#opened.push(ledger)
    return ledger ?? this.ledger
  }

  /** Appends entries in one step. @returns them as they were given */
  async add (drafts: readonly Draft[], deed: Deed = {}, ledger: Ledger = this.ledger): Promise<readonly StoredEntry[]> {
    const appended = await ledger.append(async ({ head }) => stepOf(head, drafts, deed))
    assert.ok(appended !== null, 'what was stored is returned')
    return appended.entries
  }

  async find (query: EntryQuery, page: Partial<EntryPage> = {}): Promise<number[]> {
    return seqsOf(await this.ledger.find(query, { limit: 1000, order: 'oldest', ...page }))
  }

  async close (): Promise<void> {
    for (const ledger of this.#opened) await ledger.close()
  }
}

/** What a plan says to append some entries. The tree is not one: its hashes are told by the size alone. */
export function stepOf ({ size, erasures }: Head, drafts: readonly Draft[], deed: Deed = {}): Append {
  const entries = drafts.map((draft, place) => entryOf(size + place, draft))
  return { entries, tiles: [], head: { size: size + entries.length, frontier: frontierOf(size + entries.length), erasures: erasures + (deed.destroyed?.length ?? 0) }, ...deed }
}

export function entryOf (seq: number, draft: Draft = {}): StoredEntry {
  return {
    seq,
    at: START + seq * 1000,
    type: 'session.start',
    outcome: 'success',
    tenant: '',
    sub: null,
    client: null,
    targetKind: null,
    targetId: null,
    subject: null,
    op: null,
    leaf: JSON.stringify({ id: randomUUID(), seq }),
    hash: new Uint8Array(randomBytes(32)),
    ...draft
  }
}

/** As many hashes as a size has bits that are set; those of no two sizes are the same. */
export function frontierOf (size: number): Uint8Array {
  const bits = [...size.toString(2)].filter(bit => bit === '1')
  return new Uint8Array(Buffer.concat(bits.map((_, place) => createHash('sha256').update(`${size} ${place}`).digest())))
}

export function keyOf (name: string): StoredKey {
  return { owner: `owner of ${name}`, finder: `finder of ${name}`, wrapped: `wrapped ${randomUUID()}` }
}

/** Checks a head, whose frontier is one of `frontierOf`. */
export function assertHead (head: Head, size: number, erasures = 0): void {
  assert.deepEqual({ ...head, frontier: hex(head.frontier) }, { size, erasures, frontier: hex(frontierOf(size)) })
}

/** Checks entries: each field, in order. */
export function assertEntries (entries: readonly StoredEntry[], expected: readonly StoredEntry[]): void {
  const plain = ({ hash, ...rest }: StoredEntry) => ({ ...rest, hash: hex(hash) })
  assert.deepEqual(entries.map(plain), expected.map(plain))
}

export function seqsOf (entries: readonly StoredEntry[]): number[] {
  return entries.map(({ seq }) => seq)
}

/** Ledgers may return any kind of bytes. */
export function hex (bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

export function range (from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, place) => from + place)
}
