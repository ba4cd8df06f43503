import { Type } from '@sinclair/typebox'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import createError from '@fastify/error'
import { userTarget } from '../audit/events.ts'
import { answers, exactly } from '../http/schemas.ts'
import { deviceNames, EndedAnswer, PageQuery, sessionAnswer, SessionsAnswer } from '../sessions/schemas.ts'
import type { Users } from '../users/users.ts'

const UserNotFound = createError('APP_USER_NOT_FOUND', 'There is no such user', 404)

const tags = ['admin']
const UserParams = exactly({ sub: Type.String({ minLength: 1, maxLength: 256, description: 'id of a user', examples: ['0198f7a2-5b1c-7d3e-8f00-0c0ffee0c0de'] }) })

export const adminRoutes: FastifyPluginAsyncTypebox<{ users: Users }> = async (app, { users }) => {
  const { tokenRegistry } = app

  app.get('/users/:sub/sessions', {
    config: { session: { scope: 'sessions:admin', noStore: true } },
    schema: { operationId: 'listSessionsOfUser', summary: 'Sessions of a user', tags, params: UserParams, querystring: PageQuery, response: answers({ 200: SessionsAnswer }) }
  }, async request => {
    const { session: { id } } = request.requireAuth()
    const { sub } = request.params
    await request.audit({ type: 'admin.sessions.list', target: userTarget(sub) })
    const [{ sessions, cursor }, names] = await Promise.all([tokenRegistry.list({ sub, ...request.query }), deviceNames(request, { sub, tenant: '' })])
    return { sessions: sessions.map(session => sessionAnswer(session, id, names)), cursor }
  })

  app.delete('/users/:sub/sessions', {
    config: { session: { scope: 'sessions:admin', noStore: true } },
    schema: { operationId: 'endSessionsOfUser', summary: 'End every session of a user', tags, params: UserParams, response: answers({ 200: EndedAnswer }) }
  }, async request => {
    const { session: { sub: by } } = request.requireAuth()
    return { ended: await tokenRegistry.for(request).revokeAll({ sub: request.params.sub, by }) }
  })

  app.patch('/users/:sub', {
    config: { session: { scope: 'users:admin', noStore: true } },
    schema: {
      operationId: 'disableUser',
      summary: 'Shut a user out, or let it in again; shutting out ends its sessions',
      tags,
      params: exactly({ sub: Type.String({ format: 'uuid', description: 'id of a user', examples: ['0198f7a2-5b1c-7d3e-8f00-0c0ffee0c0de'] }) }),
      body: exactly({ disabled: Type.Boolean({ examples: [true] }) }),
      response: answers({ 200: EndedAnswer })
    }
  }, async request => {
    const { sub } = request.params
    const { disabled } = request.body
    const { session: { sub: by } } = request.requireAuth()
    return await request.audit({ type: disabled ? 'user.disable' : 'user.enable', target: userTarget(sub) }, async () => {
      const user = disabled ? await users.disable(sub) : await users.enable(sub)
      if (user === null) throw new UserNotFound()
      return { ended: disabled ? await tokenRegistry.for(request).revokeAll({ sub, reason: 'disabled', by }) : 0 }
    })
  })
}
