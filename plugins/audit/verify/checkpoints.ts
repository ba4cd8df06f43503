import { Fault } from './fault.ts'
import { openNote, readCheckpoint, trustedKey, type CheckpointBody, type Vkey } from './note.ts'
import { WINDOW, type Roots } from './roots.ts'

export interface CheckpointsOptions {
  /** Public keys that are trusted. */
  vkeys: readonly string[]
  /** Which log it has to be. */
  origin?: string
}

/** What was signed of one size. */
interface Signed {
  root: Buffer
  /** All of them were kept elsewhere: those are taken first. */
  outside: boolean
  count: number
}

/** What was signed of a log, compared with what it is. */
export class Checkpoints {
  readonly #roots: Roots
  readonly #keys: readonly Vkey[]
  readonly #origin: string | undefined
  /** By size, those that the log has not reached. */
  readonly #ahead = new Map<number, Signed>()
  /** Size of the largest one that agreed. */
  #agreed = 0
  #count = 0

  /** @throws {TypeError} where one of `vkeys` is none */
  constructor (roots: Roots, { vkeys, origin }: CheckpointsOptions) {
    this.#roots = roots
    this.#keys = vkeys.map(trustedKey)
    this.#origin = origin
  }

  /** How many agreed. */
  get count (): number {
    return this.#count
  }

  /** Size of the largest one that agreed; 0 where there is none. */
  get agreed (): number {
    return this.#agreed
  }

  /** Size of the smallest one that the log has not reached; null where there is none. */
  get ahead (): number | null {
    return this.#ahead.size === 0 ? null : [...this.#ahead.keys()].reduce((least, size) => Math.min(least, size))
  }

  /** @param outside whether it was kept elsewhere: to be taken before those of the log @param recorded up to where what is there agrees with the hashes that were stored of it */
  take (note: string, outside: boolean, recorded: number): void {
    const { size, root } = this.#open(note, outside ? 'the checkpoint that was kept elsewhere' : 'the checkpoint in the log')
    const before = this.#ahead.get(size)
    if (before !== undefined && !before.root.equals(root)) throw this.#contradiction(size)
    const signed = { root, outside, count: (before?.count ?? 0) + 1 }
    if (size > this.#roots.size) this.#ahead.set(size, signed)
    else this.#compare(size, signed, recorded)
  }

  /** To be called after each entry. */
  reached (size: number, recorded: number): void {
    const signed = this.#ahead.get(size)
    if (signed === undefined) return
    this.#ahead.delete(size)
    this.#compare(size, signed, recorded)
  }

  #open (note: string, which: string): CheckpointBody {
    const body = readCheckpoint(note)
    if (body === null) throw new Fault('unreadable', null, `${which} is none`)
    if (openNote(note, this.#keys) === null) throw new Fault('re-signed', this.#agreed, `${which}, of size ${body.size}, is not signed by a trusted key`)
    if (this.#origin !== undefined && body.origin !== this.#origin) throw new Fault('forked', null, `${which} is of another log, ${body.origin}`)
    return body
  }

  #compare (size: number, { root, outside, count }: Signed, recorded: number): void {
    const own = this.#roots.rootAt(size)
    if (own === null) throw new Fault('unreadable', size, `the checkpoint of size ${size} comes more than ${WINDOW} entries late: give it as one that was kept elsewhere`)
    if (!own.equals(root)) throw this.#disagreement(size, outside || recorded >= size)
    this.#count += count
    this.#agreed = Math.max(this.#agreed, size)
  }

  #disagreement (size: number, rewritten: boolean): Fault {
    if (size <= this.#agreed) return this.#contradiction(size)
    const range = `something from ${this.#agreed} to ${size - 1} is not what was signed`
    return rewritten ? new Fault('forked', this.#agreed, `${range}: the log was rewritten since the checkpoint before`) : new Fault('edited', this.#agreed, range)
  }

  #contradiction (size: number): Fault {
    return new Fault('forked', this.#agreed, `checkpoints contradict one another at size ${size}: something from ${this.#agreed} on was signed in two versions`)
  }
}
