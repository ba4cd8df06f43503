// Types alone: nothing of the plugin is loaded.
export type { Append, EntryIndex, EntryPage, EntryQuery, Head, Ledger, StoredEntry, StoredKey, Tile, Turn } from '../../audit/index.ts'
