import { StoreTimeout, type TokenStore } from '../token-registry/index.ts'
import type { ResolvedFailover, Switch } from './options.ts'

/** The reason is what was found in the last of the checks. */
type Switching = Switch & {
  /** The switch itself: what is to come before it is done before this is called. */
  done: () => void
}

interface Calls {
  answered: boolean
  failure: string | null
}

/**
 * Tells whether the primary is away: after so many checks in a row that failed, until so many in a row succeed.
 *
 * A check fails where `health` does, or where calls failed since the check before and none was answered. What the caller did wrong, and a
 * record that is damaged, are answers: no client can bring about a switch.
 */
export class Watch {
  /** By the monotonic clock: when the primary was last found healthy before it went away. */
  healthyAt = performance.now()
  #away = false
  /** Checks in a row that speak for a switch. */
  #contrary = 0
  /** How calls came out since the check before. Those that were begun before the last switch say nothing of how it is now. */
  #calls: Calls = newCalls()
  #timer: NodeJS.Timeout | undefined
  #closed = false
  readonly #primary: TokenStore
  readonly #options: ResolvedFailover
  readonly #switching: (event: Switching) => void

  constructor (options: ResolvedFailover, switching: (event: Switching) => void) {
    this.#primary = options.primary
    this.#options = options
    this.#switching = switching
    this.#checkLater()
  }

  get away (): boolean {
    return this.#away
  }

  /** Makes a call of the primary, and notes whether it is answered. */
  async ask<T> (call: (primary: TokenStore) => Promise<T>): Promise<T> {
    const calls = this.#calls
    try {
      const answer = await call(this.#primary)
      calls.answered = true
      return answer
    } catch (error) {
      if (isAnswer(error)) calls.answered = true
      else calls.failure = messageOf(error)
      throw error
    }
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #checkLater (): void {
    if (this.#closed) return
    this.#timer = setTimeout(async () => {
      await this.#check()
      this.#checkLater()
    }, this.#options.checkInterval).unref()
  }

  async #check (): Promise<void> {
    const fault = await this.#faultOfHealth() ?? (this.#calls.answered ? null : this.#calls.failure)
    Object.assign(this.#calls, newCalls())
    if (this.#closed) return
    if (fault === null && !this.#away) this.healthyAt = performance.now()

    const speaksForSwitch = this.#away === (fault === null)
    this.#contrary = speaksForSwitch ? this.#contrary + 1 : 0
    const { failAfter, recoverAfter } = this.#options
    if (this.#contrary < (this.#away ? recoverAfter : failAfter)) return
    this.#contrary = 0
    this.#calls = newCalls()
    this.#switching({
      to: this.#away ? 'primary' : 'secondary',
      reason: fault ?? `${recoverAfter} checks in a row succeeded`,
      done: () => { this.#away = !this.#away }
    })
  }

  async #faultOfHealth (): Promise<string | null> {
    try {
      const { status, detail } = await within(() => this.#primary.health(), this.#options.checkTimeout)
      return status === 'fail' ? detail ?? 'its health is "fail"' : null
    } catch (error) {
      return messageOf(error)
    }
  }
}

/** Waits for a check, but not longer than a time. One that comes late is left to itself. */
export async function within<T> (check: () => Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new StoreTimeout('health', ms)), ms).unref()
  })
  return await Promise.race([check(), late]).finally(() => clearTimeout(timer))
}

/** Whether the store works, whatever it says. */
function isAnswer (error: unknown): boolean {
  return error instanceof Error && 'critical' in error && (error.critical !== true || ('code' in error && error.code === 'FST_STORE_CORRUPT'))
}

function messageOf (error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function newCalls (): Calls {
  return { answered: false, failure: null }
}
