import type { FastifyRequest } from 'fastify'
import { isThenable, within } from './deadline.ts'
import { HookTimeout, TokenOptions } from './errors.ts'
import type { Ending, SessionRecord, Subject } from './record.ts'
import type { SessionData } from './validation.ts'

type Awaitable<T> = T | PromiseLike<T>

/** The operation that a hook belongs to. */
export interface HookContext {
  operation: 'issue' | 'save' | 'verify' | 'get' | 'rotate' | 'consume' | 'revoke' | 'revokeAll' | 'enforce'
  /** The same in every hook of one operation, and in the endings that it causes. */
  op: string
}

export interface Rotation {
  id: string
  generation: number
  client: string | null
}

/** What is to end: one session, or those of a subject. */
export interface Revocation {
  id?: string
  /** Of one session it is known when it has ended. */
  subject?: Subject
  except?: readonly string[]
  reason: string
  by: string | null
}

/**
 * Functions that run around the registry's operations. A `pre` hook may throw, which stops the operation before anything has changed; what
 * `preSave` returns is saved instead. A `post` or `on` hook that fails undoes nothing: its error goes to `onError` and to the log.
 */
export interface Hooks {
  /** For `request.startSession`, before all else. As by `preSave`, what it returns counts. */
  preStart: (data: SessionData, request: FastifyRequest) => Awaitable<SessionData | void>
  preSave: (data: SessionData, context: HookContext) => Awaitable<SessionData | void>
  postSave: (session: SessionRecord, context: HookContext) => Awaitable<void>
  /** Not on hits of the cache, as `postGet`. */
  preGet: (id: string, context: HookContext) => Awaitable<void>
  postGet: (session: SessionRecord | null, context: HookContext) => Awaitable<void>
  preRotate: (rotation: Rotation, context: HookContext) => Awaitable<void>
  /** Also for a one-time token that was consumed. */
  postRotate: (session: SessionRecord, context: HookContext) => Awaitable<void>
  preRevoke: (revocation: Revocation, context: HookContext) => Awaitable<void>
  /** Only where something ended. */
  postRevoke: (revocation: Revocation & { count: number }, context: HookContext) => Awaitable<void>
  /** Every ending, once. Not awaited. */
  onEnd: (session: SessionRecord, ending: Ending) => Awaitable<void>
  /** A token was presented again that had been replaced or consumed, and its session ended. Not awaited. */
  onReuse: (session: SessionRecord, ending: Ending) => Awaitable<void>
  /** A hook failed after the fact, or the infrastructure did. Not awaited. */
  onError: (error: Error, context: { hook?: HookName, operation?: string, op?: string }) => Awaitable<void>
}

export type HookName = keyof Hooks

interface Entry<Name extends HookName> {
  run: Hooks[Name]
  priority: number
}

/** Hooks by name, in their order, with a deadline for each. */
export class HookRunner {
  readonly #timeout: number
  readonly #log: (error: unknown, message: string) => void
  readonly #entries: { [Name in HookName]: Array<Entry<Name>> } = {
    preStart: [], preSave: [], postSave: [], preGet: [], postGet: [], preRotate: [], postRotate: [], preRevoke: [], postRevoke: [], onEnd: [], onReuse: [], onError: []
  }

  readonly #pending = new Set<Promise<void>>()

  /**
   * @param timeout ms that a hook may take
   * @param log is told each failure that no caller sees
   */
  constructor (timeout: number, log: (error: unknown, message: string) => void) {
    this.#timeout = timeout
    this.#log = log
  }

  /** @param priority lower runs first; equal ones in the order in which they were added */
  add<Name extends HookName> (name: Name, run: Hooks[Name], priority = 0): void {
    if (!Object.hasOwn(this.#entries, name)) {
      throw new TokenOptions(`addHook: ${JSON.stringify(name)} is not a hook; the hooks are ${Object.keys(this.#entries).join(', ')}`)
    }
    if (typeof run !== 'function') throw new TokenOptions(`addHook: the ${name} hook is not a function`)
    const entries: Array<Entry<Name>> = this.#entries[name]
    const after = entries.findIndex(entry => entry.priority > priority)
    entries.splice(after === -1 ? entries.length : after, 0, { run, priority })
  }

  has (name: HookName): boolean {
    return this.#entries[name].length > 0
  }

  /** Runs `preSave` hooks, each on what the one before made. */
  async preSave (data: SessionData, context: HookContext): Promise<SessionData> {
    for (const { run } of this.#entries.preSave) data = await this.#timed('preSave', run(data, context)) ?? data
    return data
  }

  /** Runs `preStart` hooks, likewise. */
  async preStart (data: SessionData, request: FastifyRequest): Promise<SessionData> {
    for (const { run } of this.#entries.preStart) data = await this.#timed('preStart', run(data, request)) ?? data
    return data
  }

  /** Runs hooks that may stop the operation. */
  async before<Name extends 'preGet' | 'preRotate' | 'preRevoke'> (name: Name, ...args: Parameters<Hooks[Name]>): Promise<void> {
    for (const call of this.#calls(name, args)) await this.#timed(name, call())
  }

  /** Runs hooks that come after the fact, and waits for them. */
  async after<Name extends 'postSave' | 'postGet' | 'postRotate' | 'postRevoke'> (name: Name, ...args: Parameters<Hooks[Name]>): Promise<void> {
    for (const call of this.#calls(name, args)) await this.#reported(name, call)
  }

  /** Calls hooks that nobody waits for. */
  tell<Name extends 'onEnd' | 'onReuse' | 'onError'> (name: Name, ...args: Parameters<Hooks[Name]>): void {
    for (const call of this.#calls(name, args)) {
      const work = this.#reported(name, call)
      if (work === undefined) continue
      this.#pending.add(work)
      work.finally(() => this.#pending.delete(work))
    }
  }

  /** Resolves when what was told has been heard, at the latest when its deadline is over. */
  async settled (): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending)
  }

  #calls<Name extends HookName> (name: Name, args: Parameters<Hooks[Name]>): Array<() => Awaitable<unknown>> {
    const entries: ReadonlyArray<Entry<Name>> = this.#entries[name]
    // TypeScript does not see that the parameters of Hooks[Name] are what Hooks[Name] takes.
    return entries.map(({ run }) => () => (run as (...args: Parameters<Hooks[Name]>) => Awaitable<unknown>)(...args))
  }

  /** @returns nothing where the hook was done at once */
  #reported (name: HookName, call: () => Awaitable<unknown>): Promise<void> | undefined {
    try {
      const result = this.#timed(name, call())
      return isThenable(result) ? this.#reportedLater(name, result) : undefined
    } catch (thrown) {
      this.#failed(name, thrown)
    }
  }

  async #reportedLater (name: HookName, result: PromiseLike<unknown>): Promise<void> {
    try {
      await result
    } catch (thrown) {
      this.#failed(name, thrown)
    }
  }

  #failed (name: HookName, thrown: unknown): void {
    // To make text of just anything may throw itself.
    const error = thrown instanceof Error ? thrown : new TypeError('what was thrown is no error', { cause: thrown })
    this.#log(error, `the ${name} hook failed`)
    if (name !== 'onError') this.tell('onError', error, { hook: name })
  }

  #timed<T> (name: HookName, result: Awaitable<T>): Awaitable<T> {
    return !isThenable(result) ? result : within(result, this.#timeout, () => new HookTimeout(name, this.#timeout))
  }
}
