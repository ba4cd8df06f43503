const MIN = 1000
const MAX = 365 * 86_400_000

interface Named {
  name: string
  ms: number
}

/** How long a session may live, and for how long it may be unused. */
export interface SessionLifetime {
  /** ms */
  ttl: number
  /** ms; null for never */
  idleTimeout: number | null
}

/**
 * Which lifetimes there are in a service, so that those that contradict one another are refused where the later one is given. Each method returns what is
 * wrong, with both options named, or null.
 */
export class Lifetimes {
  /** Windows that a session, and its idle timeout, must be longer than. */
  readonly #windows: readonly Named[]
  readonly #stalenesses: readonly Named[]
  readonly #accessTokens: Named[] = []
  readonly #sessions: Named[] = []

  /** @param options ms, by the names of options of token-registry */
  constructor ({ reuseWindow, serveCachedFor, maxStaleness }: { reuseWindow: number, serveCachedFor: number, maxStaleness: number }) {
    this.#windows = [{ name: 'reuseWindow', ms: reuseWindow }, { name: 'serveCachedFor', ms: serveCachedFor }]
    this.#stalenesses = [{ name: 'cache.maxStaleness', ms: maxStaleness }]
  }

  /** @param names of the two options */
  addSession ({ ttl, idleTimeout }: SessionLifetime, names = { ttl: 'ttl', idleTimeout: 'idleTimeout' }): string | null {
    const absolute = { name: names.ttl, ms: ttl }
    const idle = idleTimeout === null ? null : { name: names.idleTimeout, ms: idleTimeout }
    for (const { name, ms } of [absolute, ...idle === null ? [] : [idle]]) {
      if (!(ms >= MIN && ms <= MAX)) return `${name} is ${ms} ms: it may be ${MIN} to ${MAX}`
    }
    const fault = this.#windows.map(window => notShorter(window, absolute)).find(isFault) ?? this.#accessTokens.map(token => longer(token, absolute)).find(isFault) ??
      (idle === null ? null : notShorter(idle, absolute) ?? [...this.#windows, ...this.#stalenesses].map(window => notShorter(window, idle)).find(isFault)) ?? null
    if (fault === null) this.#sessions.push(absolute)
    return fault
  }

  /** @param ms for which an access token of a session is valid: no longer than the session itself */
  addAccessToken (name: string, ms: number): string | null {
    const token = { name, ms }
    const fault = this.#sessions.map(session => longer(token, session)).find(isFault) ?? null
    if (fault === null) this.#accessTokens.push(token)
    return fault
  }
}

function notShorter (a: Named, b: Named): string | null {
  return a.ms < b.ms ? null : `${a.name} (${a.ms} ms) is not shorter than ${b.name} (${b.ms} ms): one of them must change`
}

function longer (a: Named, b: Named): string | null {
  return a.ms <= b.ms ? null : `${a.name} (${a.ms} ms) is longer than ${b.name} (${b.ms} ms): one of them must change`
}

function isFault (fault: string | null): fault is string {
  return fault !== null
}
