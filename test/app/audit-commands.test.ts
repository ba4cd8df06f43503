import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { sourcePath } from '../../app/source-path.ts'
import { vkeyOf } from '../../plugins/audit/verify/index.ts'
import { childEnv } from '../support/child-env.ts'
import { temporaryDirectory } from '../support/embedded.ts'
import { execute, freshDatabase } from '../support/postgres.ts'
import { register, signIn, testServer } from '../support/server.ts'

const fromSources = ['--import', 'tsx', '--conditions=@fastify-token-registry/source']

/** Runs a command as `npm run audit:…` does, but from the sources. */
async function run (command: 'export' | 'verify', args: readonly string[] = [], env: Record<string, string> = {}): Promise<{ code: unknown, stdout: string, stderr: string }> {
  return await new Promise(resolve => execFile(process.execPath, [...fromSources, sourcePath(`app/audit/${command}.ts`), ...args], { env: { ...childEnv, ...env }, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr })))
}

t.test('the log is checked where it lies, and as it was exported; what was done to it is named', async t => {
  const elsewhere = await temporaryDirectory(t)
  const [DATABASE_URL, anchor, exported] = [await freshDatabase(t), join(elsewhere, 'anchor'), join(elsewhere, 'log.ndjson')]
  const { app, dataDir: DATA_DIR } = await testServer(t, { DATABASE_URL, AUDIT_ANCHOR_FILE: anchor })
  const env = { DATABASE_URL, DATA_DIR }
  await register(app, 'ada@example.org')
  await signIn(app, 'ada@example.org')
  const [vkey = ''] = app.audit.vkeys
  await app.close()

  t.match(await run('verify', [], env), { code: 0, stdout: /^whole: \d+ entries, [1-9]\d* checkpoints\nroot \S{44}; signed up to entry \d+ by fastify-token-registry\/audit\+.*\nNo checkpoint was kept elsewhere/, stderr: '' })
  const role = `auditor_${process.pid}`
  await execute(DATABASE_URL, `create role ${role} login; grant select on audit_head, audit_entries, audit_tiles, audit_checkpoints to ${role}`)
  t.teardown(async () => await execute(DATABASE_URL, `drop owned by ${role}; drop role ${role}`))
  const asAuditor = Object.assign(new URL(DATABASE_URL), { username: role }).href
  t.match(await run('verify', [], { ...env, DATABASE_URL: asAuditor, AUDIT_ANCHOR_FILE: anchor }), { code: 0, stdout: /^whole: .*\nroot .*\n$/, stderr: '' })
  const { code, stdout } = await run('export', [], env)
  t.equal(code, 0)
  t.notMatch(stdout, /ada@|127\.0\.0\.1/)
  await writeFile(exported, stdout)
  t.match(await run('verify', [exported, '--vkey', vkey, '--outside', anchor]), { code: 0, stdout: /^whole/ }, 'without any configuration')
  t.match(await run('verify', [exported, '--since', '2'], env), { code: 0, stdout: /^whole/ }, 'with the keys of the configuration')

  const lines = stdout.trimEnd().split('\n')
  const cut = lines.findLastIndex(line => line.startsWith('{"actor"'))
  await writeFile(exported, lines.slice(0, cut).filter(line => !line.startsWith('{"checkpoint"') && !line.startsWith('{"hashes"')).join('\n'))
  t.match(await run('verify', [exported, '--vkey', vkey]), { code: 2, stdout: '', stderr: /^unsigned: / }, 'what nobody signed is not whole')
  t.match(await run('verify', [exported, '--vkey', vkey, '--outside', anchor]), { code: 1, stderr: /^truncated: / }, 'shows against what was kept elsewhere')

  await execute(DATABASE_URL, 'update audit_entries set leaf = replace(leaf, \'server.start\', \'server.stArt\') where seq = 1')
  t.match(await run('verify', [], env), { code: 1, stdout: '', stderr: /^edited: entry 1 / })
})

t.test('what cannot be checked is neither whole nor altered', async t => {
  const nowhere = join(await temporaryDirectory(t), 'nowhere')
  const vkey = vkeyOf('log', generateKeyPairSync('ed25519').privateKey)
  const cases: Array<[Promise<Awaited<ReturnType<typeof run>>>, object]> = [
    [run('verify', ['--help']), { code: 0, stdout: /--outside/ }],
    [run('verify', ['--frob']), { code: 2, stderr: /--frob/ }],
    [run('verify', ['--since', 'x'], { DATA_DIR: nowhere }), { code: 2, stderr: /--since is x/ }],
    [run('verify', [], { DATA_DIR: nowhere }), { code: 2, stderr: /set TOKEN_SECRET or DATA_DIR/ }],
    [run('verify', ['--vkey', vkey], { DATA_DIR: nowhere }), { code: 2, stderr: /There is no database in .*nowhere: set DATA_DIR or DATABASE_URL/ }],
    [run('verify', [nowhere, '--vkey', vkey]), { code: 2, stderr: /ENOENT/ }],
    [run('verify', ['README.md', '--vkey', 'log+12345678+AQ==']), { code: 2, stderr: /trusted key/ }],
    [run('verify', ['README.md', '--vkey', vkey, '--outside', 'README.md']), { code: 2, stderr: /README.md holds no checkpoint/ }],
    [run('verify', ['README.md', '--vkey', vkey]), { code: 1, stderr: /^unreadable: / }],
    [run('verify', [], { PORT: 'x' }), { code: 2, stderr: /PORT is "x"/ }],
    [run('export', [], { DATA_DIR: nowhere }), { code: 1, stdout: '', stderr: /There is no database/ }]
  ]
  for (const [given, expected] of cases) t.match(await given, expected)
  t.notOk(existsSync(nowhere), 'and nothing was made')
})
