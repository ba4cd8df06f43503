/** When a group is written: as soon as it is full, or its first item has waited long enough. */
export interface Gathering {
  /** ms */
  time: number
  entries: number
}

/**
 * Gathers items into groups, which are written one after the other. While one is on its way the next is prepared, and those after it gather.
 *
 * Neither `prepare` nor `write` may reject.
 */
export class Groups<Item, Prepared> {
  readonly #gathering: Gathering
  readonly #prepare: (group: readonly Item[]) => Promise<Prepared>
  readonly #write: (prepared: Prepared, sent: () => void) => Promise<void>
  #items: Item[] = []
  #timer: NodeJS.Timeout | undefined
  /** Items that have waited long enough: the first so many. */
  #due = 0
  #writing: Promise<void> | null = null
  /** The next group, while one is written. */
  #next: Promise<Prepared> | null = null

  constructor (gathering: Gathering, prepare: (group: readonly Item[]) => Promise<Prepared>, write: (prepared: Prepared, sent: () => void) => Promise<void>) {
    this.#gathering = gathering
    this.#prepare = prepare
    this.#write = write
  }

  add (item: Item): void {
    this.#items.push(item)
    if (this.#items.length === 1) this.#timer = setTimeout(() => this.#allDue(), this.#gathering.time)
    if (this.#items.length >= this.#gathering.entries) this.#start()
  }

  get size (): number {
    return this.#items.length
  }

  /** Takes out items that gather still. */
  drop (isGone: (item: Item) => boolean): void {
    const due = this.#items.slice(0, this.#due).filter(item => !isGone(item))
    this.#items = [...due, ...this.#items.slice(this.#due).filter(item => !isGone(item))]
    this.#due = due.length
    if (this.#items.length === 0) clearTimeout(this.#timer)
  }

  /** Writes everything that was added before. */
  async flush (): Promise<void> {
    while (this.#items.length > 0 || this.#writing !== null) {
      this.#allDue()
      await this.#writing
    }
  }

  #allDue (): void {
    this.#due = this.#items.length
    this.#start()
  }

  #start (): void {
    this.#writing ??= this.#writeAll()
  }

  async #writeAll (): Promise<void> {
    for (let prepared = this.#take(); prepared !== null; prepared = this.#next ?? this.#take()) {
      this.#next = null
      // What is done while others work costs no time.
      await this.#write(await prepared, () => { this.#next ??= this.#take() })
    }
    this.#writing = null
  }

  #take (): Promise<Prepared> | null {
    if (this.#due === 0 && this.#items.length < this.#gathering.entries) return null
    const group = this.#items.splice(0, this.#gathering.entries)
    this.#due = Math.max(0, this.#due - group.length)
    clearTimeout(this.#timer)
    if (this.#items.length > 0) this.#timer = setTimeout(() => this.#allDue(), this.#gathering.time)
    return this.#prepare(group)
  }
}
