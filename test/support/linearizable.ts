/** Something that was done and answered, and what it says of the state at one moment in between. */
export interface Step<State> {
  /** For a failure's report. */
  what: string
  /** When it began and ended, by one clock for all. */
  from: number
  to: number
  instance: number
  /** ms by which what was answered may be older, where it is not the own instance that changed something since */
  stale: number
  /** Whether its instance changed something, and knows that. */
  changes: boolean
  /** The states that follow; the same one where nothing changes, none where it cannot have been so. */
  next: (state: State) => State[]
}

/**
 * Looks for an order in which steps that overlapped may have happened one after the other (linearizability, Wing and Gong).
 *
 * @returns the states in which all orders that explain the answers end: none where there is no such order
 */
export function linearize<State> (before: readonly State[], steps: ReadonlyArray<Step<State>>): State[] {
  const ends = new Map<string, State>()
  const seen = new Set<string>()
  const precedes = (one: Step<State>, other: Step<State>): boolean => one.to < other.from - (one.changes && one.instance === other.instance ? 0 : other.stale)

  function explore (state: State, left: ReadonlyArray<Step<State>>): void {
    const key = JSON.stringify([state, left.map(step => steps.indexOf(step))])
    if (seen.has(key)) return
    seen.add(key)
    if (left.length === 0) {
      ends.set(JSON.stringify(state), state)
      return
    }
    const ready = left.filter(step => !left.some(other => other !== step && precedes(other, step)))
    for (const step of ready) {
      const following = step.next(state)
      const rest = left.filter(other => other !== step)
      for (const next of following) explore(next, rest)
      // What changes nothing can as well come first.
      if (following.length === 1 && following[0] === state) return
    }
  }
  for (const state of before) explore(state, steps)
  return [...ends.values()]
}
