export type Figures = Record<string, number>

/** What the registry did since it was made, and what other plugins add: read by metrics and health, at no cost in between. */
export class Stats {
  issued = 0
  rotated = 0
  /** rotations that the store had lost and a token proved */
  recovered = 0
  reused = 0
  /** requests served from the cache while the store was down */
  servedStale = 0
  readonly ended = new Map<string, number>()
  readonly #sources = new Map<string, () => Figures>()

  /** @throws {TypeError} where the name is taken */
  register (name: string, read: () => Figures): void {
    if (this.#sources.has(name)) throw new TypeError(`stats: the name ${name} is taken`)
    this.#sources.set(name, read)
  }

  /** All figures, by source. */
  read (): Record<string, Figures> {
    const { issued, rotated, recovered, reused, servedStale } = this
    const figures: Record<string, Figures> = { sessions: { issued, rotated, recovered, reused, servedStale }, ended: Object.fromEntries(this.ended) }
    for (const [name, read] of this.#sources) figures[name] = read()
    return figures
  }

  countEnded (reason: string, count = 1): void {
    this.ended.set(reason, (this.ended.get(reason) ?? 0) + count)
  }
}
