import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { SERVER_CORE, onCore } from './cores.ts'

const ticks = new URL('ticks.js', import.meta.url).href

/** A file of this folder that runs as a process of its own, on the server's core, and answers over IPC. */
export class Child {
  readonly #process: ChildProcess
  readonly #gone: AbortSignal

  /**
   * @param signal ends the process, and whatever waits for it
   * @param flags of node
   * @param core where it runs, the server's by default
   */
  constructor (file: string, args: readonly string[], signal: AbortSignal, flags: readonly string[] = [], core = SERVER_CORE) {
    const path = fileURLToPath(new URL(file, import.meta.url))
    const [command, all] = onCore(core, [process.execPath, ...flags, '--import', ticks, '--import', 'tsx', path, ...args])
    this.#process = spawn(command, all, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })

    const gone = new AbortController()
    this.#process.once('error', fault => gone.abort(fault))
    this.#process.once('exit', code => gone.abort(new Error(`${file} ended with ${code}`)))
    signal.addEventListener('abort', () => this.#process.kill(), { signal: gone.signal })
    this.#gone = AbortSignal.any([gone.signal, signal])
  }

  /**
   * Sends a question, where there is one, and waits for the next answer.
   *
   * @throws {Error} where the process has ended, or the signal ends it
   */
  async ask<Answer> (question?: object): Promise<Answer> {
    this.#gone.throwIfAborted()
    const answered = once(this.#process, 'message', { signal: this.#gone })
    if (question !== undefined) this.#process.send(question)
    const [answer] = await answered.catch(() => { throw this.#gone.reason })
    return answer
  }

  async end (): Promise<void> {
    if (this.#gone.aborted) return
    const ended = once(this.#process, 'exit')
    this.#process.kill()
    await ended
  }
}
