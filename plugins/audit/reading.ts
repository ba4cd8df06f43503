import { createHmac, timingSafeEqual } from 'node:crypto'
import { plainName } from './canonical.ts'
import { parseLeaf, type AuditActor, type AuditOutcome, type Holder, type Leaf } from './entry.ts'
import { AuditRange } from './errors.ts'
import type { EntryQuery, Ledger, StoredEntry } from './ledger.ts'
import type { HolderKeys, OwnerKey } from './privacy/keys.ts'
import { openLeaf, ownersIn } from './privacy/sealing.ts'

/** An entry as it is read. Persons that were erased are named by their pseudonyms, and what was sealed of them is null. */
export interface AuditEntry {
  seq: number
  /** RFC 3339, UTC, ms */
  at: string
  type: string
  outcome: AuditOutcome
  actor: Omit<AuditActor, 'tenant'>
  target: { kind: string, id: string, sub: string | null } | null
  tenant: string
  requestId: string | null
  reason: string | null
  data: Readonly<Record<string, unknown>> | null
  /** The operation of the registry that it belongs to. */
  op: string | null
  /** What tells of persons, and is here only for who may read that: `actor.ip`, `actor.userAgent`, `data.<key>`. */
  sealed: readonly string[]
  /** What anonymising kept. */
  kept: Readonly<Record<string, string>> | null
}

export interface AuditQuery {
  /** Every tenant where it is left out. */
  tenant?: string
  type?: string
  outcome?: AuditOutcome
  client?: string
  /** Who acted, or whose the target was: of `tenant`, `''` by default. */
  sub?: string
  target?: { kind?: string, id: string }
  /** ms since the epoch, inclusive. */
  since?: number
  /** Likewise, exclusive. */
  until?: number
}

export interface ReadOptions {
  /** Opens what is sealed: for who has the scope `audit:pii`. */
  personal?: boolean
  /** Pseudonym: only this person is named, and only what tells of them is opened. */
  only?: string
}

export interface ReadPage extends ReadOptions {
  /** 1 to 1000, 100 by default */
  limit?: number
  cursor?: string | null
}

/** Reads entries, and what is sealed in them. */
export class Reading {
  readonly #ledger: Ledger
  readonly #keys: HolderKeys
  readonly #cursorKeys: readonly Buffer[]
  readonly #views = { plain: new WeakMap<readonly StoredEntry[], Promise<AuditEntry[]>>(), personal: new WeakMap<readonly StoredEntry[], Promise<AuditEntry[]>>() }

  /** @param cursorKeys the first signs cursors, all verify */
  constructor (ledger: Ledger, keys: HolderKeys, cursorKeys: readonly Buffer[]) {
    this.#ledger = ledger
    this.#keys = keys
    this.#cursorKeys = cursorKeys
  }

  /**
   * Entries, the newest first, a page at a time.
   *
   * @throws {AuditRange} where the cursor is not one of this query
   */
  async find (query: AuditQuery, { limit = 100, cursor = null, personal = false }: ReadPage = {}): Promise<{ entries: AuditEntry[], cursor: string | null }> {
    if (!Number.isInteger(limit) || limit < 1 || limit > 1000) throw new AuditRange(`limit is ${String(limit)}: it may be 1 to 1000`)
    for (const [name, time] of Object.entries({ since: query.since, until: query.until })) {
      if (time !== undefined && !Number.isSafeInteger(time)) throw new AuditRange(`${name} is no time`)
    }
    const after = cursor === null ? null : this.#seqOf(cursor, query)
    const asked = await this.#asked(query)
    if (asked === null) return { entries: [], cursor: null }
    const found = await this.#ledger.find(asked, { limit: limit + 1, order: 'newest', ...after !== null && { after } })
    const last = found[limit - 1]
    return { entries: await this.view(found.slice(0, limit), { personal }), cursor: found.length > limit && last !== undefined ? this.#cursorOf(last.seq, query) : null }
  }

  /** Entries as they are read. */
  async view (stored: readonly StoredEntry[], { personal = false, only }: ReadOptions = {}): Promise<AuditEntry[]> {
    const leaves = stored.map(({ leaf }) => parseLeaf(leaf))
    const keys = await this.#keys.byOwner(only === undefined ? ownersIn(leaves) : [only])
    const kept = await this.#ledger.kept(stored.map(({ seq }) => seq))
    return leaves.map(leaf => viewOf(leaf, keys, personal, kept.get(leaf.seq)))
  }

  /** The same, made once for a page, however many read it. */
  async viewOnce (stored: readonly StoredEntry[], { personal }: { personal: boolean }): Promise<readonly AuditEntry[]> {
    const views = personal ? this.#views.personal : this.#views.plain
    const view = views.get(stored) ?? this.view(stored, { personal })
    views.set(stored, view)
    view.catch(() => { views.delete(stored) })
    return await view
  }

  /** Null where nobody of that name is known. */
  async #asked ({ tenant, type, outcome, client, sub, target, since, until }: AuditQuery): Promise<EntryQuery | null> {
    const key = sub === undefined ? undefined : await this.#keys.find({ tenant: tenant ?? '', sub })
    if (key === null) return null
    return {
      ...named({ tenant, type, outcome, client, targetId: target?.id, targetKind: target?.kind }),
      ...key !== undefined && { person: key.owner },
      ...since !== undefined && { since },
      ...until !== undefined && { until }
    }
  }

  #cursorOf (seq: number, query: AuditQuery): string {
    return `${seq.toString(36)}.${String(this.#macs(seq, query)[0])}`
  }

  #seqOf (cursor: string, query: AuditQuery): number {
    const [digits = '', mac = ''] = cursor.split('.')
    const seq = parseInt(digits, 36)
    const given = Buffer.from(mac)
    const known = Number.isSafeInteger(seq) && this.#macs(seq, query).some(own => own.length === given.length && timingSafeEqual(own, given))
    if (!known) throw new AuditRange('cursor is not one that this list gave: pass it on as it came, with the same query')
    return seq
  }

  #macs (seq: number, query: AuditQuery): Buffer[] {
    const text = JSON.stringify([seq, Object.entries(query).filter(([, value]) => value !== undefined).sort()])
    return this.#cursorKeys.map(key => Buffer.from(createHmac('sha256', key).update(text).digest('base64url').slice(0, 16)))
  }
}

/** As leaves have them. */
function named (names: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(names).flatMap(([key, name]) => name === undefined ? [] : [[key, plainName(name)]]))
}

function viewOf (leaf: Leaf, keys: ReadonlyMap<string, OwnerKey>, personal: boolean, kept: string | undefined): AuditEntry {
  const { seq, at, type, outcome, tenant, requestId, reason, op, actor, target, sealed } = leaf
  const opened = personal ? openLeaf(leaf, keys) : {}
  const ofData = Object.entries(opened).filter(([path]) => path.startsWith('data.')).map(([path, value]) => [path.slice('data.'.length), value] as const)
  return {
    seq,
    at,
    type,
    outcome,
    actor: { sub: nameOf(actor.sub, keys), client: actor.client, ip: textAt(opened, 'actor.ip'), userAgent: textAt(opened, 'actor.userAgent') },
    target: target && { kind: target.kind, id: target.kind === 'subject' ? String(nameOf(target.id, keys)) : target.id, sub: nameOf(target.sub, keys) },
    tenant,
    requestId,
    reason,
    data: leaf.data === null && ofData.length === 0 ? null : { ...leaf.data, ...Object.fromEntries(ofData) },
    op,
    sealed: sealed.flatMap(({ fields }) => fields),
    kept: kept === undefined ? null : JSON.parse(kept) as Record<string, string> // written by anonymising
  }
}

/** Who goes by a pseudonym, as long as the key exists. */
function nameOf (owner: string | null, keys: ReadonlyMap<string, OwnerKey>): string | null {
  const holder: Holder | undefined = owner === null ? undefined : keys.get(owner)?.holder
  return holder !== undefined && 'sub' in holder ? holder.sub : owner
}

function textAt (opened: Readonly<Record<string, unknown>>, path: string): string | null {
  const value = opened[path]
  return typeof value === 'string' ? value : null
}
