import { randomInt } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import type { Documents, Subject } from '../../token-registry/index.ts'
import { DeviceConflict } from '../errors.ts'
import { listFrom, textOf } from './document.ts'
import { NO_DEVICES, since, type DeviceList } from './list.ts'

const PURPOSE = 'devices'
const ATTEMPTS = 16
/** ms, at most, between two attempts */
const PAUSE = 50

export interface DeviceDocumentsOptions {
  documents: Documents
  /** ms since the epoch */
  now: () => number
  /** ms after which what was not seen, or not written, is forgotten */
  forgetAfter: number
  /** Is told of damaged documents. */
  log: (error: unknown, message: string) => void
}

/** A change to a subject's devices. It may be tried several times: null stands for a subject of whom nothing was ever kept. */
type Change<T> = (list: DeviceList | null) => { list: DeviceList, result: T }

/** The devices of subjects: a document each. */
export class DeviceDocuments {
  readonly #options: DeviceDocumentsOptions
  /** By subject, the last change that is under way. */
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor (options: DeviceDocumentsOptions) {
    this.#options = options
  }

  async read (subject: Subject): Promise<DeviceList> {
    const { documents } = this.#options
    return this.#listOf(await documents.read(PURPOSE, keyOf(subject))) ?? NO_DEVICES
  }

  /**
   * Changes what is kept, or keeps it as it is where the change throws.
   *
   * @throws what the change throws; `FST_SESSION_DEVICE_CONFLICT` where others were faster each time; what the store throws
   */
  async change<T> (subject: Subject, change: Change<T>): Promise<T> {
    const key = keyOf(subject)
    return await this.#inTurn(key, async () => await this.#changed(key, change))
  }

  async #changed<T> (key: string, change: Change<T>): Promise<T> {
    const { documents, now, forgetAfter } = this.#options
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const before = await documents.read(PURPOSE, key)
      const { list, result } = change(this.#listOf(before))
      if (await documents.write(PURPOSE, key, before, textOf(list), now() + forgetAfter)) return result
      await setTimeout(randomInt(Math.min(2 ** attempt, PAUSE)))
    }
    throw new DeviceConflict()
  }

  /** Those of one process wait for one another: only other processes can be faster. */
  async #inTurn<T> (key: string, work: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(key) ?? Promise.resolve()).then(work)
    const over = turn.then(() => {}, () => {})
    this.#turns.set(key, over)
    try {
      return await turn
    } finally {
      if (this.#turns.get(key) === over) this.#turns.delete(key)
    }
  }

  #listOf (text: string | null): DeviceList | null {
    if (text === null) return null
    const { now, forgetAfter, log } = this.#options
    const list = listFrom(text)
    // Its owner shall not be locked out for it. Nor is it nobody's: a warning too many is better than none.
    if (list === null) log(new TypeError('the document is not a list of devices'), 'the devices that are kept of a user are damaged, and count as none')
    return since(list ?? NO_DEVICES, now() - forgetAfter)
  }
}

function keyOf ({ tenant, sub }: Subject): string {
  return `${tenant.length}:${tenant}${sub}`
}
