import { setTimeout as pause } from 'node:timers/promises'
import type { CheckedHealth, HealthChecks, HealthStatus } from '../token-registry/index.ts'

/** What the process uses. */
export interface Usage {
  /** ms */
  eventLoopDelay: number
  /** 0 to 1 */
  eventLoopUtilization: number
  heapUsedBytes: number
  rssBytes: number
}

export interface Process {
  usage: () => Usage
  isUnderPressure: () => boolean
}

export interface Readiness {
  status: HealthStatus
  /** Whether it is about to stop. */
  draining: boolean
  checks: Record<string, CheckedHealth>
}

export interface HealthParts {
  process: Process
  checks: HealthChecks
  /** ms */
  shutdownDelay: number
  /** Closes the server. */
  close: () => Promise<void>
}

/** Whether a process lives, and whether it can serve. */
export class Health {
  readonly #parts: HealthParts
  readonly #closing = new AbortController()
  #drained: Promise<void> | null = null

  constructor (parts: HealthParts) {
    this.#parts = parts
  }

  /** Whether it is about to stop. */
  get draining (): boolean {
    return this.#drained !== null
  }

  live (): Usage & { status: 'ok' | 'fail' } {
    const { usage, isUnderPressure } = this.#parts.process
    return { status: isUnderPressure() ? 'fail' : 'ok', ...usage() }
  }

  /** `fail` where a part does that is required, or it is about to stop; `degraded` where anything else is not as it should be. Never rejects. */
  async ready (): Promise<Readiness> {
    const checks = await this.#parts.checks.read()
    const all = Object.values(checks)
    const fails = this.draining || all.some(({ status, required }) => required && status === 'fail')
    const status = fails ? 'fail' : all.some(({ status }) => status !== 'ok') ? 'degraded' : 'ok'
    return { status, draining: this.draining, checks }
  }

  /**
   * Readiness fails from now on, while requests are still served for `shutdownDelay`; then the server closes.
   *
   * @returns when it has closed
   * @example
   * process.once('SIGTERM', () => fastify.health.drain())
   */
  drain (): Promise<void> {
    this.#drained ??= this.#drain()
    return this.#drained
  }

  /** @internal It closes: nobody waits any more. */
  closed (): void {
    this.#closing.abort()
  }

  async #drain (): Promise<void> {
    const { shutdownDelay, close } = this.#parts
    await pause(shutdownDelay, undefined, { signal: this.#closing.signal }).catch(() => {}) // somebody else closes it
    await close()
  }
}
