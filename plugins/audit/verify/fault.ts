/** What is wrong with a log. */
export type Tampering = 'edited' | 'deleted' | 'swapped' | 'inserted' | 'truncated' | 'forked' | 're-signed' | 'unreadable'

/** Ends the walk along a log. */
export class Fault extends Error {
  readonly what: Tampering
  /** The first entry that is wrong, as near as can be told. */
  readonly index: number | null

  constructor (what: Tampering, index: number | null, message: string) {
    super(message)
    this.what = what
    this.index = index
  }
}

/**
 * What was done where an entry should be and another one lies: told by what follows.
 *
 * @param expected `seq` of the one that should be there
 * @param here that of the one that lies there, another one
 * @param then that of the next one; undefined at the end of the log
 * @param after that of the one after that
 */
export function displaced (expected: number, here: number, then: number | undefined, after: number | undefined): Tampering {
  if (then === expected) {
    const goesOn = after === expected + 1 || (after === undefined && here !== expected + 1)
    return here < expected || goesOn ? 'inserted' : 'swapped'
  }
  if (then === expected + 1 && here !== then) return 'swapped'
  return here < expected ? 'inserted' : 'deleted'
}
