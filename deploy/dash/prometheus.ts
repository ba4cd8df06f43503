import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'

export interface PrometheusOptions {
  program: string
  /** An empty one, for its configuration and its data. */
  folder: string
  port: number
  /** Address of the server that is scraped. */
  target: string
  /** The token of operators. */
  token: string
}

export interface Prometheus {
  process: ChildProcess
  address: string
}

/**
 * Starts Prometheus with the configuration and the alerts of deploy/, and waits until it answers.
 *
 * @throws {Error} where it ends instead, or does not answer within 30 s
 */
export async function startPrometheus ({ program, folder, port, target, token }: PrometheusOptions): Promise<Prometheus> {
  for (const name of ['prometheus.yml', 'alerts.yml']) await copyFile(new URL(`../prometheus/${name}`, import.meta.url), join(folder, name))
  await writeFile(join(folder, 'targets.yml'), JSON.stringify([{ targets: [new URL(target).host] }])) // JSON is YAML
  await writeFile(join(folder, 'metrics-token.key'), token, { mode: 0o600 })

  const listen = `127.0.0.1:${port}`
  const process = spawn(program, [`--config.file=${join(folder, 'prometheus.yml')}`, `--storage.tsdb.path=${join(folder, 'data')}`, `--web.listen-address=${listen}`, '--log.level=warn'], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  process.stderr.setEncoding('utf8').on('data', text => { said += text })
  const ended = once(process, 'exit').then(() => { throw new Error(`Prometheus ended:\n${said}`) })
  ended.catch(() => {}) // where it is not awaited any more
  const address = `http://${listen}`
  const over = new AbortController()
  try {
    await Promise.race([ended, answers(`${address}/-/ready`, AbortSignal.any([over.signal, AbortSignal.timeout(30_000)]))])
    return { process, address }
  } catch (error) {
    process.kill('SIGKILL')
    throw error
  } finally {
    over.abort()
  }
}

async function answers (url: string, signal: AbortSignal): Promise<void> {
  while (!await fetch(url, { signal: AbortSignal.timeout(1000) }).then(({ ok }) => ok, () => false)) {
    if (signal.aborted) throw new Error(`${url} does not answer`)
    await after(100)
  }
}

export interface Sample {
  metric: Record<string, string>
  /** A number in text, `NaN` or `+Inf` */
  value: string
}

/** What a query finds now. */
export async function query ({ address }: Prometheus, expr: string): Promise<Sample[]> {
  const response = await fetch(`${address}/api/v1/query?${new URLSearchParams({ query: expr })}`, { signal: AbortSignal.timeout(10_000) })
  const { status, error, data } = await response.json() as { status: string, error?: string, data: { result: Array<{ metric: Record<string, string>, value: [number, string] }> } } // its HTTP API
  if (status !== 'success') throw new Error(`${expr}: ${error}`)
  return data.result.map(({ metric, value: [, value] }) => ({ metric, value }))
}

export interface Alert {
  labels: Record<string, string>
  annotations: Record<string, string>
  state: 'pending' | 'firing'
}

export async function alerts ({ address }: Prometheus): Promise<Alert[]> {
  const response = await fetch(`${address}/api/v1/alerts`, { signal: AbortSignal.timeout(10_000) })
  const { data } = await response.json() as { data: { alerts: Alert[] } } // its HTTP API
  return data.alerts
}
