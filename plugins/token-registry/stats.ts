import { Tally } from './tally.ts'

export type Figures = Record<string, number>

/** Names of tenants, clients, reasons and limits, of each that are told apart; the rest counts as `other`. */
const MAX_NAMES = 100

/** What the registry did since it was made, and what other plugins add: read by metrics and health, at no cost in between. */
export class Stats {
  /** What happened to sessions and one-time tokens, by whose they are. */
  readonly tallies = {
    issued: new Tally(['tenant', 'client'], MAX_NAMES),
    rotated: new Tally(['tenant', 'client'], MAX_NAMES),
    reused: new Tally(['tenant', 'client'], MAX_NAMES),
    ended: new Tally(['tenant', 'reason'], MAX_NAMES),
    /** What limits refused. */
    limited: new Tally(['tenant', 'limit'], MAX_NAMES)
  } as const

  /** rotations that the store had lost and a token proved */
  recovered = 0
  /** requests served from the cache while the store was down */
  servedStale = 0
  readonly #sources = new Map<string, () => Figures>()

  /** @throws {TypeError} where the name is taken */
  register (name: string, read: () => Figures): void {
    if (name === 'sessions' || name === 'ended' || this.#sources.has(name)) throw new TypeError(`stats: the name ${name} is taken`)
    this.#sources.set(name, read)
  }

  /**
   * All figures, by source.
   *
   * @param failed is told why a source is left out; without it that is thrown
   */
  read (failed: (name: string, error: unknown) => void = (_name, error) => { throw error }): Record<string, Figures> {
    const { tallies: { issued, rotated, reused, ended }, recovered, servedStale } = this
    const figures: Record<string, Figures> = {
      sessions: { issued: issued.total, rotated: rotated.total, recovered, reused: reused.total, servedStale },
      ended: ended.by('reason')
    }
    for (const [name, read] of this.#sources) {
      try {
        figures[name] = { ...read() }
      } catch (error) {
        failed(name, error)
      }
    }
    return figures
  }
}
