import type { Test } from 'tap'
import {
  memoryStore, type Ending, type HookName, type MemoryStore, type PartialStore, type TokenRegistry, type TokenRegistryOptions, type TokenStore
} from '../../plugins/token-registry/index.ts'
import { build } from './build.ts'
import { Clock } from './clock.ts'

export const DAY = 86_400_000
export const invalid = { code: 'FST_TOKEN_INVALID', statusCode: 401 }
export const expired = { code: 'FST_TOKEN_EXPIRED', statusCode: 401 }
export const revoked = { code: 'FST_TOKEN_REVOKED', statusCode: 401 }
export const reused = { code: 'FST_TOKEN_REUSED', statusCode: 401 }
export const refused = { code: 'FST_TOKEN_VALIDATION', statusCode: 400, critical: false }

type Options = Omit<Partial<TokenRegistryOptions>, 'store'>

export interface Rig {
  registry: TokenRegistry
  store: MemoryStore
  clock: Clock
}

/** A registry on a memory store whose clock is moved by hand. */
export async function rig (t: Test, options: Options = {}, decorate: (store: TokenStore) => PartialStore = store => store): Promise<Rig> {
  const clock = new Clock()
  const store = memoryStore({ now: clock.now })
  t.teardown(async () => await store.close())
  const app = await build(t, { ...options, store: decorate(store) })
  return { registry: app.tokenRegistry, store, clock }
}

/** What hooks are told, in order. */
export function listen (registry: TokenRegistry, ...names: HookName[]): Array<{ hook: HookName, args: readonly unknown[] }> {
  const told: Array<{ hook: HookName, args: readonly unknown[] }> = []
  for (const hook of names) registry.addHook(hook, (...args: readonly unknown[]) => { told.push({ hook, args }) })
  return told
}

export function endings (registry: TokenRegistry): Ending[] {
  const told: Ending[] = []
  registry.addHook('onEnd', (_session, ending) => { told.push(ending) })
  return told
}

export async function statusesOf (work: ReadonlyArray<Promise<unknown>>): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const result of await Promise.allSettled(work)) {
    const name = result.status === 'fulfilled' ? 'ok' : String(result.reason.code)
    counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}
