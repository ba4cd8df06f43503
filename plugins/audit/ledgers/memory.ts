import type { Append, EntryPage, EntryQuery, Head, Ledger, StoredEntry, StoredKey, Tile, Turn } from '../ledger.ts'

/** A log in the memory of this process, with which it is gone: for tests, and to begin with. About 1.5 KB an entry. */
export class MemoryLedger implements Ledger {
  readonly name = 'memory'
  #head: Head = { size: 0, frontier: new Uint8Array(), erasures: 0 }
  readonly #entries = new Map<number, StoredEntry>()
  readonly #tiles = new Map<string, Uint8Array>()
  /** By finder. */
  readonly #keys = new Map<string, StoredKey>()
  readonly #finders = new Map<string, string>()
  readonly #kept = new Map<number, string>()
  readonly #checkpoints = new Map<number, string>()
  #turn: Promise<unknown> = Promise.resolve()

  async open (): Promise<void> {}

  async append (plan: (turn: Turn) => Promise<Append | null>): Promise<Append | null> {
    const work = this.#turn.then(async () => {
      const append = await plan({
        head: this.#copyOfHead(),
        entries: async (from, to) => await this.entries(from, to),
        living: async owners => new Set(owners.filter(owner => this.#ownedBy(owner) !== undefined)),
        tiles: async wanted => await this.tiles(wanted)
      })
      if (append !== null) this.#store(append)
      return append
    })
    this.#turn = work.catch(() => {})
    return await work
  }

  async head (): Promise<Head> {
    return this.#copyOfHead()
  }

  async entries (from: number, to: number): Promise<readonly StoredEntry[]> {
    const found: StoredEntry[] = []
    for (let seq = from; seq < Math.min(to, this.#head.size); seq++) {
      const entry = this.#entries.get(seq)
      if (entry !== undefined) found.push(copyOf(entry))
    }
    return found
  }

  async find (query: EntryQuery, { limit, order, after }: EntryPage): Promise<readonly StoredEntry[]> {
    const all = [...this.#entries.values()]
    const found: StoredEntry[] = []
    for (const entry of order === 'newest' ? all.reverse() : all) {
      if (found.length === limit) break
      const past = after === undefined || (order === 'newest' ? entry.seq < after : entry.seq > after)
      if (past && matches(entry, query)) found.push(copyOf(entry))
    }
    return found
  }

  async unresolved (from: number, to: number, before: number): Promise<readonly StoredEntry[]> {
    const resolved = new Set([...this.#entries.values()].filter(({ type, op }) => type !== 'intent' && op !== null).map(({ op }) => op))
    return (await this.entries(from, to)).filter(({ type, op, at }) => type === 'intent' && at < before && !resolved.has(op))
  }

  async tiles (wanted: ReadonlyArray<Pick<Tile, 'level' | 'index'>>): Promise<ReadonlyArray<Uint8Array | undefined>> {
    return wanted.map(({ level, index }) => {
      const hashes = this.#tiles.get(`${level} ${index}`)
      return hashes && Buffer.from(hashes)
    })
  }

  async addKeys (keys: readonly StoredKey[]): Promise<readonly StoredKey[]> {
    for (const key of keys) {
      if (this.#keys.has(key.finder)) continue
      this.#keys.set(key.finder, { ...key })
      this.#finders.set(key.owner, key.finder)
    }
    return await this.keysByFinder(keys.map(({ finder }) => finder))
  }

  async keysByFinder (finders: readonly string[]): Promise<readonly StoredKey[]> {
    return finders.map(finder => this.#keys.get(finder)).filter(key => key !== undefined).map(key => ({ ...key }))
  }

  async keysByOwner (owners: readonly string[]): Promise<readonly StoredKey[]> {
    return owners.map(owner => this.#ownedBy(owner)).filter(key => key !== undefined).map(key => ({ ...key }))
  }

  async keysAfter (owner: string, limit: number, unlike?: string): Promise<readonly StoredKey[]> {
    const wanted = [...this.#keys.values()].filter(key => key.owner > owner && (unlike === undefined || !key.wrapped.startsWith(unlike)))
    return wanted.sort((a, b) => a.owner < b.owner ? -1 : 1).slice(0, limit).map(key => ({ ...key }))
  }

  async rewrapKeys (keys: readonly StoredKey[]): Promise<void> {
    for (const { owner, wrapped } of keys) {
      const key = this.#ownedBy(owner)
      if (key !== undefined) key.wrapped = wrapped
    }
  }

  async keep (kept: ReadonlyArray<{ seq: number, kept: string }>): Promise<void> {
    for (const { seq, kept: text } of kept) if (this.#entries.has(seq)) this.#kept.set(seq, text)
  }

  async kept (seqs: readonly number[]): Promise<ReadonlyMap<number, string>> {
    return new Map(seqs.flatMap(seq => {
      const text = this.#kept.get(seq)
      return text === undefined ? [] : [[seq, text]]
    }))
  }

  async addCheckpoint (size: number, note: string): Promise<void> {
    if (!this.#checkpoints.has(size)) this.#checkpoints.set(size, note)
  }

  async lastCheckpoint (): Promise<{ size: number, note: string } | null> {
    return this.#checkpointList().at(-1) ?? null
  }

  async checkpointsAfter (size: number, limit: number): Promise<ReadonlyArray<{ size: number, note: string }>> {
    return this.#checkpointList().filter(checkpoint => checkpoint.size > size).slice(0, limit)
  }

  async close (): Promise<void> {}

  #store ({ entries, tiles, head, destroyed = [], pruned = 0 }: Append): void {
    for (const entry of entries) this.#entries.set(entry.seq, copyOf(entry))
    for (const { level, index, hashes } of tiles) this.#tiles.set(`${level} ${index}`, Buffer.from(hashes))
    for (const owner of destroyed) {
      this.#keys.delete(this.#finders.get(owner) ?? '')
      this.#finders.delete(owner)
    }
    for (const seq of this.#entries.keys()) {
      if (seq >= pruned) break
      this.#entries.delete(seq)
      this.#kept.delete(seq)
    }
    this.#head = { ...head, frontier: Buffer.from(head.frontier) }
  }

  #ownedBy (owner: string): StoredKey | undefined {
    return this.#keys.get(this.#finders.get(owner) ?? '')
  }

  #copyOfHead (): Head {
    return { ...this.#head, frontier: Buffer.from(this.#head.frontier) }
  }

  #checkpointList (): Array<{ size: number, note: string }> {
    return Array.from(this.#checkpoints, ([size, note]) => ({ size, note })).sort((a, b) => a.size - b.size)
  }
}

/** @see MemoryLedger */
export function memoryLedger (): MemoryLedger {
  return new MemoryLedger()
}

function copyOf (entry: StoredEntry): StoredEntry {
  return { ...entry, hash: Buffer.from(entry.hash) }
}

function matches (entry: StoredEntry, { person, since = -Infinity, until = Infinity, ...exact }: EntryQuery): boolean {
  return entry.at >= since && entry.at < until && (person === undefined || entry.sub === person || entry.subject === person) &&
    Object.entries(exact).every(([key, value]) => value === undefined || entry[key as keyof typeof exact] === value) // its keys
}
