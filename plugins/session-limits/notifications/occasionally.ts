const EVERY = 60_000

export type Log = (error: unknown, message: string) => void

/** A log that tells at most once a minute, for one topic. */
export function occasionally (now: () => number, log: Log): Log {
  let toldAt = -Infinity
  return (error, message) => {
    if (now() - toldAt < EVERY) return
    toldAt = now()
    log(error, message)
  }
}
