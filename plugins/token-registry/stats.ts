/** Reasons that are told apart: services name their own, and may not know how many. */
const MAX_REASONS = 100

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
  /** by reason; `other` for those after the first hundred */
  readonly ended = new Map<string, number>()
  readonly #sources = new Map<string, () => Figures>()

  /** @throws {TypeError} where the name is taken */
  register (name: string, read: () => Figures): void {
    if (name === 'sessions' || name === 'ended' || this.#sources.has(name)) throw new TypeError(`stats: the name ${name} is taken`)
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
    const name = this.ended.has(reason) || this.ended.size < MAX_REASONS ? reason : 'other'
    this.ended.set(name, (this.ended.get(name) ?? 0) + count)
  }
}
