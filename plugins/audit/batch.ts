import { parseLeaf, type Draft, type Holder } from './entry.ts'
import type { Append, Head, StoredEntry, Turn } from './ledger.ts'
import type { HolderKeys, OwnerKey } from './privacy/keys.ts'
import { holdersOf, sealDraft, type SealedEntry } from './privacy/sealing.ts'
import { TreeAppender } from './tree/index.ts'
import { leafHash } from './verify/index.ts'

/** What else is done in the step that stores entries. */
export type Deed = Pick<Append, 'destroyed' | 'pruned'>

/** A part of the log. */
export interface Stretch {
  from: number
  /** exclusive */
  to: number
}

/** Entries that are stored in one step. */
export class Batch {
  /** As they are stored, in the order of the drafts: when `plan` has made them. */
  entries: readonly StoredEntry[] = []
  /** Where they are to lie, or may lie; null until that is known. */
  planned: Stretch | null = null
  /** The tree with them. */
  tree: TreeAppender | null = null
  readonly #drafts: readonly Draft[]
  readonly #keyOf: (holder: Holder) => OwnerKey
  /** How often keys had been destroyed before the keys were read that seal these. */
  #erasures: number
  /** Owners whose keys were destroyed since. */
  readonly #gone = new Set<string>()
  #sealed: readonly SealedEntry[]

  private constructor (drafts: readonly Draft[], keyOf: (holder: Holder) => OwnerKey, erasures: number) {
    this.#drafts = drafts
    this.#keyOf = keyOf
    this.#erasures = erasures
    this.#sealed = this.#seal()
  }

  /** @param erasures of the head, before now */
  static async seal (drafts: readonly Draft[], keys: HolderKeys, erasures: number): Promise<Batch> {
    const holders = drafts.flatMap(holdersOf)
    const found = await keys.of(holders)
    const byHolder = new Map(holders.map((holder, index) => [holder, found[index] as OwnerKey])) // one for each
    return new Batch(drafts, holder => byHolder.get(holder) as OwnerKey, erasures) // all of them were asked for
  }

  /**
   * What a step stores; null where an earlier one has stored it.
   *
   * @param lost where an answer was lost: what was stored there is not stored again
   * @param tree of the log as it was before, or as it may be
   */
  async plan (turn: Turn, lost: Stretch | null, tree: TreeAppender | null, deed: Deed): Promise<Append | null> {
    const { head } = turn
    if (head.erasures !== this.#erasures) await this.#leaveOutWhoIsGone(turn)
    const stored = lost === null ? [] : this.#among(await turn.entries(lost.from, lost.to))
    this.entries = stored.length > 0 ? stored : this.#sealed.map((sealed, place) => entryAt(head.size + place, sealed))
    if (stored.length > 0) return null
    this.planned = { from: head.size, to: head.size + this.entries.length }
    const grown = (tree?.size === head.size ? tree : await TreeAppender.load(head, turn)).append(this.entries.map(({ hash }) => hash))
    this.tree = grown.appender
    return { entries: this.entries, tiles: grown.tiles, head: headAfter(head, grown, deed), ...deed }
  }

  /** A key that was destroyed is never used again. */
  async #leaveOutWhoIsGone ({ head, living }: Turn): Promise<void> {
    const owners = [...new Set(this.#drafts.flatMap(holdersOf).map(holder => this.#keyOf(holder).owner))]
    const left = await living(owners)
    for (const owner of owners) if (!left.has(owner)) this.#gone.add(owner)
    this.#erasures = head.erasures
    this.#sealed = this.#seal()
  }

  #seal (): readonly SealedEntry[] {
    return this.#drafts.map(draft => sealDraft(draft, this.#keyOf, this.#gone))
  }

  /** Its own among others, in order: all or none, since one step stored them. */
  #among (entries: readonly StoredEntry[]): readonly StoredEntry[] {
    const byId = new Map(entries.map(entry => [parseLeaf(entry.leaf).id, entry]))
    return this.#sealed.map(({ id }) => byId.get(id)).filter(entry => entry !== undefined)
  }
}

function entryAt (seq: number, { parts: [first, last], entry }: SealedEntry): StoredEntry {
  const leaf = `${first}${seq}${last}`
  return Object.assign(entry, { seq, leaf, hash: leafHash(leaf) })
}

function headAfter ({ erasures }: Head, { appender, frontier }: ReturnType<TreeAppender['append']>, { destroyed = [] }: Deed): Head {
  return { size: appender.size, frontier, erasures: erasures + destroyed.length }
}
