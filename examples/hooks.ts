// A line for each operation (for a service: in a log or a table), a rule that can stop one, and a word to the owner when a token was stolen.
//
//   npx tsx examples/hooks.ts
import { randomBytes } from 'node:crypto'
import createError from '@fastify/error'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'

const Banned = createError<[string]>('APP_BANNED', '%s may not sign in', 403)

export const app = Fastify()
await app.register(tokenRegistry, { secret: process.env['TOKEN_SECRET'] ?? randomBytes(32).toString('base64'), reuseWindow: 0 })
const { tokenRegistry: registry } = app

// A pre hook may change what is saved, or throw to stop it: nothing has happened yet.
registry.addHook('preSave', ({ sub }) => {
  if (sub === 'mallory') throw new Banned(sub)
})
registry.addHook('preSave', data => ({ ...data, version: 'v1' }), { priority: -1 })

// Post hooks are told what happened. `op` is the same in all hooks of one operation.
registry.addHook('postSave', ({ id, sub }, { op }) => { console.log(`${op} issued ${id} for ${sub}`) })
registry.addHook('postRotate', ({ id, generation }, { op }) => { console.log(`${op} rotated ${id} to generation ${generation}`) })
// Every ending, once, whatever caused it.
registry.addHook('onEnd', ({ id }, { op, reason }) => { console.log(`${op} ended ${id}: ${reason}`) })
registry.addHook('onReuse', ({ sub }) => { console.log(`warn ${sub}: an old token was used again`) })
// A hook that fails after the fact undoes nothing; it is told here.
registry.addHook('onError', error => { console.log(`failed: ${error.message}`) })

app.post<{ Params: { sub: string } }>('/login/:sub', async request => {
  const { token } = await request.startSession({ sub: request.params.sub })
  return { token }
})
app.post('/rotate', { config: { session: true } }, async request => {
  const { token } = await request.rotateSession()
  return { token }
})
app.post('/logout', { config: { session: true } }, async request => ({ ended: await request.revokeSession() }))

const address = await app.listen({ port: Number(process.env['PORT'] ?? 3000) })
console.log(`curl -X POST ${address}/login/ada`)
