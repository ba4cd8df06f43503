import type { Cluster } from 'ioredis'

/**
 * Whether the primaries of a Cluster are known: they are while each of them says the epoch at which all were last asked for. When a slot gets another
 * keeper, the epoch changes.
 */
export class Topology {
  readonly #addresses: () => readonly string[]
  readonly #changed: () => void
  readonly #epochs = new Map<string, string>()
  #epoch: string | null = null
  #provedAt = -Infinity
  #asking = false

  /**
   * @param addresses of the primaries that are known
   * @param changed is told that they were asked for
   */
  constructor (addresses: () => readonly string[], changed: () => void) {
    this.#addresses = addresses
    this.#changed = changed
  }

  /** When all that keep slots were last known, by the monotonic clock. */
  get provedAt (): number {
    return this.#provedAt
  }

  /** Learns which epoch a primary told, asked at a time. */
  learn (cluster: Cluster, address: string, epoch: string, sentAt: number): void {
    this.#epochs.set(address, epoch)
    const all = this.#addresses().map(each => this.#epochs.get(each))
    const agreed = all.every(each => each === epoch) ? epoch : null
    if (agreed !== null && agreed === this.#epoch) this.#provedAt = Math.max(this.#provedAt, sentAt)
    else this.#ask(cluster, agreed, sentAt)
  }

  #ask (cluster: Cluster, agreed: string | null, sentAt: number): void {
    if (this.#asking) return
    this.#asking = true
    this.#epoch = null
    cluster.refreshSlotsCache(error => {
      this.#asking = false
      if (error) return
      this.#epoch = agreed
      if (agreed !== null) this.#provedAt = sentAt
      this.#changed()
    })
  }
}
