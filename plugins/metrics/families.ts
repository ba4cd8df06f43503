/** A figure of the registry, or of a plugin, as Prometheus knows it. */
export interface Family {
  /** Without what all names begin with. */
  name: string
  help: string
  type: 'counter' | 'gauge'
  /** From the unit of the figure to that of the metric. */
  scale?: number
}

const MS = 0.001

const counter = (name: string, help: string): Family => ({ name, help, type: 'counter' })
const gauge = (name: string, help: string): Family => ({ name, help, type: 'gauge' })
const seconds = (name: string, help: string): Family => ({ name, help, type: 'gauge', scale: MS })

/** What `tokenRegistry.stats` tells, by source and figure. What stands elsewhere with labels is left out. */
export const families: Readonly<Record<string, Readonly<Record<string, Family | null>>>> = {
  sessions: {
    issued: null,
    rotated: null,
    reused: null,
    recovered: counter('session_rotations_recovered_total', 'Rotations that the store had lost and a token proved.'),
    servedStale: counter('session_stale_responses_total', 'Requests served from the cache while the store was down.')
  },
  ended: {},
  cache: {
    hits: counter('cache_hits_total', 'Tokens that the cache knew.'),
    misses: counter('cache_misses_total', 'Tokens that the store was asked for.'),
    bypassed: counter('cache_bypasses_total', 'Misses while nobody would tell that a session ended.'),
    invalidations: counter('cache_invalidations_total', 'Times that sessions were forgotten since they ended or changed.'),
    tokens: gauge('cache_tokens', 'Tokens in the cache.'),
    staleness: seconds('cache_staleness_seconds', 'Time since it was last proved that invalidations arrive.')
  },
  denylist: {
    added: counter('denylist_added_total', 'JWTs that this process refused from then on.'),
    refused: counter('denylist_refused_total', 'JWTs that stood on the list.'),
    size: gauge('denylist_entries', 'JWTs that this process refused and that have not expired.')
  },
  store: {
    sessions: gauge('sessions', 'Sessions that live, of all instances.'),
    corrupt: counter('store_corrupt_records_total', 'Records that could not be read.'),
    removed: counter('store_expired_total', 'Sessions and one-time tokens that were found to have expired.'),
    cleanups: counter('store_cleanups_total', 'Times that this process went through all sessions.'),
    invalidationDelay: seconds('invalidation_delay_seconds', 'Time that the last heartbeat took to come back as an invalidation.'),
    losses: counter('store_losses_total', 'Times that the store may have lost what was written.'),
    reconnections: counter('store_reconnections_total', 'Clients of the store that took the place of another one.'),
    away: gauge('store_failed_over', '1 while the primary store is away and another one is used.'),
    switches: counter('store_failovers_total', 'Switches between the primary store and another one.')
  },
  audit: {
    size: gauge('audit_tree_size', 'Entries of the audit log.'),
    waiting: gauge('audit_queue_entries', 'Entries that wait for the ledger.'),
    lag: seconds('audit_lag_seconds', 'Time that the oldest of them has waited.'),
    dropped: counter('audit_dropped_total', 'Entries that were not recorded.'),
    copiesWaiting: gauge('audit_copies_queue_entries', 'Copies that wait for sinks.'),
    copiesDropped: counter('audit_copies_dropped_total', 'Copies that were left out.'),
    copiesFailed: counter('audit_copies_failed_total', 'Writes of copies that failed.'),
    anchored: counter('audit_anchored_total', 'Checkpoints that are kept elsewhere.'),
    anchorsFailed: counter('audit_anchors_failed_total', 'Attempts to keep checkpoints elsewhere that failed.')
  },
  notifications: {
    queued: gauge('notifications_queued', 'Notifications that wait to be sent.'),
    sent: counter('notifications_sent_total', 'Notifications that were sent.'),
    failed: counter('notifications_failed_total', 'Notifications that were given up.'),
    dropped: counter('notifications_dropped_total', 'Notifications that the queue had no room for.'),
    duplicates: counter('notifications_duplicates_total', 'Notifications that another one stood for.'),
    limited: counter('notifications_limited_total', 'Notifications beyond what a person may be sent.')
  },
  devices: {
    unnotedDevices: counter('devices_unnoted_total', 'Sign-ins whose devices could not be kept.')
  }
}

/** Reasons of endings that are told apart wherever the registry is used. */
export const reasons = ['revoked', 'expired', 'idle', 'reuse_recent', 'reuse_stale', 'limit', 'replaced', 'password_changed', 'disabled', 'withdrawn']

export const OTHER = 'other'
