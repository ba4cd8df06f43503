/** The tree of a log without its inside: enough to append to it. */
export interface Head {
  /** Entries that the log has; the next one gets this `seq`. */
  size: number
  /** Roots of the complete subtrees at the right edge, the largest first: 32 bytes for each bit that is set in `size`. */
  frontier: Uint8Array
  /** How often keys were destroyed: who knows keys by an older count looks again which are left. */
  erasures: number
}

/** By what entries are found. The leaf says the same. Texts have no control characters. */
export interface EntryIndex {
  /** ms since the epoch */
  at: number
  type: string
  outcome: string
  tenant: string
  /** Pseudonym of who acted. */
  sub: string | null
  client: string | null
  targetKind: string | null
  /** Of a subject its pseudonym. */
  targetId: string | null
  /** Pseudonym of whose the target is. */
  subject: string | null
  /** The operation of the registry. */
  op: string | null
}

export interface StoredEntry extends EntryIndex {
  seq: number
  /** Canonical JSON (RFC 8785), verbatim. */
  leaf: string
  /** RFC 6962 §2.1, 32 bytes: by it alone is told which leaf was altered. */
  hash: Uint8Array
}

/** Hashes of one level of the tree, 256 at most: of level 0 those of leaves, of level n + 1 the roots of complete tiles of level n. 32 bytes each. */
export interface Tile {
  level: number
  index: number
  hashes: Uint8Array
}

/** A subject's key, or that of unknown actors of a tenant and day. */
export interface StoredKey {
  /** A pseudonym: random, the same as long as the key lives. */
  owner: string
  /** Finds it for who knows whose it is: a keyed digest of that. */
  finder: string
  /** The key, encrypted by a master key. */
  wrapped: string
}

/** What one step stores, all or nothing. */
export interface Append {
  entries: readonly StoredEntry[]
  /** In place of those of the same level and index. */
  tiles: readonly Tile[]
  head: Head
  /** Owners whose keys are destroyed. */
  destroyed?: readonly string[]
  /** Entries before this `seq` are dropped; tiles stay. */
  pruned?: number
}

/** The log as it is while nobody else can append to it. */
export interface Turn {
  head: Head
  /** To find what a step stored whose answer was lost. */
  entries: Ledger['entries']
  tiles: Ledger['tiles']
  /** Those of the owners whose keys still exist. */
  living (owners: readonly string[]): Promise<ReadonlySet<string>>
}

export interface EntryQuery {
  /** Every tenant where it is left out. */
  tenant?: string
  type?: string
  outcome?: string
  client?: string
  /** Pseudonym of who acted. */
  sub?: string
  /** Pseudonym of who acted, or whose the target was. */
  person?: string
  targetKind?: string
  targetId?: string
  op?: string
  /** ms since the epoch, inclusive. */
  since?: number
  /** Likewise, exclusive. */
  until?: number
}

export interface EntryPage {
  /** At most 1000. */
  limit: number
  order: 'newest' | 'oldest'
  /** Goes on after this `seq`, in that order. */
  after?: number
}

/** Where a log lies, on which it is ordered and by which it is proved. Every call rejects within a time of its own where the place does not answer. */
export interface Ledger {
  readonly name: string
  /** Makes what is missing. To be called before all else, once. */
  open (): Promise<void>
  /**
   * Appends, alone among all instances. Where it rejects it may have stored all or nothing.
   *
   * @param plan null stores nothing; it is bounded in time, and may be called again where the ledger has to start over
   * @returns what was stored
   */
  append (plan: (turn: Turn) => Promise<Append | null>): Promise<Append | null>
  head (): Promise<Head>
  /** Those that are there, by `seq`. @param to exclusive; at most 1000 after `from` */
  entries (from: number, to: number): Promise<readonly StoredEntry[]>
  find (query: EntryQuery, page: EntryPage): Promise<readonly StoredEntry[]>
  /** Operations with an entry of type `intent` of a stretch of the log and before a time (ms since the epoch), and none of another type; the oldest first. @param to exclusive */
  unresolved (from: number, to: number, before: number): Promise<readonly StoredEntry[]>
  /** In the order asked; undefined for what is not there. */
  tiles (wanted: ReadonlyArray<Pick<Tile, 'level' | 'index'>>): Promise<ReadonlyArray<Uint8Array | undefined>>
  /** Keeps keys where their finders have none yet. @returns those that the finders have now, in that order */
  addKeys (keys: readonly StoredKey[]): Promise<readonly StoredKey[]>
  keysByFinder (finders: readonly string[]): Promise<readonly StoredKey[]>
  keysByOwner (owners: readonly string[]): Promise<readonly StoredKey[]>
  /** A page at a time, by owner. @param unlike leaves out those whose `wrapped` begins so */
  keysAfter (owner: string, limit: number, unlike?: string): Promise<readonly StoredKey[]>
  /** The same keys, encrypted anew, where they still exist. */
  rewrapKeys (keys: readonly StoredKey[]): Promise<void>
  /** What anonymising kept of entries, beside the log. */
  keep (kept: ReadonlyArray<{ seq: number, kept: string }>): Promise<void>
  kept (seqs: readonly number[]): Promise<ReadonlyMap<number, string>>
  addCheckpoint (size: number, note: string): Promise<void>
  /** The one of the largest size; null where there is none. */
  lastCheckpoint (): Promise<{ size: number, note: string } | null>
  /** By size, those that are larger. */
  checkpointsAfter (size: number, limit: number): Promise<ReadonlyArray<{ size: number, note: string }>>
  close (): Promise<void>
}
