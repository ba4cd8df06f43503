/** Heartbeats whose time is remembered: of the last ten minutes. */
const REMEMBERED = 3000

/** What a server may lack. */
export interface Loss {
  /** What was written before this is there, by the monotonic clock. */
  since: number
  /** Whether it is known to have forgotten something; else another server is there now, which may. */
  certain: boolean
}

/** A heartbeat that is under way. */
export interface Sent {
  number: number
  /** The newest one that the server was known to have when this was sent. */
  known: number
}

interface Beats {
  sent: number
  known: number
  server: string
  /** By number, by the monotonic clock. */
  readonly times: Map<number, number>
}

/**
 * Whether a server has forgotten something: each process counts its heartbeats there, and the count must not go back. What was written after the last
 * one goes with no count: a server that is another one than before (it was restarted, or a replica was promoted) may lack that too.
 */
export class Losses {
  /** By the hash tag of where they are counted. */
  readonly #beats = new Map<string, Beats>()

  send (tag: string, at: number): Sent {
    let beats = this.#beats.get(tag)
    if (beats === undefined) this.#beats.set(tag, beats = { sent: 0, known: 0, server: '', times: new Map() })
    const number = ++beats.sent
    beats.times.set(number, at)
    beats.times.delete(number - REMEMBERED)
    return { number, known: beats.known }
  }

  /**
   * @param had the newest heartbeat that the server had before this one; 0 where it had none
   * @param server what it is called since it was started; '' where it does not say
   */
  learn (tag: string, { number, known }: Sent, had: number, server: string): Loss | null {
    const beats = this.#beats.get(tag) as Beats // it was sent before
    const another = server !== '' && beats.server !== '' && server !== beats.server
    const certain = had < known
    beats.known = Math.max(beats.known, number)
    if (server !== '') beats.server = server
    return certain || another ? { since: beats.times.get(Math.min(had, known)) ?? -Infinity, certain } : null
  }
}
