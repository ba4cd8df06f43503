import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { sourcePath } from '../../app/source-path.ts'
import { childEnv } from '../support/child-env.ts'
import { embeddedDataDir, temporaryDirectory } from '../support/embedded.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { password } from '../support/server.ts'
import { fromSources, post, start } from '../support/server-process.ts'

const storages: Record<string, (t: Test) => Promise<Record<string, string>>> = {
  'the embedded database': async t => ({ DATA_DIR: await embeddedDataDir(t) }),
  PostgreSQL: async t => ({ DATA_DIR: await embeddedDataDir(t), DATABASE_URL: await freshDatabase(t, { durable: true }) })
}

for (const [storage, make] of Object.entries(storages)) {
  t.test(`every acknowledged user is there after kill -9, on ${storage}`, async t => {
    const env = await make(t)
    const first = await start(t, env).listening
    const acknowledged: string[] = []
    // Registers people until it is killed in the middle of it.
    const registering = Array.from({ length: 8 }, async (_, lane) => {
      for (let i = 0; ; i++) {
        const email = `user-${lane}-${i}@example.org`
        const status = await post(first.address, '/api/auth/register', { email, password }).catch(() => null)
        if (status === null) return
        if (status === 201) acknowledged.push(email)
        if (acknowledged.length >= 40) first.process.kill('SIGKILL')
      }
    })
    await Promise.all(registering)
    await first.exit
    t.ok(acknowledged.length >= 40)

    const second = await start(t, env).listening
    for (const email of acknowledged) t.equal(await post(second.address, '/api/auth/register', { email, password }), 409, email)
    t.equal(await post(second.address, '/api/auth/login', { email: acknowledged[0], password }), 200)
  })
}

t.test('npm run migrate brings a database to the schema, once, and a server then finds nothing left to do', async t => {
  const migrate = async (env: Record<string, string>) => await promisify(execFile)(process.execPath, [...fromSources, sourcePath('app/database/migrate.ts')], { env: { ...childEnv, ...env } })
  const databaseUrl = await freshDatabase(t)
  const names = await readdir(sourcePath('app/database/migrations'))
  const places: Array<Record<string, string>> = [{ DATA_DIR: await embeddedDataDir(t) }, { DATA_DIR: await temporaryDirectory(t), DATABASE_URL: databaseUrl }]
  for (const env of places) {
    const { stdout } = await migrate(env)
    for (const name of names) t.match(stdout, name)
    t.strictSame(await migrate(env), { stdout: 'nothing to migrate\n', stderr: '' })
    const { address, lines } = await start(t, env).listening
    t.equal(await post(address, '/api/auth/register', { email: 'ada@example.org', password }), 201)
    t.notMatch(lines.join('\n'), 'the database was migrated')
  }
  const { rows } = await execute(databaseUrl, 'select name from schema_migrations')
  t.same(rows.map(({ name }) => name), names)

  const refused = await migrate({ DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/none' }).catch(error => error)
  t.match(refused, { code: 1, stderr: /^PostgreSQL at DATABASE_URL cannot be opened/ })
})
