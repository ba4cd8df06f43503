import type { FastifyRequest } from 'fastify'
import { isThenable, within } from './deadline.ts'
import { HookTimeout, TokenOptions } from './errors.ts'
import type { Ending, SessionRecord, Subject } from './record.ts'
import type { SessionData } from './validation.ts'

type Awaitable<T> = T | PromiseLike<T>

export type OperationName = 'issue' | 'save' | 'verify' | 'get' | 'update' | 'rotate' | 'consume' | 'revoke' | 'revokeAll' | 'enforce' | 'deny'

/** The operation that a hook belongs to. */
export class HookContext {
  readonly operation: OperationName
  /** The same in every hook of one operation, and in the endings that it causes; those of `enforce` add a dot and a number. */
  readonly op: string
  // A request holds tokens: it is no part of what loggers and inspectors show.
  readonly #request: FastifyRequest | null

  constructor (operation: OperationName, op: string, request: FastifyRequest | null) {
    this.operation = operation
    this.op = op
    this.#request = request
  }

  /** On whose behalf, where `tokenRegistry.for(request)` or the request's own decorators were called. */
  get request (): FastifyRequest | null {
    return this.#request
  }
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

/** What an operation is about to change: all that is known of it before. */
export interface Change extends Partial<Omit<Revocation, 'except'>> {
  except?: readonly string[]
  /** The client that rotates. */
  client?: string | null
  /** What is to be stored. */
  sessions?: readonly SessionRecord[]
}

/** What became of a change. */
export interface Outcome {
  /** Why it failed, or what it refused; null where it was done. */
  error: unknown
  /** What it stored, changed, rotated, consumed or ended, one by one. */
  sessions: readonly SessionRecord[]
  /** How many sessions it ended, or whether it did anything, where that is all that it tells. */
  count: number | null
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
  /** Before any operation that changes something, after the hooks of its own, and when its input has been found right. */
  preChange: (change: Change, context: HookContext) => Awaitable<void>
  /**
   * After each `preChange`: the operation is done, has failed, or was stopped by one of them, and nobody knows yet. Where this throws, the caller gets that error in place
   * of the answer, and sessions that were stored are ended. */
  preAnswer: (outcome: Outcome, context: HookContext) => Awaitable<void>
  /** Every ending, once. Not awaited. */
  onEnd: (session: SessionRecord, ending: Ending) => Awaitable<void>
  /** A token was presented again that had been replaced or consumed, and its session ended. Not awaited. */
  onReuse: (session: SessionRecord, ending: Ending) => Awaitable<void>
  /** A hook failed after the fact, or the infrastructure did. Not awaited. */
  onError: (error: Error, context: { hook?: HookName, operation?: string, op?: string }) => Awaitable<void>
}

export type HookName = keyof Hooks

export interface HookOptions {
  /** Lower runs first, 0 by default; equal ones in the order in which they were added. */
  priority?: number
  /** ms that it may take; `hookTimeout` by default. */
  timeout?: number
}

interface Entry<Name extends HookName> extends Required<HookOptions> {
  run: Hooks[Name]
}

/** Is told each failure that no caller sees, and on whose behalf the operation was, where that is known. */
export type HookLog = (error: unknown, message: string, request?: FastifyRequest | null) => void

/** Hooks by name, in their order, with a deadline for each. */
export class HookRunner {
  readonly #timeout: number
  readonly #log: HookLog
  readonly #entries: { [Name in HookName]: Array<Entry<Name>> } = {
    preStart: [], preSave: [], postSave: [], preGet: [], postGet: [], preRotate: [], postRotate: [], preRevoke: [], postRevoke: [], preChange: [], preAnswer: [], onEnd: [], onReuse: [], onError: []
  }

  readonly #pending = new Set<Promise<void>>()

  /** @param timeout ms that a hook may take */
  constructor (timeout: number, log: HookLog) {
    this.#timeout = timeout
    this.#log = log
  }

  add<Name extends HookName> (name: Name, run: Hooks[Name], { priority = 0, timeout = this.#timeout }: HookOptions = {}): void {
    if (!Object.hasOwn(this.#entries, name)) {
      throw new TokenOptions(`addHook: ${JSON.stringify(name)} is not a hook; the hooks are ${Object.keys(this.#entries).join(', ')}`)
    }
    if (typeof run !== 'function') throw new TokenOptions(`addHook: the ${name} hook is not a function`)
    const entries: Array<Entry<Name>> = this.#entries[name]
    const after = entries.findIndex(entry => entry.priority > priority)
    entries.splice(after === -1 ? entries.length : after, 0, { run, priority, timeout })
  }

  has (name: HookName): boolean {
    return this.#entries[name].length > 0
  }

  /** Runs `preSave` hooks, each on what the one before made. */
  async preSave (data: SessionData, context: HookContext): Promise<SessionData> {
    for (const { run, timeout } of this.#entries.preSave) data = await timed('preSave', run(data, context), timeout) ?? data
    return data
  }

  /** Runs `preStart` hooks, likewise. */
  async preStart (data: SessionData, request: FastifyRequest): Promise<SessionData> {
    for (const { run, timeout } of this.#entries.preStart) data = await timed('preStart', run(data, request), timeout) ?? data
    return data
  }

  /** Runs hooks that may stop the operation. */
  async before<Name extends 'preGet' | 'preRotate' | 'preRevoke' | 'preChange' | 'preAnswer'> (name: Name, ...args: Parameters<Hooks[Name]>): Promise<void> {
    for (const call of this.#calls(name, args)) await call()
  }

  /**
   * Makes a change between `preChange` and `preAnswer`, which comes too where a `preChange` hook stopped it: others may have let it pass.
   *
   * @param sessionsOf what the change tells of sessions, one by one; else its result is a number, or whether it did anything
   * @param withdraw undoes what was stored, where its answer is withheld
   */
  around<T> (change: Change, context: HookContext, run: () => Promise<T>, sessionsOf?: (result: T) => readonly SessionRecord[], withdraw?: (stored: readonly SessionRecord[]) => Promise<void>): Promise<T> {
    return this.has('preChange') || this.has('preAnswer') ? this.#around(change, context, run, sessionsOf, withdraw) : run()
  }

  async #around<T> (...[change, context, run, sessionsOf, withdraw]: Parameters<typeof this.around<T>>): Promise<T> {
    const attempt = await attempted(async () => {
      await this.before('preChange', change, context)
      return await run()
    })
    const sessions = attempt.done ? sessionsOf?.(attempt.result) ?? [] : savedBefore(attempt.error)
    const count = attempt.done && sessionsOf === undefined ? Number(attempt.result) : null
    try {
      await this.before('preAnswer', { error: attempt.done ? null : attempt.error, sessions, count }, context)
    } catch (error) {
      if (sessions.length > 0) await withdraw?.(sessions).catch(failure => this.#failed('preAnswer', failure, context))
      throw error
    }
    if (!attempt.done) throw attempt.error
    return attempt.result
  }

  /** Runs hooks that come after the fact, and waits for them. */
  async after<Name extends 'postSave' | 'postGet' | 'postRotate' | 'postRevoke'> (name: Name, ...args: Parameters<Hooks[Name]>): Promise<void> {
    const context = args.find(arg => arg instanceof HookContext)
    for (const call of this.#calls(name, args)) await this.#reported(name, call, context)
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
    return entries.map(({ run, timeout }) => () => timed(name, (run as (...args: Parameters<Hooks[Name]>) => Awaitable<unknown>)(...args), timeout))
  }

  /** @returns nothing where the hook was done at once */
  #reported (name: HookName, call: () => Awaitable<unknown>, context?: HookContext): Promise<void> | undefined {
    try {
      const result = call()
      return isThenable(result) ? this.#reportedLater(name, result, context) : undefined
    } catch (thrown) {
      this.#failed(name, thrown, context)
    }
  }

  async #reportedLater (name: HookName, result: PromiseLike<unknown>, context?: HookContext): Promise<void> {
    try {
      await result
    } catch (thrown) {
      this.#failed(name, thrown, context)
    }
  }

  #failed (name: HookName, thrown: unknown, context?: HookContext): void {
    // To make text of just anything may throw itself.
    const error = thrown instanceof Error ? thrown : new TypeError('what was thrown is no error', { cause: thrown })
    this.#log(error, `the ${name} hook failed`, context?.request)
    if (name !== 'onError') this.tell('onError', error, { hook: name })
  }
}

function timed<T> (name: HookName, result: Awaitable<T>, timeout: number): Awaitable<T> {
  return isThenable(result) ? within(result, timeout, () => new HookTimeout(name, timeout)) : result
}

type Attempt<T> = { done: true, result: T } | { done: false, error: unknown }

async function attempted<T> (run: () => Promise<T>): Promise<Attempt<T>> {
  try {
    return { done: true, result: await run() }
  } catch (error) {
    return { done: false, error }
  }
}

/** What a batch stored of which another part was refused. */
function savedBefore (error: unknown): readonly SessionRecord[] {
  return error instanceof Error && 'saved' in error ? error.saved as readonly SessionRecord[] : [] // set by the registry
}
