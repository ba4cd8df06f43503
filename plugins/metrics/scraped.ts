import { Counter, Gauge } from 'prom-client'
import type { TokenRegistry } from '../token-registry/index.ts'
import { families, OTHER, reasons, type Family } from './families.ts'
import { add, has, type MetricsRegister } from './register.ts'

/** Figures of sources that are not known here. */
const MAX_UNKNOWN = 100

export interface ScrapedOptions {
  namePrefix: string
  maxTenants: number
  maxClients: number
  /** Besides the registry's own. */
  reasons: readonly string[]
}

/** Tells the log. */
export type Warn = (context: { err: unknown }, message: string) => void

/** What is counted elsewhere, and read when somebody scrapes: between scrapes it costs nothing. */
export class Scraped {
  readonly #registry: TokenRegistry
  readonly #register: MetricsRegister
  readonly #prefix: string
  /** By source and figure. */
  readonly #figures = new Map<string, (value: number | undefined) => void>()
  readonly #tallies: ReadonlyArray<() => void>
  readonly #warn: Warn
  /** What the log has been told. */
  readonly #told = new Set<string>()
  #unknown = 0

  constructor (registry: TokenRegistry, register: MetricsRegister, options: ScrapedOptions, warn: Warn) {
    this.#registry = registry
    this.#warn = warn
    this.#register = register
    this.#prefix = options.namePrefix
    // The first one of all: prom-client asks it before it reads others.
    this.#gauge({ name: 'info', help: 'Which store the registry has.' }, ['store'], () => this.read()).set({ store: registry.storeName }, 1)
    this.#addHealth()
    this.#tallies = this.#addTallies(options)
  }

  #addHealth (): void {
    const { healthChecks } = this.#registry
    const statuses = ['ok', 'degraded', 'fail'] as const
    // Asked once a second at most, each part within its time.
    const status = this.#gauge({ name: 'health_status', help: '1 for the status that a part has.' }, ['check', 'status'], async () => {
      for (const [check, health] of Object.entries(await healthChecks.read())) for (const each of statuses) status.set({ check, status: each }, Number(each === health.status))
    })
    const required = this.#gauge({ name: 'health_required', help: '1 for a part without which nothing can be served.' }, ['check'], async () => {
      for (const [check, health] of Object.entries(await healthChecks.read())) required.set({ check }, Number(health.required))
    })
  }

  #addTallies ({ maxTenants, maxClients, reasons: own }: ScrapedOptions): Array<() => void> {
    const { issued, rotated, reused, ended, limited } = this.#registry.stats.tallies
    const [tenants, clients] = [new FirstNames(maxTenants), new FirstNames(maxClients)]
    const known = new Set([...reasons, ...own])
    const counted = (name: string, help: string, labels: readonly string[]): Counter => this.#counter({ name, help }, labels)

    const sessions = counted('sessions_issued_total', 'Sessions and one-time tokens that were issued.', ['tenant', 'client'])
    const rotations = counted('session_rotations_total', 'Tokens that were replaced by their successor, or consumed.', ['tenant'])
    const reuses = counted('session_reuses_total', 'Tokens that were presented again and ended their session.', ['tenant'])
    const endings = counted('sessions_ended_total', 'Sessions that ended, as far as this process noticed.', ['tenant', 'reason'])
    const refusals = counted('session_limit_refusals_total', 'Sign-ins, and batches of them, that a limit refused.', ['tenant', 'limit'])
    return [
      () => refill(sessions, issued.entries(), (tenant, client) => ({ tenant: tenants.of(tenant), client: clients.of(client) }), [{ tenant: '', client: '' }]),
      () => refill(rotations, rotated.entries(), tenant => ({ tenant: tenants.of(tenant) }), [{ tenant: '' }]),
      // Of each tenant that has sessions: alerts look at what was added, and the first of a series adds nothing.
      () => refill(reuses, reused.entries(), tenant => ({ tenant: tenants.of(tenant) }), tenants.names.map(tenant => ({ tenant }))),
      () => refill(endings, ended.entries(), (tenant, reason) => ({ tenant: tenants.of(tenant), reason: known.has(reason) ? reason : OTHER }), reasons.map(reason => ({ tenant: '', reason }))),
      () => refill(refusals, limited.entries(), (tenant, limit) => ({ tenant: tenants.of(tenant), limit }), [])
    ]
  }

  /** Reads it, and adds metrics for what it had not seen: those are told from the next scrape on. */
  read (): void {
    for (const refill of this.#tallies) refill()
    const seen = new Set<string>()
    const all = this.#registry.stats.read((source, error) => this.#warnOnce(`the figures of ${source} cannot be read, and are left out`, error))
    for (const [source, figures] of Object.entries(all)) {
      if (source === 'ended') continue
      for (const [figure, value] of Object.entries(figures)) {
        if (typeof value !== 'number') continue
        const key = `${source} ${figure}`
        seen.add(key)
        const set = this.#figures.get(key) ?? this.#addFigure(source, figure, key)
        set(value)
      }
    }
    // What nobody knows any more is told no longer.
    for (const [key, set] of this.#figures) if (!seen.has(key)) set(undefined)
  }

  #addFigure (source: string, figure: string, key: string): (value: number | undefined) => void {
    const known = families[source]?.[figure]
    const set = known === null ? () => {} : known === undefined ? this.#addUnknown(source, figure) : this.#addKnown(known)
    this.#figures.set(key, set)
    return set
  }

  #addKnown (family: Family): (value: number | undefined) => void {
    const { type, scale = 1 } = family
    const metric = type === 'counter' ? this.#counter(family, []) : this.#gauge(family, [])
    return value => {
      metric.reset()
      if (value === undefined) metric.remove()
      else metric.inc(value * scale)
    }
  }

  /** Plugins of others: what they count is not known here. */
  #addUnknown (source: string, figure: string): (value: number | undefined) => void {
    if (++this.#unknown > MAX_UNKNOWN) return () => {}
    const counts = /.(_t|T)otal$/.test(figure)
    const plain = `${source}_${figure}`.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`).replace(/[^a-zA-Z0-9_]/g, '_')
    // Counters alone are called so.
    const name = counts ? plain : plain.replace(/_total$/, '')
    if (has(this.#register, this.#prefix + name)) {
      this.#warnOnce(`the figure ${figure} of ${source} is left out: there is a metric of its name already`)
      return () => {}
    }
    const set = this.#addKnown({ name, help: 'A figure that a plugin adds to the registry.', type: counts ? 'counter' : 'gauge' })
    return value => {
      const isCount = !counts || value === undefined || (value >= 0 && value < Infinity)
      if (!isCount) this.#warnOnce(`the figure ${figure} of ${source} is left out while it is no count`)
      set(isCount ? value : undefined)
    }
  }

  #warnOnce (message: string, error?: unknown): void {
    if (this.#told.has(message)) return
    this.#told.add(message)
    this.#warn({ err: error }, message)
  }

  #counter ({ name, help }: Pick<Family, 'name' | 'help'>, labelNames: readonly string[]): Counter {
    return add(this.#register, this.#prefix + name, name => new Counter({ name, help, labelNames, registers: [this.#register] }))
  }

  #gauge ({ name, help }: Pick<Family, 'name' | 'help'>, labelNames: readonly string[], collect?: () => void | Promise<void>): Gauge {
    return add(this.#register, this.#prefix + name, name => new Gauge({ name, help, labelNames, registers: [this.#register], ...collect !== undefined && { collect } }))
  }
}

/** Names in the order in which they came: those after the first few are `other`. */
class FirstNames {
  readonly #max: number
  readonly #known = new Set([''])

  constructor (max: number) {
    this.#max = max + 1
  }

  get names (): string[] {
    return [...this.#known]
  }

  of (name: string): string {
    if (this.#known.size < this.#max) this.#known.add(name)
    return this.#known.has(name) ? name : OTHER
  }
}

/** @param zeros series that are there before anything happened, so that the first time shows */
function refill (counter: Counter, entries: Iterable<readonly [string, string, number]>, labelsOf: (first: string, second: string) => Record<string, string>, zeros: ReadonlyArray<Record<string, string>>): void {
  counter.reset()
  for (const labels of zeros) counter.inc(labels, 0)
  for (const [first, second, count] of entries) counter.inc(labelsOf(first, second), count)
}
