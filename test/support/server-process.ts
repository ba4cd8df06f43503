import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { sourcePath } from '../../app/source-path.ts'
import { childEnv } from './child-env.ts'

export interface Running {
  process: ChildProcess
  address: string
  lines: string[]
  exit: Promise<unknown>
}

export const fromSources = ['--import', 'tsx', '--conditions=@fastify-token-registry/source']

/** Starts the server as `npm start` does, but from the sources, on any free port. */
export function start (t: Test, env: Record<string, string>): { process: ChildProcess, lines: string[], listening: Promise<Running> } {
  const child = spawn(process.execPath, [...fromSources, sourcePath('app/main.ts')], {
    env: { ...childEnv, PORT: '0', RATE_LIMIT_GLOBAL: 'off', RATE_LIMIT_AUTH: 'off', ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  t.teardown(() => { child.kill('SIGKILL') })
  const exit = once(child, 'exit')
  const lines: string[] = []
  createInterface(child.stderr).on('line', line => lines.push(line))
  const listening = new Promise<Running>((resolve, reject) => {
    createInterface(child.stdout).on('line', line => {
      lines.push(line)
      const { msg, address }: { msg?: string, address?: string } = JSON.parse(line)
      if (msg === 'listening' && address !== undefined) resolve({ process: child, address, lines, exit })
    })
    exit.then(() => reject(new Error(`the server ended:\n${lines.join('\n')}`)))
  })
  return { process: child, lines, listening }
}

export async function send (address: string, path: string, body: object): Promise<Response> {
  const response = await fetch(address + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  await response.arrayBuffer()
  return response
}

export async function post (address: string, path: string, body: object): Promise<number> {
  return (await send(address, path, body)).status
}
