import { setTimeout as after } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { Address } from './options.ts'

/** ms between two questions to one: while there is a primary that answers, and while there is none */
const CALM = 500
const ALARM = 100
/** ms that the first answer at start waits for others */
const MOMENT = 100

/** Who a Sentinel says is the primary, and in which failover it became that. */
interface Word {
  epoch: number
  primary: Address
}

/**
 * Asks Sentinels again and again which server is the primary. They may disagree, since one that was cut off knows an old one: the latest failover counts.
 * (By itself, ioredis believes the first that answers, and asks only when its connection is lost: one to an old primary that was cut off never is.)
 */
export class Sentinels {
  readonly #clients: readonly Redis[]
  readonly #name: string
  readonly #named: (primary: Address) => void
  readonly #words = new Map<Redis, Word>()
  readonly #timers = new Map<Redis, NodeJS.Timeout>()
  /** Why a connection failed: what fails with it says only that it is closed. */
  readonly #faults = new Map<Redis, Error>()
  #primary: Address | null = null
  #closed = false

  /**
   * @param connect makes a client, in RESP 2 and without retries
   * @param named is told each primary that is another than before
   */
  constructor (addresses: readonly Address[], name: string, connect: (address: Address) => Redis, named: (primary: Address) => void) {
    this.#name = name
    this.#named = named
    this.#clients = addresses.map(connect)
    for (const client of this.#clients) client.on('error', error => { this.#faults.set(client, error) })
  }

  /**
   * Asks all of them until one names a primary, and the others for a moment longer: they may know of a later failover.
   *
   * @throws the error of one, where none names a primary
   */
  async ask (): Promise<void> {
    const answers = this.#clients.map(async client => await this.#listen(client))
    await Promise.any(answers).catch(({ errors }: AggregateError) => { throw errors[0] })
    await Promise.race([Promise.allSettled(answers), after(MOMENT)])
    this.#judge()
  }

  /** Goes on asking each; what is true of late is told as soon as one says it. */
  watch (isWell: () => boolean): void {
    const ask = async (client: Redis): Promise<void> => {
      await this.#listen(client).catch(() => {})
      this.#judge()
      if (!this.#closed) this.#timers.set(client, setTimeout(() => { ask(client) }, isWell() ? CALM : ALARM).unref())
    }
    for (const client of this.#clients) ask(client)
  }

  close (): void {
    this.#closed = true
    for (const timer of this.#timers.values()) clearTimeout(timer)
    for (const client of this.#clients) client.disconnect()
  }

  async #listen (client: Redis): Promise<void> {
    this.#faults.delete(client)
    try {
      if (client.status === 'wait' || client.status === 'end') await client.connect()
      // In this order: a name may be newer than the failover that it is believed for, never older.
      const [about, address] = await Promise.all([client.call('SENTINEL', 'MASTER', this.#name), client.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', this.#name)])
      const [facts, [host, port]] = [about, address] as [string[], [string, string]] // one that does not know the name answers the first with an error
      this.#words.set(client, { epoch: Number(facts[facts.indexOf('config-epoch') + 1]), primary: { host, port: Number(port) } })
    } catch (error) {
      this.#words.delete(client)
      throw this.#faults.get(client) ?? error
    }
  }

  #judge (): void {
    if (this.#closed) return
    const words = [...this.#words.values()]
    const latest = Math.max(...words.map(({ epoch }) => epoch))
    const named = words.filter(({ epoch }) => epoch === latest).map(({ primary }) => primary)
    const [first] = named
    if (first === undefined || named.some(primary => isSame(primary, this.#primary))) return
    this.#primary = first
    this.#named(first)
  }
}

function isSame (a: Address, b: Address | null): boolean {
  return a.host === b?.host && a.port === b.port
}
