import { setTimeout as sleep } from 'node:timers/promises'

/** Waits for work, but only so long. The work itself goes on: its late result is dropped. */
export async function within<T> (ms: number, work: Promise<T>): Promise<T> {
  const done = new AbortController()
  const late = sleep(ms, undefined, { signal: done.signal }).then(() => { throw new Error(`not done within ${ms} ms`) })
  try {
    return await Promise.race([work, late])
  } finally {
    done.abort()
  }
}
