import type { EndCause, Ending } from '../record.ts'
import type { Entry } from './entry.ts'

/** What is kept of a session that has ended. */
export interface Tombstone {
  entry: Entry
  cause: EndCause
  at: number
}

/**
 * The endings of the recent past, in two generations: when the younger one is full or old, it becomes the elder and the elder is forgotten.
 * So memory is bounded, an ending is kept for `keep` to `2 × keep`, and nothing is ever searched for what to drop.
 */
export class Endings {
  readonly #keep: number
  readonly #max: number
  #young = new Generation(0)
  #old = new Generation(0)

  /**
   * @param keep ms that an ending is kept at least, unless there are too many
   * @param max endings kept at most
   */
  constructor (keep: number, max: number) {
    this.#keep = keep
    this.#max = max
  }

  get (id: string): Tombstone | undefined {
    return this.#young.byId.get(id) ?? this.#old.byId.get(id)
  }

  /** What an operation ended: its repetition gets the same answer. */
  of (op: string): readonly Tombstone[] {
    return [...this.#old.byOp.get(op) ?? [], ...this.#young.byOp.get(op) ?? []]
  }

  /** @param now when it was noticed, from which on it is kept */
  add (tombstone: Tombstone, now: number): void {
    this.age(now)
    if (this.#young.byId.size >= this.#max / 2) this.#turn(now)
    const { byId, byOp } = this.#young
    byId.set(tombstone.entry.id, tombstone)
    const sameOp = byOp.get(tombstone.cause.op)
    if (sameOp === undefined) byOp.set(tombstone.cause.op, [tombstone])
    else sameOp.push(tombstone)
  }

  /** Forgets what is old. */
  age (now: number): void {
    if (now - this.#young.since >= this.#keep) this.#turn(now)
  }

  #turn (now: number): void {
    this.#old = this.#young
    this.#young = new Generation(now)
  }
}

class Generation {
  readonly since: number
  readonly byId = new Map<string, Tombstone>()
  readonly byOp = new Map<string, Tombstone[]>()

  constructor (since: number) {
    this.since = since
  }
}

export function endingOf ({ entry, cause, at }: Tombstone): Ending {
  const { id, subject: { tenant, sub } } = entry
  return { id, tenant, sub, reason: cause.reason, by: cause.by, op: cause.op, at }
}
