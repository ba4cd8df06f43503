import { Type } from '@sinclair/typebox'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { SessionNotFound } from 'fastify-token-registry'
import { answers, exactly, NoContent } from '../http/schemas.ts'
import { deviceNames, EndedAnswer, endingAnswer, EndingAnswer, PageQuery, sessionAnswer, SessionAnswer, SessionParams, SessionsAnswer } from './schemas.ts'

const tags = ['sessions']
const config = { session: { noStore: true } }

/** The sessions of who is signed in. Another's session is answered as one that does not exist. */
export const sessionRoutes: FastifyPluginAsyncTypebox = async app => {
  const { tokenRegistry } = app

  app.get('', {
    config,
    schema: { operationId: 'listSessions', summary: 'Own sessions', tags, querystring: PageQuery, response: answers({ 200: SessionsAnswer }) }
  }, async request => {
    const { session: { id, sub, tenant } } = request.requireAuth()
    const [{ sessions, cursor }, names] = await Promise.all([tokenRegistry.list({ sub, tenant, ...request.query }), deviceNames(request, { sub, tenant })])
    return { sessions: sessions.map(session => sessionAnswer(session, id, names)), cursor }
  })

  app.get('/:id', {
    config,
    schema: { operationId: 'getSession', summary: 'One of the own sessions', tags, params: SessionParams, response: answers({ 200: SessionAnswer }) }
  }, async request => {
    const { session: { id, sub, tenant } } = request.requireAuth()
    const session = await tokenRegistry.getById(request.params.id)
    if (session === null || session.use === 'once' || session.sub !== sub || session.tenant !== tenant) throw new SessionNotFound()
    return sessionAnswer(session, id, await deviceNames(request, { sub, tenant }))
  })

  app.get('/:id/ending', {
    config,
    schema: { operationId: 'explainSession', summary: 'Why a session ended; for its owner and administrators', tags, params: SessionParams, response: answers({ 200: EndingAnswer }) }
  }, async request => {
    const { session: { sub, tenant }, scope } = request.requireAuth()
    const ending = await tokenRegistry.explain(request.params.id)
    const own = ending?.sub === sub && ending.tenant === tenant
    if (ending === null || !(own || scope.includes('sessions:admin'))) throw new SessionNotFound()
    return endingAnswer(ending, await deviceNames(request, ending))
  })

  app.delete('/:id', {
    config,
    schema: { operationId: 'endSession', summary: 'End one of the own sessions', tags, params: SessionParams, response: answers({ 204: NoContent }) }
  }, async (request, reply) => {
    const { session: { sub, tenant } } = request.requireAuth()
    if (!await tokenRegistry.for(request).revokeById(request.params.id, 'revoked', { sub, tenant, by: sub })) throw new SessionNotFound()
    return reply.code(204).send(null)
  })

  app.delete('', {
    config,
    schema: {
      operationId: 'endSessions',
      summary: 'End all other sessions, or with ?all=true every one',
      tags,
      querystring: exactly({ all: Type.Optional(Type.Boolean({ default: false, description: 'this one too', examples: [true] })) }),
      response: answers({ 200: EndedAnswer })
    }
  }, async request => {
    const { session: { id, sub, tenant } } = request.requireAuth()
    return { ended: await tokenRegistry.for(request).revokeAll({ sub, tenant, except: request.query.all === true ? [] : [id], by: sub }) }
  })
}
