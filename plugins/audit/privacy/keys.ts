import { createHmac, hkdfSync } from 'node:crypto'
import type { Holder } from '../entry.ts'
import { KeyCorrupt } from '../errors.ts'
import type { Ledger, StoredKey } from '../ledger.ts'
import { randomBytes } from '../random.ts'
import { open, seal, sealingKey, type SealingKey } from './seal.ts'

/** Keys that a process remembers to seal with. */
const REMEMBERED = 10_000
/** Keys that are encrypted anew at once. */
const PAGE = 500
/** The owner of what finds the others. */
const FINDER = 'finder'

/** The key of a person, or of unknown actors of a tenant and day. */
export interface OwnerKey extends SealingKey {
  /** What they are called in leaves: random, and nobody's once the key is destroyed. */
  readonly owner: string
  readonly holder: Holder
}

interface MasterKey {
  id: string
  key: Buffer
}

/** Keys by whose they are. What is remembered is for sealing alone, and only until keys are destroyed; to open, the ledger is asked each time. */
export class HolderKeys {
  readonly #ledger: Ledger
  readonly #masters: readonly MasterKey[]
  #finderKey: Buffer = Buffer.alloc(0)
  #known = new Map<string, OwnerKey>()

  /** @param secrets 32 bytes each, one at least: the first wraps, all unwrap */
  constructor (ledger: Ledger, secrets: readonly Buffer[]) {
    this.#ledger = ledger
    this.#masters = secrets.map(secret => {
      const key = Buffer.from(hkdfSync('sha256', secret, '', 'fastify-token-registry audit master key', 32))
      return { id: createHmac('sha256', key).update('id').digest('base64url').slice(0, 8), key }
    })
  }

  /** To be called before all else. What finds keys is made once for a log, and wrapped as they are. */
  async open (): Promise<void> {
    const [stored] = await this.#ledger.addKeys([{ owner: FINDER, finder: FINDER, wrapped: this.#wrap(FINDER, JSON.stringify({ secret: newSecret(), holder: null })) }])
    this.#finderKey = this.#secretOf(stored as StoredKey).secret // the finder has one now
  }

  /** Keys to seal with, made where there are none yet; in the order given. One call of the ledger, or none. */
  async of (holders: readonly Holder[]): Promise<readonly OwnerKey[]> {
    const names = holders.map(nameOf)
    const known = this.#known
    const keys = new Map<string, OwnerKey>()
    const missing = new Map<string, StoredKey>()
    for (const [index, name] of names.entries()) {
      const remembered = known.get(name)
      if (remembered !== undefined) keys.set(name, remembered)
      else if (!missing.has(name)) missing.set(name, this.#make(holders[index] as Holder)) // there are as many
    }
    for (const stored of missing.size === 0 ? [] : await this.#ledger.addKeys([...missing.values()])) {
      const key = this.#unwrapped(stored)
      const name = nameOf(key.holder)
      keys.set(name, key)
      // Where keys were forgotten meanwhile, this one may be among them: then it goes into what nobody looks at any more.
      if (known.size === REMEMBERED) known.clear()
      known.set(name, key)
    }
    return names.map(name => keys.get(name) as OwnerKey) // each was known or made
  }

  /** Forgets keys that may have been destroyed. */
  forget (): void {
    this.#known = new Map()
  }

  /** The key of a person, as long as there is one. */
  async find (holder: Holder): Promise<OwnerKey | null> {
    const [key] = await this.#ledger.keysByFinder([this.#finderOf(holder)])
    return key === undefined ? null : this.#unwrapped(key)
  }

  /** Keys to open with, by owner: those that still exist. */
  async byOwner (owners: Iterable<string>): Promise<ReadonlyMap<string, OwnerKey>> {
    const wanted = [...new Set(owners)]
    const keys = wanted.length === 0 ? [] : await this.#ledger.keysByOwner(wanted)
    return new Map(keys.map(key => [key.owner, this.#unwrapped(key)]))
  }

  /**
   * Encrypts all keys by the first master key, so that the others can be dropped. Those that none of them opens stay as they are.
   *
   * @returns how many it changed
   */
  async rewrap (): Promise<number> {
    const { id } = this.#masters[0] as MasterKey // there is one at least
    let changed = 0
    for (let after = ''; ;) {
      const page = await this.#ledger.keysAfter(after, PAGE, `${id}.`)
      const opened = page.flatMap(stored => this.#rewrapped(stored) ?? [])
      await this.#ledger.rewrapKeys(opened)
      changed += opened.length
      const last = page.at(-1)
      if (last === undefined) return changed
      after = last.owner
    }
  }

  #rewrapped (stored: StoredKey): StoredKey | null {
    try {
      return { ...stored, wrapped: this.#wrap(stored.owner, this.#opened(stored)) }
    } catch {
      return null
    }
  }

  /** What finds the key of a holder, and tells nobody else whose it is. */
  #finderOf (holder: Holder): string {
    return createHmac('sha256', this.#finderKey).update(nameOf(holder)).digest('base64url')
  }

  #make (holder: Holder): StoredKey {
    const owner = randomBytes(16).toString('base64url')
    return { owner, finder: this.#finderOf(holder), wrapped: this.#wrap(owner, JSON.stringify({ secret: newSecret(), holder })) }
  }

  #wrap (owner: string, text: string): string {
    const { id, key } = this.#masters[0] as MasterKey // there is one at least
    return `${id}.${seal(key, text, owner)}`
  }

  #unwrapped (stored: StoredKey): OwnerKey {
    const { secret, holder } = this.#secretOf(stored)
    // Who can write to the ledger could make somebody be found as somebody else.
    if (stored.finder !== this.#finderOf(holder)) throw new KeyCorrupt(stored.owner)
    return { owner: stored.owner, holder, ...sealingKey(secret) }
  }

  #secretOf (stored: StoredKey): { secret: Buffer, holder: Holder } {
    const { secret, holder } = JSON.parse(this.#opened(stored)) as { secret: string, holder: Holder } // written here, and authenticated
    return { secret: Buffer.from(secret, 'base64'), holder }
  }

  #opened ({ owner, wrapped }: StoredKey): string {
    const [id = '', box = ''] = wrapped.split('.')
    const master = this.#masters.find(known => known.id === id)
    const text = master === undefined ? null : open(master.key, box, owner)
    if (text === null) throw new KeyCorrupt(owner)
    return text
  }
}

/** Those of no two holders are the same. */
function nameOf (holder: Holder): string {
  return 'sub' in holder ? `s${holder.tenant.length} ${holder.tenant}${holder.sub}` : `d${holder.tenant.length} ${holder.tenant}${holder.day}`
}

function newSecret (): string {
  return randomBytes(32).toString('base64')
}
