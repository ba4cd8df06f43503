import type { StoredEntry } from '../ledger.ts'

/** Where copies of entries go, when the ledger has them. */
export interface Sink {
  readonly name: string
  /** Who has to wait for the ledger waits for this too: what it does not take within `timeout` is refused. With `guarantee: 'required'` alone. */
  readonly required?: boolean
  /** In the order of `seq`, each once; the next call comes when this has been answered, or has taken longer than `timeout`. A group whose call rejects, or is not answered, comes again. */
  write (entries: readonly StoredEntry[]): Promise<void>
  close (): Promise<void>
}
