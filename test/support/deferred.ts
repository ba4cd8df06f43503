import { within } from '../../plugins/token-registry/deadline.ts'

/** A promise that is settled from outside, to hold work at a known place. */
export interface Deferred<T> {
  promise: Promise<T>
  resolve: (value: T) => void
}

export function deferred<T = void> (): Deferred<T> {
  let settle: ((value: T) => void) | undefined
  const promise = new Promise<T>(resolve => { settle = resolve })
  return { promise, resolve: value => settle?.(value) }
}

/** Waits for what must come soon. Timers of the registry keep no process alive: this one does. */
export async function soon<T> (work: Promise<T>): Promise<T> {
  return await within(work, 5000, () => new Error('it did not come within 5 s'))
}
