import { define } from '../token-registry/index.ts'

/** An option of the plugin is not what it may be, or contradicts another. */
export const AuditOptions = define<[string]>('FST_AUDIT_OPTIONS', 'audit: %s', 500)
/** What has to be recorded cannot be: the ledger does not answer, or its queue is full. */
export const LedgerUnavailable = define<[string]>('FST_AUDIT_UNAVAILABLE', 'The audit log is not available (%s): try again', 503, true)
/** A key of the log cannot be opened: it was altered, or the master key that wrapped it is not among the options. */
export const KeyCorrupt = define<[string]>('FST_AUDIT_KEY', 'The key %s of the audit log cannot be opened by any of the master keys', 500, true)
/** A cursor, place or size is not one of this log. */
export const AuditRange = define<[string]>('FST_AUDIT_RANGE', '%s', 400)
/** What the ledger has is not what was signed of it: it was altered. Nothing more is signed. */
export const LogForked = define<[string]>('FST_AUDIT_FORKED', 'The audit log does not continue what was signed of it: %s', 500, true)
/** There is no such entry, or none that the caller may know of. */
export const EntryNotFound = define('FST_AUDIT_NOT_FOUND', 'There is no such entry in the audit log', 404)
