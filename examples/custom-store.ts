// A store of one's own: six methods, here over a Map. The package completes the rest, more slowly (see completeStore).
//
//   npx tsx examples/custom-store.ts
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry, { deadlineOf, judgeRotation, type PartialStore, type SessionRecord } from 'fastify-token-registry'

const sessions = new Map<string, SessionRecord>()
const live = (id: string) => {
  const session = sessions.get(id)
  return session !== undefined && deadlineOf(session) > Date.now() ? session : undefined
}
const take = (ids: readonly string[]) => ids.flatMap(id => {
  const session = live(id)
  return session !== undefined && sessions.delete(id) ? [session] : []
})

export const store: PartialStore = {
  name: 'map',
  async insert (records) {
    const inserted = records.filter(({ id }) => live(id) === undefined)
    for (const record of inserted) sessions.set(record.id, structuredClone(record))
    const refused = records.filter(record => !inserted.includes(record)).map(({ id, tenant, sub }) => ({ reason: 'exists' as const, id, tenant, sub, ids: [id] }))
    return { inserted, evicted: [], refused }
  },
  async get (id) {
    return structuredClone(live(id) ?? null)
  },
  async rotate (id, presented, op) {
    const session = live(id)
    if (session === undefined) return { status: 'unknown' }
    const verdict = judgeRotation(session, presented, op, Date.now())
    if (verdict === 'unknown') return { status: 'unknown' }
    if (verdict === 'client' || verdict === 'binding') return { status: 'refused', by: verdict }
    if (verdict === 'repeat') return { status: 'repeated', session: structuredClone(session) }
    if (verdict === 'reuse_recent' || verdict === 'reuse_stale') {
      const { tenant, sub } = session
      return { status: 'reused', ending: { id, tenant, sub, reason: verdict, by: null, op, at: Date.now() }, ended: take([id]) }
    }
    Object.assign(session, { generation: presented.generation + 1, kid: presented.kid, rotatedAt: Date.now(), op })
    return { status: 'rotated', session: structuredClone(session), recovered: verdict === 'recover' }
  },
  async end (ids) { return take(ids) },
  async find ({ tenant = '', sub }, { limit, cursor }) {
    const found = [...sessions.values()]
      .filter(({ id, use, ...of }) => live(id) && use !== 'once' && of.tenant === tenant && (sub === undefined || of.sub === sub) && id > (cursor ?? ''))
      .sort((a, b) => a.id < b.id ? -1 : 1)
    return { sessions: structuredClone(found.slice(0, limit)), cursor: found.length > limit ? found[limit - 1]?.id ?? null : null }
  },
  async health () { return { status: 'ok', latency: 0, sessions: sessions.size } }
}

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64'), store })
app.post('/login', async request => ({ token: (await request.startSession({ sub: 'ada' })).token }))
app.get('/me', { config: { session: true } }, async request => ({ sub: request.requireAuth().session.sub }))
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))
await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
