import { csvLine, csvHeader } from './csv.ts'
import { parseLeaf, type AuditEvent } from './entry.ts'
import type { Ledger, StoredEntry } from './ledger.ts'
import type { Deed } from './batch.ts'
import type { HolderKeys } from './privacy/keys.ts'
import { openLeaf } from './privacy/sealing.ts'
import type { Reading } from './reading.ts'

/** Entries that are read at once. */
const PAGE = 500

export interface Person {
  sub: string
  /** `''` by default */
  tenant?: string
}

export interface PersonsParts {
  ledger: Ledger
  keys: HolderKeys
  reading: Reading
  /** Stores that something was done with a person's entries. */
  record: (event: AuditEvent) => Promise<unknown>
  /** The same, in the step that does it. */
  recordDeed: (event: AuditEvent, pseudonym: string, deed: Deed) => Promise<unknown>
}

/** What of a person anonymising keeps: of `ip` its country, of `userAgent` its family; undefined where there is none. */
export interface Kept {
  ip?: (ip: string) => string | undefined
  userAgent?: (userAgent: string) => string | undefined
}

/** What is asked of a log by the persons in it (GDPR articles 15, 17 and 20). */
export class Persons {
  readonly #parts: PersonsParts

  constructor (parts: PersonsParts) {
    this.#parts = parts
  }

  /**
   * Everything that the log has of a person, in order: their acts, and what was done to them. Others in it go by their pseudonyms.
   *
   * @returns lines, each with its end
   */
  async * export ({ sub, tenant = '' }: Person, format: 'ndjson' | 'csv', actor: AuditEvent['actor'] = {}): AsyncGenerator<string> {
    const { keys, record, reading } = this.#parts
    const known = await keys.find({ tenant, sub })
    // To name somebody who is not known would make them known.
    await record({ type: 'audit.export', actor, tenant, target: known && { kind: 'subject', id: sub }, data: { format } })
    const key = known && await keys.find({ tenant, sub })
    if (format === 'csv') yield csvHeader
    for await (const page of this.#pages(key?.owner)) {
      for (const entry of await reading.view(page, { personal: true, ...key !== null && { only: key.owner } })) yield format === 'csv' ? csvLine(entry) : `${JSON.stringify(entry)}\n`
    }
  }

  /**
   * Destroys the key of a person: nobody can tell any more whom their pseudonym stands for, or read what was sealed of them. All proofs hold.
   *
   * @returns false where the log knows nobody of that name
   */
  async erase (person: Person, actor: AuditEvent['actor'] = {}): Promise<boolean> {
    return await this.#destroy(person, 'audit.erase', actor)
  }

  /** The same, but for what is to be kept of each entry, without whose it was. */
  async anonymise (person: Person, kept: Kept, actor: AuditEvent['actor'] = {}): Promise<boolean> {
    const { ledger, keys } = this.#parts
    const { sub, tenant = '' } = person
    const key = await keys.find({ tenant, sub })
    if (key === null) return false
    for await (const page of this.#pages(key.owner)) {
      await ledger.keep(page.flatMap(({ seq, leaf }) => {
        const opened = openLeaf(parseLeaf(leaf), new Map([[key.owner, key]]))
        const of = (path: string, family: ((text: string) => string | undefined) | undefined): string | undefined => {
          const text = opened[path]
          return typeof text === 'string' ? family?.(text) : undefined
        }
        const [country, agent] = [of('actor.ip', kept.ip), of('actor.userAgent', kept.userAgent)]
        const rest = { ...country !== undefined && { country }, ...agent !== undefined && { agent } }
        return Object.keys(rest).length === 0 ? [] : [{ seq, kept: JSON.stringify(rest) }]
      }))
    }
    return await this.#destroy(person, 'audit.anonymise', actor)
  }

  async #destroy ({ sub, tenant = '' }: Person, type: string, actor: AuditEvent['actor']): Promise<boolean> {
    const { keys, recordDeed } = this.#parts
    const key = await keys.find({ tenant, sub })
    if (key === null) return false
    await recordDeed({ type, ...actor !== undefined && { actor }, tenant, target: { kind: 'subject', id: key.owner } }, key.owner, { destroyed: [key.owner] })
    return true
  }

  async * #pages (owner: string | undefined): AsyncGenerator<readonly StoredEntry[]> {
    if (owner === undefined) return
    let after = -1
    for (;;) {
      const page = await this.#parts.ledger.find({ person: owner }, { limit: PAGE, order: 'oldest', after })
      yield page
      const last = page.at(-1)
      if (last === undefined || page.length < PAGE) return
      after = last.seq
    }
  }
}
