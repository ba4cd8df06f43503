import { Type, type TSchema } from '@sinclair/typebox'
import type { FastifyPluginAsync } from 'fastify'
import { errorAnswers, faultOf, Operators, ownOf, quietLevel, type OperatorOptions } from '../token-registry/index.ts'
import { HealthOptions } from './errors.ts'

export interface HealthRoutesOptions {
  /** Who is told details: what the process uses, what each part says. Nobody, where it is left out. */
  operators?: OperatorOptions
}

const Options = Type.Object({ operators: Type.Optional(Type.Unknown()) }, { additionalProperties: false })

const tags = ['health']
// Who probes must not be refused, nor use up what others of its address may send.
const config = { session: false as const, rateLimit: false as const }
const number = (description: string, example: number) => Type.Optional(Type.Number({ description, examples: [example] }))
const exactly = (properties: Record<string, TSchema>, description: string) => Type.Object(properties, { additionalProperties: false, description })

const Live = {
  status: Type.Union([Type.Literal('ok'), Type.Literal('fail')], { examples: ['ok'] }),
  eventLoopDelay: number('ms, for operators', 0.2),
  eventLoopUtilization: number('0 to 1, for operators', 0.1),
  heapUsedBytes: number('for operators', 30_000_000),
  rssBytes: number('for operators', 90_000_000)
}

const Status = Type.Union([Type.Literal('ok'), Type.Literal('degraded'), Type.Literal('fail')], { examples: ['ok'] })
const Check = Type.Object({
  status: Status,
  required: Type.Boolean({ examples: [true] }),
  latency: Type.Number({ description: 'ms', examples: [0.4] }),
  detail: Type.Optional(Type.String({ examples: ['no answer within 500 ms'] }))
}, { additionalProperties: false })
const Ready = {
  status: Status,
  draining: Type.Optional(Type.Boolean({ description: 'whether it is about to stop, for operators', examples: [false] })),
  checks: Type.Optional(Type.Record(Type.String(), Check, { description: 'for operators', examples: [{ store: { status: 'ok', required: true, latency: 0.4 } }] }))
}

/**
 * `GET /live` and `GET /ready`, and HEAD of both, for load balancers and orchestrators. Fastify's own `prefix` goes before them.
 *
 * @example
 * await fastify.register(healthRoutes, { prefix: '/health', operators: { token: process.env.METRICS_TOKEN } })
 */
export const healthRoutes: FastifyPluginAsync<HealthRoutesOptions> = async (app, options) => {
  if (!app.hasDecorator('health')) throw new HealthOptions('healthRoutes: the plugin health is not registered here')
  const own = ownOf(options)
  const fault = faultOf(Options, own, '')
  if (fault !== null) throw new HealthOptions(`healthRoutes: ${fault}`)
  const { operators: who = {} } = own
  const { health } = app
  const operators = new Operators(who, 'operators')

  app.get('/live', {
    config,
    logLevel: quietLevel(app),
    exposeHeadRoute: true,
    schema: { operationId: 'live', summary: 'The process lives', tags, security: [], response: { 200: exactly(Live, 'It does'), 503: exactly(Live, 'It uses more than it may'), ...errorAnswers } }
  }, async (request, reply) => {
    const { status, ...details } = health.live()
    return reply.code(status === 'fail' ? 503 : 200).header('cache-control', 'no-store').send({ status, ...operators.includes(request) && details })
  })

  app.get('/ready', {
    config,
    logLevel: quietLevel(app),
    exposeHeadRoute: true,
    schema: {
      operationId: 'ready',
      summary: 'The server can serve: send it requests',
      tags,
      security: [],
      response: { 200: exactly(Ready, 'It can; `degraded`: not all as it should'), 503: exactly(Ready, 'It cannot, or is about to stop'), ...errorAnswers }
    }
  }, async (request, reply) => {
    const { status, ...details } = await health.ready()
    return reply.code(status === 'fail' ? 503 : 200).header('cache-control', 'no-store').send({ status, ...operators.includes(request) && details })
  })
}
