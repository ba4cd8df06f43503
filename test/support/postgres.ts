import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chownSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import pg from 'pg'
import t, { type Test } from 'tap'
import { find, postgresql } from './services.ts'

interface Options {
  /** Sync every commit to disk, for tests of what outlives a crash. Slower. */
  readonly durable?: boolean
}

const clusters = new Map<boolean, Promise<Cluster>>()

/**
 * An empty database, dropped with the test.
 *
 * The first call of a test file starts a PostgreSQL of its own, unless TEST_DATABASE_URL names one.
 *
 * @returns its URL
 */
export async function freshDatabase (t: Test, { durable = false }: Options = {}): Promise<string> {
  const server = process.env['TEST_DATABASE_URL'] ?? (await clusterOf(durable)).url
  const name = `test_${randomBytes(8).toString('hex')}`
  await execute(server, `create database ${name}`)
  t.teardown(() => execute(server, `drop database ${name} with (force)`))
  const url = new URL(server)
  url.pathname = `/${name}`
  return url.href
}

/** Runs one statement on a connection of its own. */
export async function execute (url: string, statement: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000, query_timeout: 10_000 })
  await client.connect()
  try {
    return await client.query(statement)
  } finally {
    await client.end()
  }
}

interface Cluster {
  readonly url: string
  readonly process: ChildProcess
}

function clusterOf (durable: boolean): Promise<Cluster> {
  const cluster = clusters.get(durable) ?? start(durable)
  clusters.set(durable, cluster)
  return cluster
}

async function start (durable: boolean): Promise<Cluster> {
  const bin = find(postgresql)
  if (bin === null) throw new Error('PostgreSQL is not installed: "npm test" installs it, or set TEST_DATABASE_URL to the URL of one that runs')

  const directory = mkdtempSync(join(tmpdir(), 'postgres-'))
  const user = unprivileged()
  if (user !== null) chownSync(directory, user.uid, user.gid)
  const spawning = { ...user, cwd: directory, env: { PATH: process.env['PATH'], LC_ALL: 'C' } }
  execFileSync(join(bin, 'initdb'), ['-D', 'data', '-U', 'postgres', '--auth=trust', '--encoding=UTF8', '--no-sync'], { ...spawning, stdio: 'pipe' })

  // The shell ends the cluster when its input ends, and that ends with this process, however this process ends.
  const script = '"$@" 2>&3 & exec 3>&-; cat; kill -INT $!; wait; rm -rf "$PWD"'
  const settings = ['listen_addresses=', `unix_socket_directories=${directory}`, `fsync=${durable ? 'on' : 'off'}`]
  const child = spawn('sh', ['-c', script, 'sh', join(bin, 'postgres'), '-D', 'data', ...settings.flatMap(setting => ['-c', setting])], {
    ...spawning,
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore', 'pipe']
  })
  await ready(child)
  return { url: `postgresql://postgres@localhost/postgres?host=${directory}`, process: child }
}

async function ready ({ stdio: [,,, log] }: ChildProcess): Promise<void> {
  if (!(log instanceof Readable)) throw new TypeError('the log of PostgreSQL is not piped')
  const lines: string[] = []
  for await (const line of createInterface(log)) {
    lines.push(line)
    if (!line.includes('ready to accept connections')) continue
    log.resume()
    return
  }
  throw new Error(`PostgreSQL did not start:\n${lines.join('\n')}`)
}

/** PostgreSQL does not run as root: who it runs as instead. */
function unprivileged (): { uid: number, gid: number } | null {
  if (process.getuid?.() !== 0) return null
  const id = (flag: string, user: string): number => Number(execFileSync('id', [flag, user], { encoding: 'utf8', stdio: 'pipe' }))
  try {
    return { uid: id('-u', 'postgres'), gid: id('-g', 'postgres') }
  } catch {
    return { uid: id('-u', 'nobody'), gid: id('-g', 'nobody') }
  }
}

t.teardown(async () => {
  for (const cluster of clusters.values()) {
    const { process } = await cluster
    process.stdin?.end()
    await once(process, 'exit')
  }
})
