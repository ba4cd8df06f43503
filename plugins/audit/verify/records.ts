/**
 * What a log consists of, in the order in which it is read: entries by `seq`; after at most 256 of them the hashes that were stored of them, where there
 * are some; each checkpoint anywhere.
 *
 * As lines of an export: an entry is its leaf, verbatim; `{"hashes":{"from":0,"sha256":"<base64>"}}`; `{"checkpoint":"<note>"}`.
 */
export type LogRecord = EntryRecord | HashesRecord | CheckpointRecord

export interface EntryRecord {
  kind: 'entry'
  /** Where it lies. The leaf says so too. */
  seq: number
  /** Canonical JSON (RFC 8785), as it was stored. */
  leaf: string
  /** What `leaf` is parsed, where that was done already. */
  value?: unknown
}

/** Leaf hashes (RFC 6962 §2.1) that were stored beside the entries. Entries whose contents were dropped have only these. */
export interface HashesRecord {
  kind: 'hashes'
  /** `seq` of the first. */
  from: number
  /** 32 bytes each. */
  hashes: Uint8Array
}

/** A signed note (C2SP tlog-checkpoint). */
export interface CheckpointRecord {
  kind: 'checkpoint'
  note: string
}
