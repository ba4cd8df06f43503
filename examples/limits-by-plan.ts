// How many sessions one may have depends on the plan. Who moves to a smaller one is brought within it at once.
//
//   npx tsx examples/limits-by-plan.ts      says how to sign in; do it some times, then
//   curl -X PUT localhost:3000/plan/free
import { randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import sessionLimits from 'fastify-token-registry/session-limits'

const plans = { free: 1, team: 3, enterprise: Infinity }
type Plan = keyof typeof plans

/** In a real service, a column of the table of users. */
const planOf = new Map<string, Plan>([['ada', 'team']])

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64') })
await app.register(sessionLimits, {
  // Asked at each sign-in. Should it fail, nobody signs in.
  limits: [{ per: 'user', max: async ({ sub }) => plans[planOf.get(sub) ?? 'free'], onExceed: 'end-oldest' }]
})

app.post('/login', async request => await request.startSession({ sub: 'ada' }))

app.put<{ Params: { plan: Plan } }>('/plan/:plan', {
  schema: { params: { type: 'object', properties: { plan: { enum: Object.keys(plans) } } } }
}, async request => {
  planOf.set('ada', request.params.plan)
  return { ended: await app.sessionLimits.enforce({ sub: 'ada' }) }
})

app.get('/sessions', async () => ({ count: await app.tokenRegistry.count({ sub: 'ada' }) }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login`)
