import { randomBytes, randomUUID } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import Fastify from 'fastify'
import tokenRegistry from 'fastify-token-registry'
import { isCallName, type CallName } from './calls.ts'
import { median, quantile } from './statistics.ts'

// The calls of the registry, in a process of their own: `in-process.ts <call>…` tells the Timing of each.

/** ns a call: the median of the samples, and their quartiles */
export interface Timing {
  name: CallName
  median: number
  q1: number
  q3: number
}

/** How a call is timed: by a loop long enough for the clock not to matter. Each has its own, compiled for it alone. */
interface Sample {
  /** What the loop takes, a call for each; making it takes no part in the time. */
  over: () => string[] | Promise<string[]>
  loop: (items: readonly string[]) => void | Promise<void>
}

const WARM_UP = 50
const SAMPLES = 200
const LENGTH = 200
const DENIED = 10_000
const HOUR = 3_600_000

const app = Fastify()
await app.register(tokenRegistry, { secret: randomBytes(32).toString('base64'), cache: false })
await app.ready()
const { tokenRegistry: registry } = app

async function issue (subs: readonly string[]): Promise<string[]> {
  const issued = await Promise.all(subs.map(async sub => await registry.issue({ sub })))
  return issued.map(({ token }) => token)
}

const subjects = Array.from({ length: 1000 }, (_, i) => `user-${i}`)
const newcomers = Array.from({ length: 10_000 }, (_, i) => `newcomer-${i}`)
const tokens: string[] = []
for (let i = 0; i < 10; i++) tokens.push(...await issue(subjects))

const jtis = Array.from({ length: 2 * DENIED }, () => randomUUID())
for (const jti of jtis.slice(0, DENIED)) await registry.denylist.add(jti, Date.now() + HOUR)
// In random order: every other one is on the list.
jtis.sort()

let position = 0
/** The next part of a list, round and round. */
function part (items: readonly string[], length = LENGTH): string[] {
  position = position + 2 * length > items.length ? 0 : position + length
  return items.slice(position, position + length)
}

const samples: Readonly<Record<CallName, Sample>> = {
  issue: {
    over: () => part(newcomers),
    async loop (subs) {
      for (const sub of subs) await registry.issue({ sub })
    }
  },
  save: {
    over: () => Array.from({ length: LENGTH }, () => `adopted-${randomBytes(32).toString('base64url')}`),
    async loop (adopted) {
      for (const token of adopted) await registry.save(token, { sub: token.slice(-2) })
    }
  },
  verify: {
    over: () => part(tokens),
    async loop (tokens) {
      for (const token of tokens) await registry.verify(token)
    }
  },
  get: {
    over: () => part(tokens),
    async loop (tokens) {
      for (const token of tokens) await registry.get(token)
    }
  },
  list: {
    over: () => part(subjects),
    async loop (subs) {
      for (const sub of subs) await registry.list({ sub })
    }
  },
  rotate: {
    over: async () => await issue(part(newcomers)),
    async loop (tokens) {
      for (const token of tokens) await registry.rotate(token)
    }
  },
  'denylist.has': {
    over: () => part(jtis, 10 * LENGTH),
    loop (jtis) {
      for (const jti of jtis) registry.denylist.has(jti)
    }
  },
  revokeAll: {
    async over () {
      // In several turns of the event loop, as sign-ins come.
      for (let i = 0; i < 20; i++) {
        await issue(Array<string>(500).fill('everywhere'))
        await setImmediate()
      }
      return ['everywhere']
    },
    async loop (subs) {
      for (const sub of subs) await registry.revokeAll({ sub })
    }
  }
}

async function time (name: CallName): Promise<Timing> {
  const { over, loop } = samples[name]
  const times: number[] = []
  const count = name === 'revokeAll' ? 20 : SAMPLES
  for (let i = -Math.min(WARM_UP, count); i < count; i++) {
    const items = await over()
    const from = process.hrtime.bigint()
    await loop(items)
    const ns = Number(process.hrtime.bigint() - from) / items.length
    if (i >= 0) times.push(ns)
  }
  return { name, median: median(times), q1: quantile(times, 0.25), q3: quantile(times, 0.75) }
}

for (const name of process.argv.slice(2).filter(isCallName)) process.send?.(await time(name))
process.once('disconnect', () => process.exit())
