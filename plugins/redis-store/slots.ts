import { Command, type Cluster } from 'ioredis'

/** Text to try, before it counts as found that a primary keeps no slot. */
const TRIES = 200_000

function slotOf (key: string): number {
  return new Command('get', [key]).getSlot() as number // a command that names a key has one
}

/** The address of the primary that keeps a key. */
export function keeperOf (key: string, { slots }: Cluster): string | undefined {
  return slots[slotOf(key)]?.[0]
}

/** Hash tags that lead to a primary of a Cluster, of which it may keep a single slot. */
export class HashTags {
  readonly #found = new Map<string, readonly [slot: number, tag: string]>()

  /** @throws where no slot is known that it keeps */
  leadingTo (address: string, { slots }: Cluster): string {
    const [known = -1, tag] = this.#found.get(address) ?? []
    if (tag !== undefined && slots[known]?.[0] === address) return tag
    for (let text = 0; text < TRIES; text++) {
      const tag = `{${text}}`
      const slot = slotOf(tag)
      if (slots[slot]?.[0] !== address) continue
      this.#found.set(address, [slot, tag])
      return tag
    }
    throw new Error(`no slot is known that ${address} keeps`)
  }
}
