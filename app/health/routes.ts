import { Type, type Static } from '@sinclair/typebox'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../database/database.ts'
import { answers, exactly } from '../http/schemas.ts'

const tags = ['health']
// Who probes must not be refused, nor use up what others of its address may send.
const config = { rateLimit: false as const }
/** ms that what the parts said is said again, however many probe. */
const FRESH = 1000

const Status = Type.Union([Type.Literal('ok'), Type.Literal('degraded'), Type.Literal('fail')], { examples: ['ok'] })
const Checks = exactly({ store: Status, database: Status })
const Ready = exactly({ status: Status, checks: Checks })

/** Whether the process lives, and whether it can serve. */
export const healthRoutes: FastifyPluginAsyncTypebox<{ database: Database, state: { draining: boolean } }> = async (app, { database, state }) => {
  let last: { at: number, checks: Promise<Static<typeof Checks>> } | undefined

  app.get('/live', {
    config,
    logLevel: 'warn',
    schema: { operationId: 'live', summary: 'The process lives', tags, response: answers({ 200: exactly({ status: Type.Literal('ok') }, { description: 'It does' }) }) }
  }, async () => ({ status: 'ok' as const }))

  app.get('/ready', {
    config,
    logLevel: 'warn',
    schema: {
      operationId: 'ready',
      summary: 'The server can serve: send it requests',
      tags,
      response: answers({ 200: { ...Ready, description: 'It can' }, 503: { ...Ready, description: 'It cannot, or is about to stop' } })
    }
  }, async (_request, reply) => {
    if (last === undefined || performance.now() - last.at > FRESH) last = { at: performance.now(), checks: check() }
    const { store, database } = await last.checks
    const fails = state.draining || store === 'fail' || database === 'fail'
    const status = fails ? 'fail' as const : store
    return reply.code(fails ? 503 : 200).send({ status, checks: { store, database } })
  })

  async function check (): Promise<Static<typeof Checks>> {
    const [store, up] = await Promise.all([app.tokenRegistry.health(), database.isUp()])
    return { store: store.status, database: up ? 'ok' : 'fail' }
  }
}
