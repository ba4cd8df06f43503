import assert from 'node:assert/strict'
import { hostileStrings } from '../strings.ts'
import { assertStatus, type Rule } from './bench.ts'

const emptyThings = { empty: '', nothing: null, list: [], object: {}, nested: [[], {}, [[]], { a: [] }] }
const numbers = [0, -1, 0.1, 1e21, 5e-324, 1.7976931348623157e308, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 123456789012345]

/** Subjects that some way of joining their parts, or of comparing text, takes for one. */
const lookalikes: ReadonlyArray<readonly [tenant: string, sub: string]> = [
  ['a', 'bc'], ['ab', 'c'], ['', 'abc'], ['a', 'b'], ['', 'ab'], ['', 'a:b'], ['a:', 'b'], ['', '1:a1:b'], ['1:a', '1:b'], ['a', ':b'], ['a\n', 'b'],
  ['', 'A:b'], ['', 'a:b '], ['', ' a:b'], ['', 'a:*'], ['', '*'], ['', '?:b'], ['', '{a}b'], ['{a}', 'b'], ['{', 'a}b'], ['', '\u00e9'], ['', 'e\u0301'], ['', '\u212a'], ['', 'k'], ['', 'K']
]

export const recordRules: readonly Rule[] = [
  {
    name: 'a record comes back as it was stored, its times moved by the difference of the clocks',
    check: async bench => {
      const full = bench.record({
        tenant: 'acme',
        client: 'app',
        use: 'refresh',
        scope: ['read', 'write:all', 'openid'],
        idleTimeout: bench.has('touch') ? 60_000 : null,
        binding: '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I',
        // SessionMeta names what every service has; others add theirs by declaration merging.
        meta: { deviceId: 'phone', ipAddress: '2001:db8::1', userAgent: 'Mozilla/5.0 "\u{1f600}"', ...{ numbers, yes: true, no: false, ...emptyThings } },
        version: '3',
        kid: 255
      })
      const bare = bench.record({ kid: null, ttl: 365 * 86_400_000 })
      for (const record of [full, bare]) {
        const { inserted: [stored], refused, evicted } = await bench.store.insert([record], { op: record.op })
        assert.deepEqual({ refused, evicted }, { refused: [], evicted: [] })
        assert.ok(stored, 'it is inserted')
        const moved = stored.issuedAt - record.issuedAt
        const { issuedAt, expiresAt, lastUsedAt } = record
        assert.deepEqual(stored, { ...record, issuedAt: issuedAt + moved, expiresAt: expiresAt + moved, lastUsedAt: lastUsedAt + moved })
        assert.deepEqual(await bench.store.get(record.id), stored)
        assert.deepEqual(await bench.findAll({ tenant: record.tenant, sub: record.sub }), [stored])
      }
    }
  },
  {
    name: 'meta of 4 KiB and scopes by the hundred come back whole',
    check: async bench => {
      const deep = Array.from({ length: 14 }).reduce<object>(inner => ({ inner }), { end: true })
      const { id } = await bench.insert({
        meta: { deviceId: 'x'.repeat(256), userAgent: '\u20ac'.repeat(1200), ...deep },
        scope: Array.from({ length: 256 }, (_, index) => `scope:${index}`)
      })
      const session = await bench.store.get(id)
      assert.deepEqual(session?.meta, { deviceId: 'x'.repeat(256), userAgent: '\u20ac'.repeat(1200), ...deep })
      assert.equal(session?.scope[255], 'scope:255')
    }
  },
  {
    name: 'hostile text comes back byte for byte, wherever it stands, and finds only itself',
    check: async bench => {
      const sessions = []
      for (const text of hostileStrings) {
        const meta = { deviceId: text, ipAddress: text, userAgent: text, ...{ [`${text}!`]: [text, { [`${text}?`]: text }] } }
        const record = bench.record({ tenant: text, sub: text, client: text, meta, version: text })
        await bench.store.insert([record], { op: record.op })
        sessions.push(record)
      }
      assert.equal(await bench.store.count({}), hostileStrings.length)
      for (const { id, tenant, sub, client, meta, version } of sessions) {
        const session = await bench.store.get(id)
        assert.deepEqual({ ...session }, { ...session, id, tenant, sub, client, meta, version })
        for (const query of [{ tenant, sub }, { tenant }, { sub }, { client: sub }, { deviceId: sub }, { ipAddress: sub }]) {
          await bench.assertFinds(query, [{ id }])
        }
      }
    }
  },
  {
    name: 'subjects that look alike never meet',
    check: async bench => {
      const sessions = []
      for (const [tenant, sub] of lookalikes) {
        sessions.push(await bench.insert({ tenant, sub }, [{ name: 'one', max: 1, onExceed: 'refuse' }]))
      }
      for (const { id, tenant, sub } of sessions) await bench.assertFinds({ tenant, sub }, [{ id }])
      for (const [index, { tenant, sub }] of sessions.entries()) {
        assert.equal(await bench.store.endAll({ tenant, sub }, { reason: 'revoked', by: null, op: `lookalike ${index}` }), 1)
        assert.equal(await bench.store.count({}), sessions.length - index - 1)
      }
    }
  },
  {
    name: 'what is handed in and out is the caller\'s own',
    check: async bench => {
      const record = bench.record({ scope: ['read'], meta: { deviceId: 'phone', ...{ list: [1] } } })
      const untouched = structuredClone(record)
      const { inserted } = await bench.store.insert([record], { op: record.op })
      const found = await bench.findAll({ sub: record.sub })
      for (const session of [record, inserted[0], await bench.store.get(record.id), found[0]]) {
        assert.ok(session, 'it lives')
        Object.assign(session, { sub: 'mallory', generation: 7, expiresAt: Infinity })
        Object.assign(session.scope, ['admin'])
        Object.assign(session.meta, { deviceId: 'stolen', list: [2] })
      }
      const session = await bench.store.get(record.id)
      const { sub, generation, scope, meta } = untouched
      assert.ok(session && session.expiresAt < Infinity, 'its deadline stays')
      assert.deepEqual(session, { ...session, sub, generation, scope, meta })

      const rotated = await bench.rotate(record.id, 0)
      assertStatus(rotated, 'rotated')
      Object.assign(rotated.session.meta, { deviceId: 'stolen' })
      const cause = { reason: 'revoked', by: null, op: 'once' }
      for (let repeated = 0; repeated < 2; repeated++) {
        const [ended] = await bench.store.end([record.id], cause)
        assert.deepEqual(ended?.meta, meta)
        Object.assign(ended.meta, { deviceId: 'stolen' })
      }
    }
  },
  {
    name: 'a store has a name, a clock that runs, and answers to health',
    check: async bench => {
      const { store } = bench
      assert.match(store.name, /./)
      assert.ok(store.staleness >= 0, 'staleness is a number of ms')
      const before = store.now()
      await bench.advance(100)
      assert.ok(store.now() - before >= 99, 'time passes')
      const { status, latency } = await store.health()
      assert.equal(status, 'ok')
      assert.ok(latency >= 0, 'latency is a number of ms')
    }
  }
]
