import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import { inspect } from 'node:util'
import { DrizzleQueryError, sql } from 'drizzle-orm'
import { getTableConfig } from 'drizzle-orm/pg-core'
import t, { type Test } from 'tap'
import { openDatabase, type Database } from '../../app/database/database.ts'
import { lock } from '../../app/database/lock.ts'
import { openPostgresql } from '../../app/database/postgresql.ts'
import { users as usersTable } from '../../app/database/schema.ts'
import { createUsers, scopesOf } from '../../app/users/users.ts'
import { childEnv } from '../support/child-env.ts'
import { embeddedDataDir, silent, temporaryDirectory } from '../support/embedded.ts'
import { execute, freshDatabase } from '../support/postgres.ts'

type Where = Parameters<typeof openDatabase>[0]

const somewhere: Record<Database['kind'], (t: Test) => Promise<Where>> = {
  pglite: async t => ({ databaseUrl: null, dataDir: await embeddedDataDir(t) }),
  postgresql: async t => ({ databaseUrl: await freshDatabase(t), dataDir: '/nowhere' })
}

async function open (t: Test, where: Where): Promise<Database> {
  const database = await openDatabase(where, silent)
  t.teardown(() => database.close())
  return database
}

const nobody = '00000000-0000-4000-8000-000000000000'
const passwordHash = '$argon2id$not-to-be-seen'

for (const [kind, where] of Object.entries(somewhere)) {
  t.test(kind, async t => {
    const database = await open(t, await where(t))
    const users = createUsers(database)
    t.equal(database.kind, kind)

    t.test('the migrations make what the schema declares, and name it by the rules', async t => {
      const columns = await rows(database, sql`
        select column_name as name, format_type(atttypid, atttypmod) as type, attnotnull as required
        from information_schema.columns join pg_attribute on attrelid = table_name::regclass and attname = column_name
        where table_schema = 'public' and table_name = 'users' order by name`)
      const declared = getTableConfig(usersTable).columns.map(column => ({ name: column.name, type: column.getSQLType(), required: column.notNull }))
      t.same(columns, declared.sort((a, b) => a.name < b.name ? -1 : 1))

      const names = await rows(database, sql`
        select relname as table, conname as name from pg_constraint join pg_class on pg_class.oid = conrelid where connamespace = 'public'::regnamespace and contype <> 'n'
        union select tablename, indexname from pg_indexes where schemaname = 'public'`)
      for (const { table, name } of names) t.match(name, new RegExp(`^(pk_${table}|idx_${table}_|fk_${table}_)`))
    })

    t.test('100 people register one address, however they write it: one gets it', async t => {
      const spellings = ['kim@example.org', ' KIM@Example.ORG', '\u212Aim@example.org']
      const all = await Promise.allSettled(Array.from({ length: 100 }, (_, i) => users.create({ email: spellings[i % 3] ?? '', passwordHash })))
      t.equal(all.filter(result => result.status === 'fulfilled').length, 1)
      t.equal(all.filter(result => result.status === 'rejected' && result.reason.code === 'APP_USER_EMAIL_TAKEN' && result.reason.statusCode === 409).length, 99)
    })

    t.test('a user is found by id and by any spelling of the address, which stays as it was given', async t => {
      const user = await users.create({ email: 'Ana@Example.org', name: 'Ana', passwordHash })
      t.match(user, { email: 'Ana@Example.org', name: 'Ana', roles: [], disabledAt: null, createdAt: Date, updatedAt: Date })
      t.notMatch(JSON.stringify(user), 'argon2', 'no password hash leaves with a user')
      t.same(await users.findById(user.id), user)
      t.same(await users.findByEmail('ANA@example.org '), user)
      t.same(await users.credentials({ email: 'ana@example.org' }), { user, passwordHash })
      t.same(await users.credentials({ id: user.id }), { user, passwordHash })
    })

    t.test('who is not there is null', async t => {
      t.equal(await users.findById(nobody), null)
      t.equal(await users.findByEmail('nobody@example.org'), null)
      t.equal(await users.credentials({ email: 'nobody@example.org' }), null)
      t.equal(await users.setPasswordHash(nobody, 'new'), false)
      t.equal(await users.disable(nobody), null)
    })

    t.test('re-hashing at a sign-in does not undo a change of the password', async t => {
      const { id } = await users.create({ email: 'ben@example.org', passwordHash: 'old' })
      t.equal(await users.setPasswordHash(id, 'changed'), true)
      t.equal(await users.setPasswordHash(id, 'old, hashed anew', 'old'), false)
      t.match(await users.credentials({ id }), { passwordHash: 'changed' })
      t.equal(await users.setPasswordHash(id, 'changed, hashed anew', 'changed'), true)
      t.match(await users.credentials({ id }), { passwordHash: 'changed, hashed anew' })
    })

    t.test('a disabled user stays so since the first time, until enabled', async t => {
      const { id } = await users.create({ email: 'cy@example.org', passwordHash })
      const disabled = await users.disable(id)
      t.type(disabled?.disabledAt, Date)
      t.same((await users.disable(id))?.disabledAt, disabled?.disabledAt)
      t.equal((await users.enable(id))?.disabledAt, null)
    })

    t.test('of servers that start together one makes the administrator, who keeps a password of their own', async t => {
      const given = { email: 'Root@example.org', passwordHash: 'first' }
      const made = await Promise.all(Array.from({ length: 20 }, () => users.ensureAdministrator(given)))
      t.equal(made.filter(Boolean).length, 1)
      t.equal(await users.ensureAdministrator({ email: 'root@example.org', passwordHash: 'second' }), null)
      const found = await users.credentials({ email: 'root@example.org' })
      t.match(found, { passwordHash: 'first', user: { roles: ['administrator'] } })
      t.same(found && scopesOf(found.user), ['sessions:admin', 'users:admin', 'audit:read'])
      t.same(scopesOf({ roles: ['auditor', 'unknown'] }), ['audit:read', 'audit:pii'])
      t.same(scopesOf({ roles: ['auditor', 'administrator'] }), ['audit:read', 'audit:pii', 'sessions:admin', 'users:admin'])
    })

    t.test('who registers the address of the administrator first does not become one', async t => {
      const { id } = await users.create({ email: 'boss@example.org', passwordHash })
      await t.rejects(users.ensureAdministrator({ email: 'boss@example.org', passwordHash: 'other' }), { code: 'APP_USER_ADMINISTRATOR_TAKEN', message: /ADMIN_EMAIL/ })
      t.same(scopesOf(await users.findById(id) ?? { roles: ['?'] }), [])
    })

    t.test('input that cannot be stored is a 400, and no error holds what was sent', async t => {
      const refused = async (work: Promise<unknown>, expected: object): Promise<void> => {
        const error = await work.then(() => null, error => error)
        t.match(error, expected)
        t.notMatch(inspect(error, { depth: 20, showHidden: true }), /not-to-be-seen|secret@/)
      }
      await refused(users.create({ email: 'secret@example.org\0', passwordHash }), { code: 'APP_DATABASE_FAILED', cause: { code: '22021' } })
      await refused(users.findById('secret@example.org'), { code: 'APP_DATABASE_FAILED', cause: { code: '22P02' } })
      const broken = database.query(db => db.execute(sql`insert into users (email, password_hash) values ('secret@example.org', ${passwordHash})`))
      await refused(broken, { code: 'APP_DATABASE_FAILED', statusCode: 500, cause: { code: '23502' } })
      await t.rejects(database.query(async () => { throw new RangeError('of the caller') }), new RangeError('of the caller'))
    })

    t.test('closed, it is down and says to retry', async t => {
      t.equal(await database.isUp(), true)
      await Promise.all([database.close(), database.close()])
      t.equal(await database.isUp(), false)
      await t.rejects(users.findById(nobody), { code: 'APP_DATABASE_UNAVAILABLE', statusCode: 503, headers: { 'retry-after': '5' } })
      const broken = new DrizzleQueryError('', [], Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))
      await t.rejects(database.query(async () => { throw broken }), { code: 'APP_DATABASE_UNAVAILABLE' })
    })
  })
}

t.test('a process that is killed keeps what it acknowledged, and its lock until then', async t => {
  const where = await somewhere.pglite(t)
  const child = registering(where)
  t.teardown(() => child.kill('SIGKILL'))
  const acknowledged: string[] = []
  for await (const id of createInterface(child.stdout)) {
    acknowledged.push(id)
    if (acknowledged.length === 10) {
      await t.rejects(openDatabase(where, silent), { code: 'APP_DATABASE_START', message: new RegExp(`process ${child.pid}:.*DATABASE_URL`) })
    }
    if (acknowledged.length === 200) child.kill('SIGKILL')
  }

  const killed = performance.now()
  const database = await open(t, where)
  t.comment(`${acknowledged.length} acknowledged, open again after ${Math.round(performance.now() - killed)} ms`)
  const kept = await rows(database, sql`select id from users`)
  t.ok(acknowledged.length >= 200)
  t.strictSame(acknowledged.filter(id => !kept.some(user => user.id === id)), [])
  t.equal(readdirSync(join(where.dataDir, 'db.lock')).length, 1, 'nothing is left of the lock of the dead')
})

t.test('of those who want a lock at once at most one gets it, and it can be taken again', async t => {
  const directory = join(await temporaryDirectory(t), 'lock')
  const all = await Promise.allSettled(Array.from({ length: 8 }, () => lock(directory)))
  const held = all.filter(result => result.status === 'fulfilled')
  t.ok(held.length <= 1)
  for (const { value: release } of held) await release()

  const release = await lock(directory)
  await t.rejects(lock(directory), { code: 'APP_DATABASE_START' })
  await release()
  await (await lock(directory))()
})

t.test('a DATA_DIR whose socket would be cut short is refused', async t => {
  const dataDir = join(await temporaryDirectory(t), 'x'.repeat(100))
  await t.rejects(openDatabase({ databaseUrl: null, dataDir }, silent), { code: 'APP_DATABASE_START', message: /DATA_DIR to a shorter path/ })
})

t.test('a broken embedded database is not taken for none, and its lock is given back', async t => {
  const dataDir = await temporaryDirectory(t)
  mkdirSync(join(dataDir, 'db'))
  writeFileSync(join(dataDir, 'db', 'PG_VERSION'), 'x')
  for (let i = 0; i < 2; i++) {
    await t.rejects(openDatabase({ databaseUrl: null, dataDir }, silent), { code: 'APP_DATABASE_START', message: /cannot be opened/ })
  }
})

t.test('servers that start together migrate once', async t => {
  const where = await somewhere.postgresql(t)
  const all = await Promise.all(Array.from({ length: 5 }, () => open(t, where)))
  t.strictSame(all.flatMap(database => database.migrations), readdirSync('app/database/migrations'))
  t.strictSame((await open(t, where)).migrations, [])
})

t.test('where nothing is left to migrate, a role without rights to create is enough', async t => {
  const owner = String((await somewhere.postgresql(t)).databaseUrl)
  await (await open(t, { databaseUrl: owner, dataDir: '/nowhere' })).close()
  const role = `server_${process.pid}`
  await execute(owner, `create role ${role} login password 'p'; revoke create on schema public from public; grant select, insert, update on all tables in schema public to ${role}`)
  t.teardown(() => execute(owner, `drop owned by ${role}; drop role ${role}`))

  const databaseUrl = Object.assign(new URL(owner), { username: role, password: 'p' }).href
  const database = await open(t, { databaseUrl, dataDir: '/nowhere' })
  t.ok(await createUsers(database).create({ email: 'a@example.org', passwordHash }))
})

t.test('connections that the server ends fail what runs on them, not the process', async t => {
  const where = await somewhere.postgresql(t)
  const database = await open(t, where)
  const endAll = (): Promise<unknown> => execute(String(where.databaseUrl), 'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()')

  await endAll()
  await until(async () => await database.isUp())

  const running = database.query(db => db.execute(sql`select pg_sleep(60)`))
  await until(async () => (await execute(String(where.databaseUrl), "select from pg_stat_activity where query like '%pg_sleep(60)' and state = 'active'")).rowCount === 1)
  await Promise.all([t.rejects(running, { code: 'APP_DATABASE_UNAVAILABLE', statusCode: 503 }), endAll()])

  const idle = database.query(db => db.transaction(async tx => {
    await tx.execute(sql`select 1`)
    await endAll()
    await tx.execute(sql`select 1`)
  }))
  await t.rejects(idle, { code: 'APP_DATABASE_UNAVAILABLE' })
  await until(async () => await database.isUp())
})

t.test('a statement that takes too long is ended, and the client told to retry', async t => {
  const url = new URL(await freshDatabase(t))
  url.searchParams.set('statement_timeout', '50')
  const database = await open(t, { databaseUrl: url.href, dataDir: '/nowhere' })
  await t.rejects(database.query(db => db.execute(sql`select pg_sleep(60)`)), { code: 'APP_DATABASE_UNAVAILABLE', cause: { code: '57014' } })
})

t.test('a server that accepts connections and says nothing is given up', async t => {
  const server = createServer()
  t.teardown(() => server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { db, close } = openPostgresql(urlOf(server), { connections: 1, connectTimeout: 100, statementTimeout: 100 }, silent)
  t.teardown(close)
  await t.rejects(db.execute(sql`select 1`), { cause: { message: /timeout/ } })
})

t.test('where PostgreSQL is not, the start says which variable and no password', async t => {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const databaseUrl = urlOf(server)
  server.close()
  const error = await openDatabase({ databaseUrl, dataDir: '/nowhere' }, silent).catch(error => error)
  t.match(error, { code: 'APP_DATABASE_START', message: /DATABASE_URL cannot be opened: .*ECONNREFUSED/ })
  t.notMatch(inspect(error, { depth: 20 }), 'hidden')
})

/** A process that registers users until it is killed, and writes the id of each that it was told of. */
function registering (where: Where): ChildProcessByStdio<null, Readable, null> {
  const script = `
    const { openDatabase } = await import(${JSON.stringify(import.meta.resolve('../../app/database/database.ts'))})
    const { createUsers } = await import(${JSON.stringify(import.meta.resolve('../../app/users/users.ts'))})
    const users = createUsers(await openDatabase(${JSON.stringify(where)}, { info () {}, warn () {} }))
    for (let i = 0; ; i++) process.stdout.write((await users.create({ email: i + '@example.org', passwordHash: '' })).id + '\\n')`
  return spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { env: childEnv, stdio: ['ignore', 'pipe', 'inherit'] })
}

function urlOf (server: Server): string {
  const address = server.address()
  return `postgresql://someone:hidden@127.0.0.1:${typeof address === 'object' ? address?.port : address}/x`
}

async function until (holds: () => Promise<boolean>): Promise<void> {
  while (!await holds()) await setImmediate()
}

async function rows (database: Database, query: ReturnType<typeof sql>): Promise<Array<Record<string, unknown>>> {
  const result = await database.query(db => db.execute(query))
  return Reflect.get(Object(result), 'rows')
}
