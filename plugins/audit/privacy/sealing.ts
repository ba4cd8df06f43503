import { indexOf, leafParts, type Draft, type Holder, type Leaf, type SealedBox } from '../entry.ts'
import type { StoredEntry } from '../ledger.ts'
import type { OwnerKey } from './keys.ts'
import { open, seal } from './seal.ts'

const NONE = new Uint8Array()

/** An entry but for its place: what it tells of persons is sealed. */
export interface SealedEntry {
  readonly id: string
  /** What stands before and after `seq`. */
  readonly parts: readonly [string, string]
  /** As it is stored, once it has its place. */
  readonly entry: StoredEntry
}

/** Whose keys an entry takes. */
export function holdersOf ({ actor, subject, personal }: Draft): Holder[] {
  return [actor, subject, ...personal.map(({ holder }) => holder)].filter(holder => holder !== null)
}

/** @param gone owners whose keys were destroyed: what tells of them is left out, and nobody can tell any more whom their pseudonyms stand for */
export function sealDraft (draft: Draft, keyOf: (holder: Holder) => OwnerKey, gone: ReadonlySet<string>): SealedEntry {
  const { id, actor, subject, personal } = draft
  const sealed = personal.filter(({ holder }) => !gone.has(keyOf(holder).owner)).map(({ holder, fields }): SealedBox => {
    const { owner, key, commitment } = keyOf(holder)
    return { box: seal(key, JSON.stringify(fields), boundTo(id, owner)), fields: Object.keys(fields), key: commitment, owner }
  })
  const names = { actor: actor && keyOf(actor).owner, subject: subject && keyOf(subject).owner, sealed }
  return { id, parts: leafParts(draft, names), entry: { ...indexOf(draft, names), seq: -1, leaf: '', hash: NONE } }
}

/** Those whose keys open something in some leaves, or name somebody. */
export function ownersIn (leaves: Iterable<Leaf>): Set<string> {
  const owners = new Set<string>()
  for (const { actor, target, sealed } of leaves) {
    if (actor.sub !== null) owners.add(actor.sub)
    if (target?.sub != null) owners.add(target.sub)
    for (const { owner } of sealed) owners.add(owner)
  }
  return owners
}

/** What is sealed in a leaf, as far as there are keys. */
export function openLeaf ({ id, sealed }: Leaf, keys: ReadonlyMap<string, OwnerKey>): Record<string, unknown> {
  const fields: Record<string, unknown> = {}
  for (const { owner, key: commitment, box } of sealed) {
    const key = keys.get(owner)
    const text = key?.commitment === commitment ? open(key.key, box, boundTo(id, owner)) : null
    if (text !== null) Object.assign(fields, JSON.parse(text))
  }
  return fields
}

function boundTo (id: string, owner: string): string {
  return `${id} ${owner}`
}
