// One instance of a service whose tenant is always full: users sign in, sign out, and some are killed in between. Started by tests.
import { setTimeout } from 'node:timers/promises'
import Fastify from 'fastify'
import { createRedisStore } from '../../plugins/redis-store/index.ts'
import sessionLimits from '../../plugins/session-limits/index.ts'
import tokenRegistry from '../../plugins/token-registry/index.ts'

const { url, keyPrefix, secret, max, users } = JSON.parse(process.argv[2] ?? '') as { url: string, keyPrefix: string, secret: string, max: number, users: number }
const app = Fastify()
await app.register(tokenRegistry, { secret, store: await createRedisStore({ url, keyPrefix, keepEndings: '1s' }) })
await app.register(sessionLimits, { limits: [{ per: 'tenant', max }] })
const { tokenRegistry: registry } = app

const own: string[] = []
await Promise.all(Array.from({ length: users }, async (_, user) => {
  for (let turn = 0; ; turn++) {
    const issued = await registry.issue({ sub: `user ${user}` }).catch(() => null)
    if (issued !== null) own.push(issued.session.id)
    if (issued === null || turn % 3 === 0) {
      const id = own.splice(Math.floor(Math.random() * own.length), 1)[0]
      if (id !== undefined) await registry.revokeById(id).catch(() => {})
    }
    if (turn === 0 && user === 0) console.log('signing in')
    await setTimeout(10) // others need the processor too
  }
}))
