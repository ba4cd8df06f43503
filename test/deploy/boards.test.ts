import { execFile } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { readBoard, rowsOf } from '../../deploy/dash/board.ts'
import { childEnv } from '../support/child-env.ts'
import { find, prometheus } from '../support/services.ts'

const alertsFile = readFileSync('deploy/prometheus/alerts.yml', 'utf8')
const named = [...alertsFile.matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name)

async function promtool (...args: string[]): Promise<string> {
  const bin = find(prometheus)
  if (bin === null) throw new Error('Prometheus is not installed: "npm test" installs it')
  const { stdout } = await promisify(execFile)(join(bin, 'promtool'), args, { env: childEnv, cwd: 'deploy/prometheus' })
  return stdout
}

t.test('the dashboard is one that Grafana can import', async t => {
  const board = readBoard()
  t.same(rowsOf(board).map(({ title }) => title), ['Overview', 'Sessions', 'Security', 'Store', 'Audit'])
  t.same(board.templating.list.map(({ name }) => name), ['datasource', 'instance', 'tenant'])
  t.equal(new Set(board.panels.map(({ id }) => id)).size, board.panels.length, 'no id twice')
  const panels = rowsOf(board).flatMap(({ panels }) => panels)
  t.ok(panels.length >= 30)
  for (const { title, description = '', targets = [] } of panels) {
    t.ok(description, `${title} says what it shows`)
    t.ok(targets.length > 0, `${title} asks something`)
    t.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length)
    for (const { expr } of targets) t.match(expr, 'instance=~"$instance"', `${title} is of the instances that are chosen`)
  }
  const tenants = panels.filter(({ targets = [] }) => targets.some(({ expr }) => expr.includes('tenant=~"$tenant"')))
  t.ok(tenants.length >= 5, 'what is counted by tenant follows the choice of one')
})

t.test('panels stand beside one another, none upon another', async t => {
  const taken = new Set<string>()
  for (const { title, gridPos: { x, y, w, h } } of readBoard().panels) {
    t.ok(x + w <= 24)
    for (let column = x; column < x + w; column++) {
      for (let line = y; line < y + h; line++) {
        if (taken.has(`${column} ${line}`)) t.fail(`${title} stands upon another`)
        taken.add(`${column} ${line}`)
      }
    }
  }
})

t.test('promtool finds the rules well-formed, and each alert fires in a test and is quiet in one', async t => {
  t.match(await promtool('check', 'rules', 'alerts.yml'), `${named.length} rules found`)
  t.match(await promtool('test', 'rules', 'alerts.test.yml'), 'SUCCESS')
  const tried = readFileSync('deploy/prometheus/alerts.test.yml', 'utf8').split('- name: ').slice(1)
  for (const name of named) {
    const [fires, quiet] = [new RegExp(`alertname: ${name}\\n\\s+eval_time: \\S+\\n\\s+exp_alerts:`), `{ alertname: ${name}, eval_time:`]
    t.ok(tried.some(test => fires.test(test)), `${name} fires`)
    t.ok(tried.some(test => test.includes(quiet)), `${name} is quiet`)
  }
})

t.test('each alert has a runbook, and each runbook is for an alert', t => {
  const linked = [...alertsFile.matchAll(/runbook_url: (\S+)/g)].map(([, url = '']) => url)
  t.equal(linked.length, named.length)
  const { homepage } = JSON.parse(readFileSync('package.json', 'utf8')) as { homepage: string }
  for (const url of linked) {
    t.ok(url.startsWith(`${homepage.replace(/#.*/, '')}/blob/main/docs/runbooks/`))
    t.ok(existsSync(new URL(url).pathname.replace(/.*\/blob\/main\//, '')), `${url} is there`)
  }
  const texts = new Map(readdirSync('docs/runbooks').filter(name => name !== 'README.md').map(name => [name, readFileSync(join('docs/runbooks', name), 'utf8')]))
  for (const [name, text] of texts) t.ok(linked.some(url => url.endsWith(`/${name}`)) && named.some(alert => text.includes(alert)), `${name} names its alert`)
  for (const name of named) t.ok([...texts.values()].some(text => text.includes(name)), `${name} is spoken of`)
  const index = readFileSync('docs/runbooks/README.md', 'utf8')
  for (const name of named) t.match(index, name)
  t.end()
})
