import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { auditRoutes } from '../../plugins/audit/index.ts'
import { openNote, parseCheckpoint, verifyConsistency, verifyInclusion, verifyReceipt } from '../../plugins/audit/verify/index.ts'
import { audited } from '../support/audited.ts'

interface Served {
  app: FastifyInstance
  /** Headers of who may read. */
  reader: { authorization: string }
  /** Of who may read what is sealed too. */
  personal: { authorization: string }
}

async function served (t: Test, options = {}): Promise<Served> {
  const app = await audited(t)
  await app.register(auditRoutes, { prefix: '/audit', ...options })
  const bearer = async (...scope: string[]) => ({ authorization: `Bearer ${(await app.tokenRegistry.issue({ sub: 'auditor', scope })).token}` })
  return { app, reader: await bearer('audit:read'), personal: await bearer('audit:read', 'audit:pii') }
}

t.test('who may read the log reads it, and what is sealed only who may read that', async t => {
  const { app, reader, personal } = await served(t)
  for (const url of ['/audit/entries', '/audit/stream', '/audit/checkpoint', '/audit/proof/inclusion?index=0&size=1', '/audit/proof/consistency?from=1&to=1', '/audit/receipts/x']) {
    t.equal((await app.inject({ url })).statusCode, 401, url)
    const { token } = await app.tokenRegistry.issue({ sub: 'mallory', scope: ['audit'] })
    t.equal((await app.inject({ url, headers: { authorization: `Bearer ${token}` } })).statusCode, 403, url)
  }
  await app.audit.record({ type: 'mail.change', actor: { sub: 'alice', ip: '203.0.113.7' }, data: { email: 'alice@example.com' } })
  const read = async (headers: object) => (await app.inject({ url: '/audit/entries?type=mail.change', headers: { ...headers } })).json<{ entries: unknown[] }>().entries[0]
  t.match(await read(reader), { actor: { sub: 'alice', ip: null }, data: {}, sealed: ['actor.ip', 'data.email'] })
  t.match(await read(personal), { actor: { sub: 'alice', ip: '203.0.113.7' }, data: { email: 'alice@example.com' } })
  t.equal((await app.inject({ url: '/audit/entries', headers: reader })).headers['cache-control'], 'no-store')
})

t.test('entries are found by what they say, a page at a time', async t => {
  const { app, reader } = await served(t)
  const ask = async (query: string) => await app.inject({ url: `/audit/entries?${query}`, headers: reader })
  const seqs = async (query: string) => (await ask(query)).json<{ entries: Array<{ seq: number }> }>().entries.map(({ seq }) => seq)
  const { seq: first } = (await app.audit.entries({}, { limit: 1 })).entries[0] ?? { seq: 0 }
  await app.audit.record({ type: 'a', actor: { sub: 'alice', client: 'web' }, target: { kind: 'thing', id: '7' } })
  await app.audit.record({ type: 'b', outcome: 'denied', actor: { sub: 'bob' }, target: { kind: 'thing', id: '8', sub: 'alice' } })
  await app.audit.record({ type: 'a', outcome: 'failure' })
  t.same(await seqs('type=a'), [first + 3, first + 1])
  t.same(await seqs('sub=alice'), [first + 2, first + 1])
  t.same(await seqs('sub=nobody'), [])
  t.same(await seqs('client=web'), [first + 1])
  t.same(await seqs('outcome=denied'), [first + 2])
  t.same(await seqs('target=8'), [first + 2])
  t.same((await app.audit.entries({ target: { kind: 'other', id: '8' } })).entries, [])
  t.same(await seqs('until=2020-01-01T00:00:00Z'), [])
  t.equal((await seqs('since=2020-01-01T00:00:00Z')).length, first + 4)

  const seen: number[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const page: { entries: Array<{ seq: number }>, cursor: string | null } = (await ask(`limit=2${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`)).json()
    seen.push(...page.entries.map(({ seq }) => seq))
    cursor = page.cursor
  }
  t.same(seen, Array.from({ length: first + 4 }, (_, i) => first + 3 - i))

  const { cursor: ofAll } = (await ask('limit=1')).json<{ cursor: string }>()
  for (const query of [`type=a&cursor=${ofAll}`, 'cursor=abc', 'cursor=.', `cursor=${ofAll}x`, 'cursor=zzzzzzzzzzzzzzzzzz.AAAA']) {
    t.match((await ask(query)).json(), { statusCode: 400, code: 'FST_AUDIT_RANGE' }, query)
  }
  for (const query of ['nope=1', 'limit=0', 'limit=1001', 'outcome=intent', 'since=yesterday', 'since=2026-06-30T23:59:60Z', 'until=2026-06-30T23:59:60Z', 'type=', 'type=a&type=b']) t.equal((await ask(query)).statusCode, 400, query)
  for (const limit of [0, 1001, 1.5]) await t.rejects(app.audit.entries({}, { limit }), { code: 'FST_AUDIT_RANGE' })
})

t.test('each tenant reads its own, unless who reads may read all', async t => {
  const { app } = await served(t, { allTenantsScope: 'audit:all' })
  const bearer = async (tenant: string, ...scope: string[]) => ({ authorization: `Bearer ${(await app.tokenRegistry.issue({ sub: 'auditor', tenant, scope: ['audit:read', ...scope] })).token}` })
  const acme = await bearer('acme')
  const { session } = await app.tokenRegistry.issue({ sub: 'alice', tenant: 'other' })
  await app.tokenRegistry.revokeById(session.id)
  const tenants = async (headers: object) => new Set((await app.inject({ url: '/audit/entries', headers: { ...headers } })).json<{ entries: Array<{ tenant: string }> }>().entries.map(({ tenant }) => tenant))
  t.same(await tenants(acme), new Set(['acme']))
  t.same(await tenants(await bearer('acme', 'audit:all')), new Set(['acme', 'other', '']))
  t.equal((await app.inject({ url: `/audit/receipts/${session.id}`, headers: acme })).statusCode, 404)
  t.equal((await app.inject({ url: `/audit/receipts/${session.id}`, headers: await bearer('other') })).statusCode, 200)
})

t.test('proofs and receipts convince who did not write the log', async t => {
  const { app, reader } = await served(t)
  const ask = async (url: string) => await app.inject({ url: `/audit${url}`, headers: reader })
  const { session } = await app.tokenRegistry.issue({ sub: 'alice' })
  const early = await ask('/checkpoint')
  t.match(early.headers['content-type'], /^text\/plain/)
  await app.tokenRegistry.revokeById(session.id)
  const opened = (note: string) => parseCheckpoint(openNote(note, app.audit.vkeys)?.text ?? '') ?? { size: -1, root: Buffer.alloc(0), origin: '' }
  const [from, to] = [opened(early.body), opened((await ask('/checkpoint')).body)]
  t.ok(from.size > 0 && to.size > from.size)
  const bytes = (hashes: string[]) => hashes.map(hash => Buffer.from(hash, 'base64'))

  const consistency = (await ask(`/proof/consistency?from=${from.size}&to=${to.size}`)).json<{ proof: string[] }>()
  t.ok(verifyConsistency({ from: from.size, to: to.size, proof: bytes(consistency.proof), fromRoot: from.root, toRoot: to.root }))
  const inclusion = (await ask(`/proof/inclusion?index=3&size=${to.size}`)).json<{ leafHash: string, proof: string[] }>()
  t.ok(verifyInclusion({ index: 3, size: to.size, leafHash: Buffer.from(inclusion.leafHash, 'base64'), proof: bytes(inclusion.proof), root: to.root }))
  const receipt = (await ask(`/receipts/${session.id}`)).json<object>()
  t.match(verifyReceipt(receipt, { vkeys: app.audit.vkeys }), { ok: true, entry: { type: 'session.end', reason: 'revoked', target: { id: session.id } } })
  t.equal((await ask(`/receipts/${'a'.repeat(24)}`)).statusCode, 404)
  const live = await app.tokenRegistry.issue({ sub: 'alice' })
  t.equal((await ask(`/receipts/${live.session.id}`)).statusCode, 404, 'of what has not ended there is none')

  for (const url of ['/proof/inclusion?index=0&size=1000', '/proof/inclusion?index=5&size=5', '/proof/inclusion?index=-1&size=5', '/proof/consistency?from=0&to=3', '/proof/consistency?from=3&to=2', '/proof/consistency?from=1&to=1000', '/proof/inclusion?index=0', '/proof/consistency?from=1.5&to=2']) {
    t.equal((await ask(url)).statusCode, 400, url)
  }
})

/** Reads server-sent events of the stream. */
async function listen (app: FastifyInstance, headers: Record<string, string>, query = ''): Promise<{ response: IncomingMessage, ids: number[], text: () => string, reach: (id: number) => Promise<void>, stop: () => void }> {
  const { port } = app.server.address() as AddressInfo
  const request = get({ port, path: `/audit/stream${query}`, headers, agent: false })
  const [response] = await once(request, 'response') as [IncomingMessage]
  const ids: number[] = []
  let text = ''
  let rest = ''
  response.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    rest += chunk
    const events = rest.split('\n\n')
    rest = events.pop() ?? ''
    for (const event of events) {
      const id = /^id: (\d+)$/m.exec(event)?.[1]
      if (id !== undefined) ids.push(Number(id))
    }
    response.emit('events')
  })
  response.on('error', () => {})
  const reach = async (id: number) => { while ((ids.at(-1) ?? -1) < id) await once(response, 'events') }
  return { response, ids, text: () => text, reach, stop: () => request.destroy() }
}

t.test('a stream gives entries as they come, each once and in order, also to who comes back', async t => {
  const { app, reader } = await served(t)
  await app.listen({ port: 0 })
  const { seq: last } = (await app.audit.entries({}, { limit: 1 })).entries[0] ?? { seq: 0 }
  const readers = await Promise.all(Array.from({ length: 50 }, async () => await listen(app, reader)))
  t.match(readers[0]?.response.headers, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  readers[0]?.response.pause()

  const COUNT = 1500
  const resumed: number[] = []
  for (let i = 0; i < COUNT; i += 50) {
    await Promise.all(Array.from({ length: 50 }, async () => await app.audit.record({ type: 'test', data: { line: 'a\nb\u2028c' } })))
    if (i >= 20 * 50) continue
    const after = resumed.at(-1) ?? last
    const { ids, reach, stop } = await listen(app, { ...reader, 'last-event-id': String(after) })
    await reach(after + 1)
    stop()
    resumed.push(...ids)
  }
  const expected = Array.from({ length: COUNT }, (_, i) => last + 1 + i)
  await Promise.all(readers.slice(1).map(async ({ reach }) => await reach(last + COUNT)))
  for (const { ids } of readers.slice(1)) t.same(ids, expected)
  readers[0]?.response.resume()
  await readers[0]?.reach(last + COUNT)
  t.same(readers[0]?.ids, expected, 'who stalled missed nothing')
  t.same(resumed, Array.from({ length: resumed.length }, (_, i) => last + 1 + i))
  for (const { stop } of readers) stop()

  t.equal((await app.inject({ url: '/audit/stream', headers: { ...reader, 'last-event-id': 'nonsense' } })).statusCode, 400)
})

t.test('a stream ends with the session that opened it, and with the server; it gives signs of life and what was asked for', async t => {
  const { app } = await served(t, { heartbeat: 30 })
  await app.listen({ port: 0 })
  const { token, session } = await app.tokenRegistry.issue({ sub: 'auditor', scope: ['audit:read'] })
  const headers = { authorization: `Bearer ${token}` }
  const { response, text, reach } = await listen(app, headers, '?type=wanted')
  await app.audit.record({ type: 'other' })
  await app.audit.record({ type: 'wanted' })
  const { seq } = (await app.audit.entries({ type: 'wanted' })).entries[0] ?? { seq: -1 }
  await reach(seq)
  t.notMatch(text(), /event: other/)
  while (!text().includes(': here')) await once(response, 'events')
  const ended = once(response, 'close')
  await app.tokenRegistry.revokeById(session.id)
  await ended

  const { token: next } = await app.tokenRegistry.issue({ sub: 'auditor', scope: ['audit:read'] })
  const { response: open } = await listen(app, { authorization: `Bearer ${next}` })
  const closed = once(open, 'close')
  await Promise.all([app.close(), closed])
})

t.test('a stream ends soon after a scope was taken from its session', async t => {
  const { app } = await served(t, { heartbeat: 30, allTenantsScope: 'audit:all' })
  await app.listen({ port: 0 })
  const { token, session: { id } } = await app.tokenRegistry.issue({ sub: 'auditor', scope: ['audit:read', 'audit:pii'] })
  const { response, text, reach } = await listen(app, { authorization: `Bearer ${token}` })
  await app.audit.record({ type: 'before' })
  const { seq } = (await app.audit.entries({ type: 'before' })).entries[0] ?? { seq: -1 }
  await reach(seq)
  const ended = once(response, 'close')
  await app.tokenRegistry.update(id, { scope: ['audit:read'] })
  await ended
  t.notMatch(text(), /event: after/)
})

t.test('a reader that takes nothing is cut off', async t => {
  const { app, reader } = await served(t, { heartbeat: 200 })
  await app.listen({ port: 0 })
  const cut = new Promise<number>(resolve => app.server.once('connection', socket => socket.once('close', () => resolve(socket.bytesWritten))))
  const { response, stop } = await listen(app, reader)
  response.pause()
  // More than the buffers of sockets hold.
  for (let i = 0; i < 30; i++) await Promise.all(Array.from({ length: 100 }, async () => await app.audit.record({ type: 'test', data: { line: 'x'.repeat(4000) } })))
  t.ok(await cut < 12_000_000, 'before all of it was written')
  stop()
})
