import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { childEnv } from '../support/child-env.ts'
import { freePort } from '../support/redis.ts'

// What `npm run dash` runs, built: `npm test` has made dist/ just before.

interface Dash {
  child: ChildProcessWithoutNullStreams
  exit: Promise<unknown[]>
  /** That it has written. */
  lines: string[]
  ports: Record<'PORT' | 'DASH_PORT' | 'PROMETHEUS_PORT' | 'REDIS_PORT', string>
}

/** Starts it, and waits until it says where to look. */
async function startDash (t: Test): Promise<Dash> {
  const [PORT = '', DASH_PORT = '', PROMETHEUS_PORT = '', REDIS_PORT = ''] = [await freePort(), await freePort(), await freePort(), await freePort()].map(String)
  const ports = { PORT, DASH_PORT, PROMETHEUS_PORT, REDIS_PORT }
  const child = spawn(process.execPath, ['--import', 'tsx', 'deploy/dash/dash.ts'], { env: { ...childEnv, ...ports }, detached: true })
  const exit = once(child, 'close')
  t.teardown(() => { if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL') })
  const lines: string[] = []
  createInterface(child.stderr).on('line', line => lines.push(line))
  for await (const line of createInterface(child.stdout)) {
    lines.push(line)
    if (line.startsWith('For an alert:')) break
  }
  child.stdout.resume()
  return { child, exit, lines, ports }
}

async function nobodyListens (t: Test, { ports: { PORT, DASH_PORT, PROMETHEUS_PORT } }: Dash): Promise<void> {
  for (const port of [PORT, DASH_PORT, PROMETHEUS_PORT]) await t.rejects(fetch(`http://127.0.0.1:${port}`), 'nobody listens any more')
}

t.test('npm run dash shows the server under load, and leaves nothing behind', async t => {
  const dash = await startDash(t)
  const { child, exit, lines, ports: { DASH_PORT, PROMETHEUS_PORT } } = dash
  t.match(lines.join('\n'), `dashboard   http://127.0.0.1:${DASH_PORT}`)

  const dashboard = `http://127.0.0.1:${DASH_PORT}`
  t.match(await (await fetch(dashboard)).text(), '<title>Token registry</title>')
  for (const name of ['uPlot.iife.min.js', 'uPlot.min.css']) t.ok((await fetch(`${dashboard}/${name}`)).ok)
  const { prometheus, rows } = await (await fetch(`${dashboard}/board`)).json() as { prometheus: string, rows: Array<{ panels: Array<{ targets: Array<{ expr: string }> }> }> } // page.ts says so
  t.equal(prometheus, `http://127.0.0.1:${PROMETHEUS_PORT}`)
  t.ok(rows.flatMap(({ panels }) => panels).every(({ targets }) => targets.length > 0 && targets.every(({ expr }) => !expr.includes('$'))))
  const answer = await fetch(`${prometheus}/api/v1/query?query=up`, { headers: { origin: dashboard } })
  t.ok(['*', dashboard].includes(answer.headers.get('access-control-allow-origin') ?? ''), 'the page may ask Prometheus')

  child.kill('SIGINT')
  t.same(await exit, [0, null])
  await nobodyListens(t, dash)
})

t.test('where the server dies, all of it ends and says so', async t => {
  const dash = await startDash(t)
  const { child: { pid }, exit, lines } = dash
  const [, server = ''] = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).split(' ')
  process.kill(Number(server), 'SIGKILL')
  t.same(await exit, [1, null])
  t.match(lines.at(-1), 'the server ended')
  await nobodyListens(t, dash)
})
