import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { SessionLimitReached, TokenInvalid, type SessionLimitError } from 'fastify-token-registry'
import type { RateLimit } from '../config.ts'
import { clientAddress } from '../http/client-address.ts'
import { answers, NoContent } from '../http/schemas.ts'
import { deviceNames, EndedAnswer, sessionAnswer } from '../sessions/schemas.ts'
import type { User } from '../users/users.ts'
import type { Auth, SignedIn } from './auth.ts'
import { ChangeBody, ForgotBody, LimitAnswer, LoginAnswer, LoginAnswerHeaders, LoginBody, LoginHeaders, MeAnswer, RefreshBody, RegisterAnswer, RegisterBody, ResetBody } from './schemas.ts'

const tags = ['auth']
const signedIn = { session: { noStore: true } }

export const authRoutes: FastifyPluginAsyncTypebox<{ auth: Auth, rateLimit: RateLimit | false }> = async (app, { auth, rateLimit }) => {
  const { devices } = app.sessionLimits
  // One budget for all that could be used to guess passwords. What merely shows a token does not use it up.
  const onRequest = app.limitBy(rateLimit)

  app.post('/register', {
    onRequest,
    schema: { operationId: 'register', summary: 'Register', tags, body: RegisterBody, response: answers({ 201: RegisterAnswer }) }
  }, async (request, reply) => {
    const user = await auth.register(request.body, request)
    return reply.code(201).send({ user: userAnswer(user) })
  })

  app.post('/login', {
    onRequest,
    schema: {
      operationId: 'login',
      summary: 'Sign in',
      description: 'Who shows the device token of the last answer, in the cookie or the header, is on the same device. Pages of another origin fetch with credentials.',
      tags,
      headers: LoginHeaders,
      body: LoginBody,
      response: answers({ 200: { ...LoginAnswer, headers: LoginAnswerHeaders }, 429: LimitAnswer })
    }
  }, async (request, reply) => {
    const { email, password, device, rememberMe = false, endOthers = [] } = request.body
    const recognised = devices.recognise(request)
    const { 'user-agent': userAgent } = request.headers
    const ipAddress = clientAddress(request)
    const meta = {
      ...ipAddress !== null && { ipAddress },
      ...userAgent && { userAgent: userAgent.slice(0, 512) },
      ...device?.name && { deviceName: device.name },
      deviceId: recognised.id,
      remember: rememberMe
    }
    reply.header('cache-control', 'no-store')
    try {
      const signedIn = await auth.signIn({ email, password, meta, endOthers }, request)
      devices.give(request, reply, recognised)
      return await loginAnswer(signedIn, request)
    } catch (error) {
      if (!isLimitError(error)) throw error
      const { limit: name, max, count, statusCode, code, message } = error
      request.log.info({ code, limit: name }, 'refused')
      const names = await deviceNames(request, error.sessions[0])
      const sessions = error.sessions.map(session => sessionAnswer(session, null, names))
      return reply.code(429).send({ statusCode, code, error: 'Too Many Requests', message, requestId: request.id, limit: { name, max, count }, sessions })
    }
  })

  app.post('/refresh', {
    schema: { operationId: 'refresh', summary: 'Get new tokens for a refresh token', tags, body: RefreshBody, response: answers({ 200: LoginAnswer }) }
  }, async (request, reply) => {
    reply.header('cache-control', 'no-store')
    return await loginAnswer(await auth.refresh(request.body.refreshToken, request), request)
  })

  app.post('/logout', {
    config: signedIn,
    schema: { operationId: 'logout', summary: 'Sign out', tags, response: answers({ 204: NoContent }) }
  }, async (request, reply) => {
    await request.revokeSession()
    return reply.code(204).send(null)
  })

  app.get('/me', {
    config: signedIn,
    schema: { operationId: 'me', summary: 'Who is signed in', tags, response: answers({ 200: MeAnswer }) }
  }, async request => {
    const { session } = request.requireAuth()
    const [user, names] = await Promise.all([auth.userOf(session), deviceNames(request, session)])
    if (user === null) throw new TokenInvalid()
    return { user: userAnswer(user), session: sessionAnswer(session, session.id, names) }
  })

  app.post('/password/change', {
    config: signedIn,
    onRequest,
    schema: { operationId: 'changePassword', summary: 'Change the password', tags, body: ChangeBody, response: answers({ 200: EndedAnswer }) }
  }, async request => {
    const { currentPassword, newPassword, endOthers = true } = request.body
    return { ended: await auth.changePassword({ currentPassword, newPassword, endOthers }, request) }
  })

  app.post('/password/forgot', {
    onRequest,
    schema: {
      operationId: 'forgotPassword',
      summary: 'Ask for a mail to reset the password',
      description: 'The answer is the same whether there is such a user or not.',
      tags,
      body: ForgotBody,
      response: answers({ 204: NoContent })
    }
  }, async (request, reply) => {
    auth.forgotPassword(request.body.email, request)
    return reply.code(204).send(null)
  })

  app.post('/password/reset', {
    onRequest,
    schema: { operationId: 'resetPassword', summary: 'Reset the password with the token of the mail; ends every session', tags, body: ResetBody, response: answers({ 204: NoContent }) }
  }, async (request, reply) => {
    await auth.resetPassword(request.body.token, request.body.password, request)
    return reply.code(204).send(null)
  })

  async function loginAnswer ({ user, session, accessToken, refreshToken, expiresIn }: SignedIn, request: FastifyRequest) {
    return { accessToken, refreshToken, tokenType: 'Bearer' as const, expiresIn, user: userAnswer(user), session: sessionAnswer(session, session.id, await deviceNames(request, session)) }
  }
}

function isLimitError (error: unknown): error is SessionLimitError {
  return error instanceof SessionLimitReached
}

function userAnswer ({ id, email, name, roles, createdAt }: User) {
  return { id, email, name, roles: [...roles], createdAt: createdAt.getTime() }
}
