import { Type } from '@sinclair/typebox'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../database/database.ts'
import { answers, exactly } from '../http/schemas.ts'

const tags = ['health']
const Status = Type.Union([Type.Literal('ok'), Type.Literal('degraded'), Type.Literal('fail')])
const Ready = exactly({
  status: Status,
  checks: exactly({ store: Status, database: Status })
})

/** Whether the process lives, and whether it can serve. */
export const healthRoutes: FastifyPluginAsyncTypebox<{ database: Database, state: { draining: boolean } }> = async (app, { database, state }) => {
  app.get('/live', {
    logLevel: 'warn',
    schema: { operationId: 'live', summary: 'The process lives', tags, response: answers({ 200: exactly({ status: Type.Literal('ok') }, { description: 'It does' }) }) }
  }, async () => ({ status: 'ok' as const }))

  app.get('/ready', {
    logLevel: 'warn',
    schema: {
      operationId: 'ready',
      summary: 'The server can serve: send it requests',
      tags,
      response: answers({ 200: { ...Ready, description: 'It can' }, 503: { ...Ready, description: 'It cannot, or is about to stop' } })
    }
  }, async (_request, reply) => {
    const [store, { up }] = await Promise.all([app.tokenRegistry.health(), database.health()])
    const checks = { store: store.status, database: up ? 'ok' as const : 'fail' as const }
    const fails = state.draining || Object.values(checks).includes('fail')
    const status = fails ? 'fail' as const : store.status
    return reply.code(fails ? 503 : 200).send({ status, checks })
  })
}
