import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { LOAD_CORE, onCore, present } from './cores.ts'

const CONNECTIONS = '64'
const SECONDS = '3600'

const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url))

/** autocannon costs several times as much of its core, and may not fill the server's. */
export const tool = present('wrk') ? 'wrk' : 'autocannon'

function command (url: string, requests: string): string[] {
  return tool === 'wrk'
    ? ['wrk', '-t', '1', '-c', CONNECTIONS, '-d', SECONDS, '--timeout', '10', '-s', here('replay.lua'), url, '--', requests]
    : [process.execPath, here('replay.js'), url, requests, CONNECTIONS, SECONDS]
}

/** Requests without end, that can be held back. */
export class Load {
  readonly #process: ChildProcess

  /**
   * @param url of a server on this machine
   * @param requests the file of prepared requests that are sent to it in turn
   */
  constructor (url: string, requests: string) {
    this.#process = spawn(...onCore(LOAD_CORE, command(url, requests)), { stdio: ['ignore', 'ignore', 'inherit'] })
  }

  pause (): void {
    this.#process.kill('SIGSTOP')
  }

  /** @throws {Error} where it has ended, which it should not by itself */
  resume (): void {
    if (!this.#process.kill('SIGCONT')) throw new Error(`${tool} ended with ${this.#process.exitCode}`)
  }

  end (): void {
    // SIGKILL reaches a process that is held back, too.
    this.#process.kill('SIGKILL')
  }
}
