import type { Coherence } from './coherence.ts'
import type { Connection } from './connection.ts'
import type { Keys } from './keys.ts'

/** Marks, and places where there is none, that this process remembers. */
const MAX = 10_000
/** ms since invalidations were last proved to arrive, beyond which nothing is remembered */
const MAX_STALENESS = 1000
/** ms that a sign of birth lives: prolonged long before */
const BIRTH_LIVES = 365 * 86_400_000

/** What is known of a mark: until when it stands, 0 where there is none, and since when marks are kept there. */
interface Known {
  until: number
  bornAt: number
}

/** A read that is under way; a change kills it. Those who ask meanwhile share it. */
interface Reading {
  alive: boolean
  answer: Promise<Known>
}

/**
 * Marks that stand until a time, one key each. What this process has asked is remembered, also that there is none: a new mark tells.
 *
 * Beside them, in the same slot, is since when there were any: where Redis has lost its memory, that begins anew, and what was issued before cannot
 * be known to be unmarked.
 */
export class Marks {
  readonly #connection: Connection
  readonly #keys: Keys
  readonly #coherence: Coherence
  readonly #set: (name: string, expiresAt: number) => Promise<boolean>
  readonly #known = new Map<string, Known>()
  readonly #readings = new Map<string, Reading>()
  /** When births were last prolonged, by key. */
  readonly #prolonged = new Map<string, number>()

  /** @param set sets a mark; false where it stood */
  constructor (connection: Connection, keys: Keys, coherence: Coherence, set: (name: string, expiresAt: number) => Promise<boolean>) {
    this.#set = set
    this.#connection = connection
    this.#keys = keys
    this.#coherence = coherence
  }

  /** Says in each slot that marks are kept from now on, unless it is said. */
  async begin (): Promise<void> {
    await Promise.all(this.#keys.births.map(async birth => await this.#bear(birth)))
  }

  async add (purpose: string, key: string, expiresAt: number): Promise<boolean> {
    const name = this.#keys.mark(purpose, key)
    if (expiresAt <= this.#coherence.now()) return await this.#connection.ask('mark', client => client.exists(name)) === 0
    try {
      return await this.#set(name, expiresAt)
    } finally {
      this.#forget(name)
    }
  }

  has (purpose: string, key: string, issuedAt: number | undefined): boolean | Promise<boolean> {
    const name = this.#keys.mark(purpose, key)
    const known = this.#known.get(name)
    const isMarked = ({ until, bornAt }: Known): boolean => this.#coherence.now() < until || (issuedAt !== undefined && issuedAt < bornAt)
    if (known !== undefined && this.#coherence.staleness <= MAX_STALENESS) return isMarked(known)
    return (this.#readings.get(name)?.answer ?? this.#read(name)).then(isMarked)
  }

  /** Forgets marks that changed. */
  changed (names: readonly string[] | 'all'): void {
    for (const name of names === 'all' ? [...this.#known.keys(), ...this.#readings.keys()] : names) this.#forget(name)
  }

  /** Marks may have been lost: what is older than now cannot be known to be unmarked. */
  async lost (isLost: (key: string) => boolean): Promise<void> {
    this.changed('all')
    await Promise.all(this.#keys.births.filter(isLost).map(async birth =>
      await this.#connection.ask('marked', client => client.set(birth, this.#coherence.now(), 'PX', BIRTH_LIVES))))
    this.changed('all')
  }

  #read (name: string): Promise<Known> {
    const reading: Reading = { alive: this.#coherence.staleness <= MAX_STALENESS, answer: this.#ask(name) }
    // What nobody would be told of is not shared either.
    if (reading.alive) this.#readings.set(name, reading)
    reading.answer.then(known => {
      if (reading.alive) this.#remember(name, known)
    }, () => {}).finally(() => {
      if (this.#readings.get(name) === reading) this.#readings.delete(name)
    })
    return reading.answer
  }

  async #ask (name: string): Promise<Known> {
    const birth = this.#keys.birthOf(name)
    const [until, born] = await this.#connection.ask('marked', client => client.mget(name, birth))
    const bornAt = typeof born === 'string' ? Number(born) : await this.#bear(birth)
    this.#prolong(birth)
    return { until: Number(until ?? 0), bornAt }
  }

  #remember (name: string, known: Known): void {
    const [first] = this.#known.keys()
    if (first !== undefined && this.#known.size >= MAX) this.#known.delete(first)
    this.#known.set(name, known)
  }

  #forget (name: string): void {
    this.#known.delete(name)
    const reading = this.#readings.get(name)
    if (reading === undefined) return
    reading.alive = false
    this.#readings.delete(name)
  }

  /** @returns since when marks are kept there */
  async #bear (birth: string): Promise<number> {
    return await this.#connection.ask('marked', async client => {
      const now = this.#coherence.now()
      const first = await client.set(birth, now, 'PX', BIRTH_LIVES, 'NX')
      return first === null ? Number(await client.get(birth)) : now
    })
  }

  /** Once a day: a birth that ended would make everything that is older marked. */
  #prolong (birth: string): void {
    const now = performance.now()
    if (now - (this.#prolonged.get(birth) ?? -Infinity) < 86_400_000) return
    this.#prolonged.set(birth, now)
    this.#connection.ask('marked', client => client.pexpire(birth, BIRTH_LIVES)).catch(() => this.#prolonged.delete(birth))
  }
}
