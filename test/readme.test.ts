import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { newSecret } from './support/build.ts'
import { childEnv } from './support/child-env.ts'
import { embeddedDataDir } from './support/embedded.ts'

// As a stranger runs it: built, from dist/, which `npm test` has made just before.

const readme = readFileSync('README.md', 'utf8')

/** The first block of a language after a heading, as printed. */
function block (language: string, heading: string): string {
  const [, rest = ''] = readme.split(`\n## ${heading}\n`)
  const [, code = ''] = new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, 's').exec(rest) ?? []
  if (code === '') throw new Error(`README.md has no ${language} under ${heading}`)
  return code
}

/** What a command prints, by the line. */
async function bash (script: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)('bash', ['-c', script], { env: childEnv })
  return stdout.trim().split('\n')
}

/** Starts a program, and what it starts, and waits for the line that says something. Both end with the test. */
async function start (t: Test, command: readonly string[], env: Record<string, string>, said: RegExp, input = ''): Promise<{ said: string, process: ChildProcess, exit: Promise<unknown[]> }> {
  const [file = '', ...args] = command
  const child = spawn(file, args, { env: { ...childEnv, ...env }, detached: true })
  const exit = once(child, 'exit')
  t.teardown(() => { if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL') })
  child.stdin.end(input)
  const lines: string[] = []
  createInterface(child.stderr).on('line', line => lines.push(line))
  for await (const line of createInterface(child.stdout)) {
    lines.push(line)
    const [, found] = said.exec(line) ?? []
    if (found === undefined) continue
    child.stdout.resume()
    return { said: found, process: child, exit }
  }
  throw new Error(`${command.join(' ')} said nothing of ${said}:\n${lines.join('\n')}`)
}

t.test('`npm start` comes up, and the walk through it works as printed', async t => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: { start: string } }
  const env = { PORT: '0', DATA_DIR: await embeddedDataDir(t) }
  const { said: address, process: server, exit } = await start(t, scripts.start.split(' '), env, /"address":"([^"]+)".*"listening"/)

  const walk = block('sh', 'A walk through the reference server')
  t.match(walk, 'http://127.0.0.1:3000')
  const lines = await bash(walk.replace('http://127.0.0.1:3000', address))
  const [registered, me, listed, onDevices, refused, named] = [...lines.slice(0, 4).map(line => JSON.parse(line)), ...lines.slice(4)]
  t.equal(lines.length, 6)
  t.match(registered, { user: { email: 'ada@example.org' } })
  t.match(me, { user: registered.user, session: { current: true } })
  t.match(listed.sessions, [{ id: me.session.id, current: true, device: { name: 'terminal' } }])
  t.match(onDevices.devices, [{ id: me.session.device.id, current: true, name: 'terminal' }])
  t.match(refused, /^HTTP\/1\.1 401 Unauthorized\r?$/)
  t.equal(named, 'x-request-id: 4bf92f3577b34da6a3ce929d0e0e4736')

  server.kill('SIGTERM')
  t.same(await exit, [0, null])
})

t.test('the server in a few lines signs in, and tells who is signed in', async t => {
  const server = block('js', 'In your server')
  const code = `${server.replace('{ port: 3000 }', '{ port: 0 }')}\nconsole.log(app.server.address().port)`
  const { said: port } = await start(t, [process.execPath, '--input-type=module'], { TOKEN_SECRET: newSecret() }, /^(\d+)$/, code)
  const [token = ''] = await bash(`curl -sf -X POST localhost:${port}/login`)
  t.match(token, /^trs_/)
  const [me = ''] = await bash(`curl -sf localhost:${port}/me -H 'authorization: Bearer ${token}'`)
  t.match(JSON.parse(me), { sub: 'ada', use: 'session' })
  t.same(await bash(`curl -s -o /dev/null -w '%{http_code}' localhost:${port}/me`), ['401'])
})

t.test('an example runs from a clone, and says what to try', async t => {
  const [, command = ''] = /`(npx tsx examples\/\S+)`/.exec(readme) ?? []
  const { said: curl } = await start(t, command.split(' '), { PORT: '0' }, /^(curl .*)$/)
  const [answer = ''] = await bash(`${curl} -sf`)
  t.match(JSON.parse(answer), { token: /^trs_/ })
})
