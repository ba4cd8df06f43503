import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { inspect } from 'node:util'
import { PGlite } from '@electric-sql/pglite'
import t, { type Test } from 'tap'
import { sqlLedger, type SqlLedger, type SqlLedgerOptions } from '../../plugins/audit/ledgers/sql.ts'
import { assertHead, stepOf, type Draft } from '../../plugins/testing/ledger-contract/bench.ts'
import { childEnv } from '../support/child-env.ts'
import { deferred } from '../support/deferred.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { redisProxy } from '../support/redis-proxy.ts'
import { severable } from '../support/severable.ts'
import { ownTables, poolOf } from '../support/audit-ledgers.ts'

const unavailable = { code: 'FST_AUDIT_UNAVAILABLE', statusCode: 503, critical: true }
const terminate = 'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()'

// To boot it stops this process for seconds: whoever holds a log meanwhile is thrown out of it.
const embedded = await PGlite.create()

/** A ledger that waits long: machines that run tests may be slow. */
async function opened (t: Test, url: string, options: SqlLedgerOptions = {}): Promise<SqlLedger> {
  const ledger = sqlLedger(poolOf(t, url), { timeout: 30_000, ...options })
  await ledger.open()
  return ledger
}

async function add (ledger: SqlLedger, ...drafts: Draft[]): Promise<number[]> {
  const appended = await ledger.append(async ({ head }) => stepOf(head, drafts))
  return appended?.entries.map(({ seq }) => seq) ?? []
}

async function tenants (ledger: SqlLedger): Promise<string[]> {
  return (await ledger.entries(0, 1000)).map(({ tenant }) => tenant)
}

/** A plan that must not be asked. */
async function neverTurn (): Promise<null> {
  throw new RangeError('it is not its turn')
}

/** ms that something took */
async function timed (work: Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work
  return performance.now() - began
}

t.test('an instance that is paused while it holds the log is thrown out, and stores nothing when it wakes', async t => {
  const url = await freshDatabase(t)
  const options = { tables: 'audit', holdTimeout: 400, timeout: 10_000 }
  const ledger = await opened(t, url, options)
  const child = spawn(process.execPath, ['--conditions=@fastify-token-registry/source', '--import', 'tsx', 'test/support/audit-holder.ts', JSON.stringify({ url, ...options })], { env: childEnv, stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  t.equal((await lines.next()).value, 'holds')
  child.kill('SIGSTOP')
  const took = await timed(add(ledger, { tenant: 'first' }, { tenant: 'second' }))
  t.ok(took < 1400, `others go on within holdTimeout + 1 s: ${took} ms`)
  child.kill('SIGCONT')
  child.stdin.write('go on\n')
  t.equal((await lines.next()).value, 'FST_AUDIT_UNAVAILABLE')
  t.equal((await lines.next()).value, 'appended', 'its pool goes on')
  t.same((await exited)[0], 0)
  t.same(await tenants(ledger), ['first', 'second', 'resumed'])
  assertHead(await ledger.head(), 3)
})

t.test('a plan that takes longer than holdTimeout has lost the log', async t => {
  const url = await freshDatabase(t)
  const [slow, other] = [await opened(t, url, { holdTimeout: 50 }), await opened(t, url)]
  const [holds, others] = [deferred(), deferred()]
  const rejected = t.rejects(slow.append(async ({ head }) => {
    holds.resolve()
    await others.promise
    return stepOf(head, [{ tenant: 'slow' }])
  }), unavailable)
  await holds.promise
  await add(other, { tenant: 'other' })
  others.resolve()
  await rejected
  await add(slow, { tenant: 'again' })
  t.same(await tenants(slow), ['other', 'again'])
})

t.test('a plan that takes longer than timeout stores nothing, even when it ends', async t => {
  const url = await freshDatabase(t)
  const tables = ownTables()
  const all = {
    PostgreSQL: [await opened(t, url), sqlLedger(poolOf(t, url), { timeout: 1000 })],
    PGlite: [sqlLedger(embedded, { tables, timeout: 30_000 }), sqlLedger(embedded, { tables, timeout: 1000 })]
  } as const
  for (const [name, [patient, impatient]] of Object.entries(all)) {
    await patient.open()
    const [late, planned] = [deferred(), deferred()]
    await t.rejects(impatient.append(async ({ head }) => {
      await late.promise
      planned.resolve()
      return stepOf(head, [{ tenant: 'late' }])
    }), { ...unavailable, message: /1000 ms/ }, name)
    await add(patient, { tenant: 'other' })
    late.resolve()
    await planned.promise
    await add(patient, { tenant: 'another' })
    t.same(await tenants(patient), ['other', 'another'], name)
  }
})

t.test('what waited for a connection until its time ran out is never begun', async t => {
  const url = await freshDatabase(t)
  await (await opened(t, url)).close()
  const pool = poolOf(t, url, { max: 1 })
  const ledger = sqlLedger(pool, { timeout: 100 })
  const taken = await pool.connect()
  await t.rejects(ledger.append(neverTurn), unavailable)
  await t.rejects(ledger.head(), unavailable)
  taken.release()
  t.same(await add(sqlLedger(pool, { timeout: 30_000 }), {}), [0])

  const tables = ownTables()
  const patient = sqlLedger(embedded, { tables, timeout: 30_000 })
  await patient.open()
  const end = deferred()
  const held = embedded.transaction(async () => await end.promise)
  await t.rejects(sqlLedger(embedded, { tables, timeout: 100 }).append(neverTurn), unavailable)
  end.resolve()
  await held
  t.same(await add(patient, {}), [0])
})

t.test('who waits for the log longer than timeout is told', async t => {
  const url = await freshDatabase(t)
  const [holder, waiting] = [await opened(t, url, { holdTimeout: 30_000 }), sqlLedger(poolOf(t, url), { timeout: 150 })]
  const [holds, end] = [deferred(), deferred()]
  const held = holder.append(async ({ head }) => {
    holds.resolve()
    await end.promise
    return stepOf(head, [{}])
  })
  await holds.promise
  const took = await timed(t.rejects(waiting.append(neverTurn), unavailable))
  t.ok(took < 1150, `${took} ms`)
  assertHead(await holder.head(), 0)
  end.resolve()
  t.equal((await held)?.entries.length, 1)
  t.same(await add(holder, {}), [1])
})

t.test('where the database ends a connection in the middle, the call rejects and the pool goes on', async t => {
  const url = await freshDatabase(t)
  const ledger = await opened(t, url)
  await add(ledger, { tenant: 'before' })
  for (const reads of [false, true]) {
    const error = await ledger.append(async turn => {
      await execute(url, terminate)
      if (reads) await turn.entries(0, 1)
      return stepOf(turn.head, [{ tenant: 'secret tenant' }])
    }).then(() => t.fail('it was ended'), (error: unknown) => error)
    t.match(error, unavailable)
    t.match((error as Error).cause, Error)
    t.notMatch(inspect(error, { depth: 9, showHidden: true }), /secret tenant/)
  }
  await add(ledger, { tenant: 'after' })
  t.same(await tenants(ledger), ['before', 'after'])

  // In the middle of a statement: it waits for the log.
  const [holds, end] = [deferred(), deferred()]
  const held = ledger.append(async ({ head }) => {
    holds.resolve()
    await end.promise
    return stepOf(head, [{ tenant: 'held' }])
  })
  await holds.promise
  const waiting = t.rejects(ledger.append(neverTurn), unavailable)
  while ((await execute(url, `${terminate} and wait_event_type = 'Lock'`)).rowCount === 0) continue
  await waiting
  end.resolve()
  await held
  await add(ledger, { tenant: 'again' })
  t.same(await tenants(ledger), ['before', 'after', 'held', 'again'])
})

t.test('where the server is silent each call rejects in time, and its connection is not used again', async t => {
  const url = await freshDatabase(t)
  await opened(t, url)
  const way = await severable(t, url)
  const proxy = await redisProxy(t, Number(new URL(way.url).port))
  const silenced = new URL(way.url)
  silenced.port = String(proxy.port)
  const pool = poolOf(t, silenced.href, { max: 2, connectionTimeoutMillis: 700 })
  const ledger = sqlLedger(pool, { timeout: 800, holdTimeout: 200 })
  await add(ledger, { tenant: 'before' })

  const silent = async (call: () => Promise<unknown>): Promise<void> => {
    const took = await timed(t.rejects(call(), { ...unavailable, message: /800 ms/ }))
    t.ok(took < 1800, `${took} ms`)
  }
  const calls: Array<() => Promise<unknown>> = [
    () => ledger.append(async ({ head }) => stepOf(head, [{ tenant: 'silent' }])), () => ledger.head(), () => ledger.find({}, { limit: 1, order: 'newest' }), () => ledger.tiles([{ level: 0, index: 0 }]), () => ledger.addKeys([])
  ]
  for (const call of calls) {
    await ledger.head()
    proxy.halt()
    await silent(call)
  }
  t.equal(pool.totalCount, 0)

  proxy.haltNew(true)
  for (const call of calls) await t.rejects(call(), unavailable)
  proxy.haltNew(false)

  // In the middle of a step.
  await silent(async () => await ledger.append(async ({ head }) => {
    proxy.halt()
    return stepOf(head, [{ tenant: 'silent' }])
  }))
  await add(ledger, { tenant: 'after' })
  t.same(await tenants(ledger), ['before', 'after'])
})

t.test('where the server is not there each call says so', async t => {
  const way = await severable(t, await freshDatabase(t))
  const ledger = await opened(t, way.url)
  await way.cut()
  const calls: Array<() => Promise<unknown>> = [() => ledger.open(), () => ledger.head(), () => ledger.append(async () => null)]
  for (const call of calls) await t.rejects(call(), { ...unavailable, cause: Error })
  await way.mend()
  t.same(await add(ledger, {}), [0])
})

t.test('instances that start at once make the tables once', async t => {
  const url = await freshDatabase(t)
  const ledgers = Array.from({ length: 8 }, () => sqlLedger(poolOf(t, url, { max: 1 }), { timeout: 30_000 }))
  await Promise.all(ledgers.map(async ledger => await ledger.open()))
  await Promise.all(ledgers.map(async ledger => await add(ledger, {})))
  const [first] = ledgers
  assertHead(await (first ?? sqlLedger(poolOf(t, url))).head(), 8)
  t.equal((await execute(url, 'select from audit_head')).rowCount, 1)
  await t.rejects(execute(url, 'insert into audit_head (size, frontier, erasures) values (0, \'\', 0)'), { code: '23505' }, 'there is one head')
})

t.test('where the tables are there, a role needs no right to make them', async t => {
  const url = await freshDatabase(t)
  const role = new URL(url).pathname.slice(1)
  await execute(url, `create role ${role}_user login`)
  t.teardown(async () => {
    await execute(url, `drop owned by ${role}_user`)
    await execute(url, `drop role ${role}_user`)
  })
  await execute(url, 'revoke create on schema public from public')
  const own = new URL(url)
  own.username = `${role}_user`
  const ledger = sqlLedger(poolOf(t, own.href))
  await t.rejects(ledger.open(), { ...unavailable, cause: { code: '42501' } })
  await opened(t, url)
  await t.rejects(ledger.append(async () => null), { ...unavailable, cause: { code: '42501' } })
  await execute(url, `grant select, insert, update, delete on all tables in schema public to ${role}_user`)
  await ledger.open()
  t.same(await add(ledger, {}, {}), [0, 1])
  t.same(await ledger.addKeys([{ owner: 'a', finder: 'b', wrapped: 'c' }]), [{ owner: 'a', finder: 'b', wrapped: 'c' }])
})

t.test('tables of which some are missing are not taken for a log', async t => {
  const url = await freshDatabase(t)
  await opened(t, url)
  await execute(url, 'drop table audit_tiles')
  await t.rejects(opened(t, url), { code: 'FST_AUDIT_OPTIONS', message: /audit_tiles.*only 4/ })
})

t.test('a database that is not in UTF-8 is refused', async t => {
  const url = new URL(await freshDatabase(t))
  const name = `${url.pathname.slice(1)}_latin`
  await execute(url.href, `create database ${name} template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'`)
  t.teardown(async () => await execute(url.href, `drop database ${name} with (force)`))
  const latin = new URL(url)
  latin.pathname = name
  await t.rejects(opened(t, latin.href), { code: 'FST_AUDIT_OPTIONS', message: /LATIN1/ })
  t.equal((await execute(latin.href, 'select from pg_tables where schemaname = \'public\'')).rowCount, 0)
})

t.test('two logs in one database are two', async t => {
  const url = await freshDatabase(t)
  const [a, b] = [await opened(t, url, { tables: 'a' }), await opened(t, url, { tables: `_${'x'.repeat(30)}` })]
  await add(a, { tenant: 'a' })
  await add(b, { tenant: 'b' }, { tenant: 'b' })
  t.same([await tenants(a), await tenants(b)], [['a'], ['b', 'b']])
})

t.test('where transactions are serializable by default, steps at once go on', async t => {
  const url = await freshDatabase(t)
  await execute(url, `alter database ${new URL(url).pathname.slice(1)} set default_transaction_isolation = 'serializable'`)
  const ledgers = [await opened(t, url), await opened(t, url)]
  await Promise.all(ledgers.flatMap(ledger => Array.from({ length: 20 }, async () => await add(ledger, {}))))
  for (const ledger of ledgers) assertHead(await ledger.head(), 40)
})

t.test('a step that the database refuses is not stored at all, and what was in it is not told', async t => {
  const url = await freshDatabase(t)
  const ledger = await opened(t, url)
  await add(ledger, {}, {})
  const key = { owner: 'owner', finder: 'finder', wrapped: 'secret wrapped' }
  await ledger.addKeys([key])
  const refused = async (draft: Draft, back: number): Promise<unknown> => await ledger.append(async ({ head }) => {
    const step = stepOf({ ...head, size: head.size - back }, [draft], { destroyed: ['owner'], tiles: [{ level: 0, index: 0, hashes: new Uint8Array(32) }], pruned: 1 })
    return step
  }).then(() => t.fail('it is refused'), (error: unknown) => error)
  for (const [draft, back, code] of [[{ leaf: 'secret leaf' }, 1, '23505'], [{ leaf: 'secret leaf\0' }, 0, '22021']] as const) {
    const error = await refused(draft, back)
    t.match(error, { ...unavailable, cause: { code } })
    t.notMatch(inspect(error, { depth: 9, showHidden: true }), /secret/)
    assertHead(await ledger.head(), 2)
    t.equal((await ledger.entries(0, 10)).length, 2)
    t.same(await ledger.tiles([{ level: 0, index: 0 }]), [undefined])
    t.same(await ledger.keysByOwner(['owner']), [key])
  }
})

t.test('who makes keys while they are destroyed is told one for each finder', async t => {
  const url = await freshDatabase(t)
  const [maker, destroyer] = [await opened(t, url), await opened(t, url)]
  const destruction = { done: false }
  const making = [0, 1, 2].map(async instance => {
    for (let round = 0; !destruction.done; round++) {
      const told = await maker.addKeys(['a', 'b'].map(finder => ({ owner: `${finder} ${instance} ${round}`, finder, wrapped: '' })))
      if (told.map(({ finder }) => finder).join() !== 'a,b') return t.fail(`told ${told.length}`)
    }
  })
  for (let round = 0; round < 100; round++) {
    const owners = (await destroyer.keysAfter('', 10)).map(({ owner }) => owner)
    await destroyer.append(async ({ head }) => stepOf(head, [], { destroyed: owners }))
  }
  destruction.done = true
  await Promise.all(making)
})

t.test('keys whose owner stands for another are refused', async t => {
  const ledger = await opened(t, await freshDatabase(t))
  await ledger.addKeys([{ owner: 'owner', finder: 'one', wrapped: '' }])
  await t.rejects(ledger.addKeys([{ owner: 'owner', finder: 'another', wrapped: '' }]), unavailable)
  t.same(await ledger.keysByFinder(['another']), [])
})

t.test('what a query leaves undefined it does not ask for', async t => {
  const ledger = await opened(t, await freshDatabase(t))
  await add(ledger, { tenant: 'acme' })
  const query: Record<string, unknown> = { tenant: 'acme', type: undefined, person: undefined, since: undefined }
  t.equal((await ledger.find(query, { limit: 1, order: 'newest' })).length, 1)
})

t.test('options that cannot be are named', async t => {
  const pool = poolOf(t, 'postgresql://127.0.0.1:1/none')
  const wrong: Array<[unknown, RegExp]> = [
    [{ tables: 'Audit' }, /tables/], [{ tables: 'a; drop table users' }, /tables/], [{ tables: '' }, /tables/], [{ tables: 'a'.repeat(32) }, /tables/], [{ tables: '1a' }, /tables/], [{ tables: 'a\n' }, /tables/], [{ tables: 7 }, /tables/],
    [{ holdTimeout: 0 }, /holdTimeout is 0/], [{ holdTimeout: '2s' }, /holdTimeout/], [{ holdTimeout: 1.5 }, /holdTimeout/], [{ timeout: 0 }, /timeout/], [{ timeout: Infinity }, /timeout/], [{ prefix: 'a' }, /prefix is not an option/]
  ]
  for (const [options, message] of wrong) t.throws(() => sqlLedger(pool, options as SqlLedgerOptions), { code: 'FST_AUDIT_OPTIONS', message }, inspect(options))
  t.doesNotThrow(() => sqlLedger(pool))
})

t.test('a PGlite that was closed says so', async t => {
  const ledger = sqlLedger(embedded)
  await ledger.open()
  await embedded.close()
  await t.rejects(ledger.append(neverTurn), unavailable)
  await t.rejects(ledger.head(), unavailable)
})
