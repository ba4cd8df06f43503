import { within } from './deadline.ts'
import { TokenOptions } from './errors.ts'

/** ms that what a part said is said again, however many ask. */
const FRESH = 1000
/** ms that a part may take: who probes and scrapes is answered within a second. */
const TIMEOUT = { usual: 500, longest: 900 }
/** ms */
const LOST = 30_000

const statuses = ['ok', 'degraded', 'fail'] as const

/** `degraded`: it works, not as it should. */
export type HealthStatus = typeof statuses[number]

export interface Health {
  status: HealthStatus
  /** For operators: nothing that only callers may know. */
  detail?: string
}

export interface HealthCheckOptions {
  /** Whether nothing can be served without it, true by default. */
  required?: boolean
  /** ms that it may take, 900 at most, 500 by default; past it is `fail` */
  timeout?: number
}

export interface CheckedHealth extends Health {
  required: boolean
  /** ms that the check took */
  latency: number
}

interface Check {
  run: () => Health | PromiseLike<Health>
  required: boolean
  timeout: number
  last: { at: number, health: Promise<CheckedHealth> } | null
  /** What does not answer is not asked again meanwhile, for a while. */
  underWay: { since: number, answer: Promise<Health> } | null
}

/** Whether the parts of a service work, by name: asked once a second at most, and each within its time. */
export class HealthChecks {
  readonly #checks = new Map<string, Check>()
  readonly #lost: number

  /** @param lost ms after which a part that has not answered is asked once more */
  constructor (lost = LOST) {
    this.#lost = lost
  }

  /**
   * Adds a part.
   *
   * @param name lower-case letters, digits, `-` or `_`
   * @param run throws, or tells `fail`, where the part does not work
   * @throws {TokenOptions} where the name is taken, or none; where `run` is no function, or `timeout` none that it may be
   */
  add (name: string, run: Check['run'], { required = true, timeout = TIMEOUT.usual }: HealthCheckOptions = {}): void {
    if (!/^[a-z][a-z0-9_-]{0,31}$/.test(name)) throw new TokenOptions(`the health check ${JSON.stringify(name)} is not named by lower-case letters, digits, - or _`)
    if (this.#checks.has(name)) throw new TokenOptions(`there is a health check named ${name} already`)
    if (typeof run !== 'function') throw new TokenOptions(`the health check ${name} is no function`)
    if (typeof timeout !== 'number' || !(timeout > 0 && timeout <= TIMEOUT.longest)) throw new TokenOptions(`the health check ${name} has a timeout of ${String(timeout)}: it may be more than 0, ${TIMEOUT.longest} ms at most`)
    this.#checks.set(name, { run, required, timeout, last: null, underWay: null })
  }

  /** What all parts say, at most a second ago. Never rejects. */
  async read (): Promise<Record<string, CheckedHealth>> {
    return Object.fromEntries(await Promise.all([...this.#checks].map(async ([name, check]) => [name, await this.#latest(check)] as const)))
  }

  #latest (check: Check): Promise<CheckedHealth> {
    const now = performance.now()
    if (check.last === null || now - check.last.at > FRESH) check.last = { at: now, health: this.#ask(check) }
    return check.last.health
  }

  async #ask (check: Check): Promise<CheckedHealth> {
    const { required, timeout } = check
    const began = performance.now()
    if (check.underWay === null || began - check.underWay.since > this.#lost) {
      const underWay = { since: began, answer: answerOf(check) }
      check.underWay = underWay
      underWay.answer.then(() => { if (check.underWay === underWay) check.underWay = null })
    }
    const health = await within(check.underWay.answer, timeout, () => new Error(`no answer within ${timeout} ms`)).catch(failed)
    return { ...health, required, latency: performance.now() - began }
  }
}

async function answerOf ({ run }: Check): Promise<Health> {
  try {
    const { status, detail } = Object(await run()) as Partial<Health> // whatever a service returns
    if (status === undefined || !statuses.includes(status)) return { status: 'fail', detail: 'the check told none of ok, degraded, fail' }
    return { status, ...typeof detail === 'string' && { detail } }
  } catch (error) {
    return failed(error)
  }
}

function failed (error: unknown): Health {
  return { status: 'fail', detail: error instanceof Error ? error.message : 'what was thrown is no error' }
}
