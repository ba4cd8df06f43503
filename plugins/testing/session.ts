import { randomBytes, randomUUID } from 'node:crypto'
import { tagOf, type SessionData, type SessionRecord } from '../token-registry/index.ts'

/** What `issue` and `save` take: valid for every validator. */
export function sessionData (overrides: Partial<SessionData> = {}): SessionData {
  return {
    sub: 'alice',
    scope: ['read'],
    ...overrides,
    meta: { deviceId: 'phone', ipAddress: '192.0.2.1', userAgent: 'Mozilla/5.0', ...overrides.meta }
  }
}

/** A session as a store keeps it: issued now, for an hour, with an id such as the registry mints. */
export function sessionRecord (overrides: Partial<SessionRecord> = {}): SessionRecord {
  const { tenant = '', sub = 'alice', issuedAt = Date.now() } = overrides
  return {
    id: tagOf({ tenant, sub }) + randomBytes(15).toString('base64url'),
    tenant,
    sub,
    client: null,
    use: 'session',
    scope: [],
    groups: [],
    generation: 0,
    revision: 0,
    issuedAt,
    expiresAt: issuedAt + 3_600_000,
    idleTimeout: null,
    lastUsedAt: issuedAt,
    rotatedAt: null,
    origin: null,
    binding: null,
    meta: {},
    kid: 1,
    op: randomUUID(),
    ...overrides
  }
}
