import Fastify, { type FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import audit, { LedgerUnavailable, memoryLedger, type AuditPluginOptions, type Ledger } from '../../plugins/audit/index.ts'
import tokenRegistry, { type TokenRegistryOptions } from '../../plugins/token-registry/index.ts'
import { newSecret } from './build.ts'

/** A server with the registry and an audit, closed with the test. */
export async function audited (t: Test, options: AuditPluginOptions = {}, registry: Partial<TokenRegistryOptions> = {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(tokenRegistry, { secret: newSecret(), ...registry })
  await app.register(audit, { gather: { time: 0 }, ...options })
  return app
}

/** A ledger that can be made to fail, or to hang, when something is to be appended. */
export function fragileLedger (): { ledger: Ledger, state: { mode: 'well' | 'fails' | 'hangs' | 'loses the answer', appends: number } } {
  const state: ReturnType<typeof fragileLedger>['state'] = { mode: 'well', appends: 0 }
  const ledger = memoryLedger()
  const append = ledger.append.bind(ledger)
  ledger.append = async plan => {
    state.appends++
    if (state.mode === 'fails') throw new LedgerUnavailable('test')
    if (state.mode === 'hangs') return await new Promise(() => {})
    const appended = await append(plan)
    if (state.mode === 'loses the answer') throw new LedgerUnavailable('test')
    return appended
  }
  return { ledger, state }
}

/** All entries, the oldest first. */
export async function entriesOf (app: FastifyInstance): Promise<Awaited<ReturnType<FastifyInstance['audit']['entries']>>['entries']> {
  const { entries } = await app.audit.entries({}, { limit: 1000, personal: true })
  return entries.reverse()
}
