import { randomBytes } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createRedisStore } from '../../plugins/redis-store/index.ts'
import sessionLimits, { type LimitOption } from '../../plugins/session-limits/index.ts'
import { memoryStore, type SessionLimitError, type SessionRecord, type TokenStore } from '../../plugins/token-registry/index.ts'
import { build } from '../support/build.ts'
import { Clock } from '../support/clock.ts'
import { newPrefix } from '../support/redis-store.ts'
import { redisCluster, sharedRedis } from '../support/redis.ts'

// LIMIT_SEQUENCES=500 LIMIT_SEED=… npx tap run test/session-limits/model.test.ts --disable-coverage --timeout=600

const SEQUENCES = Number(process.env['LIMIT_SEQUENCES'] ?? 20)
const SEED = Number(process.env['LIMIT_SEED'] ?? randomBytes(4).readUInt32BE())
const STEPS = 60
/** ms that a fleeting session lives: half of it is more than a step takes. */
const FLEETING = 2000

type Strategy = NonNullable<LimitOption['onExceed']>
const strategies: readonly Strategy[] = ['refuse', 'end-oldest', 'end-least-recently-used']

/** Repeats what is decided, for each store the same. */
class Dice {
  #state: number

  constructor (seed: number) {
    this.#state = seed >>> 0
  }

  /** mulberry32 */
  next (below: number): number {
    this.#state = (this.#state + 0x6D2B79F5) >>> 0
    let mixed = Math.imul(this.#state ^ this.#state >>> 15, this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) % below
  }

  of<T> (list: readonly T[]): T {
    return list[this.next(list.length)] as T // below its length
  }
}

interface Modelled {
  id: string
  token: string
  device: string | undefined
  client: string | null
  plan: string
  lastUsedAt: number
  /** Infinity where it outlives the sequence. */
  expiresAt: number
}

interface Rule {
  name: string
  max: number
  onExceed: Strategy
  key: (session: Pick<Modelled, 'device' | 'client' | 'plan'>) => string | null
}

/** What limits say, in the plainest way: over a list of what lives, the oldest first. */
class Model {
  live: Modelled[] = []
  readonly rules: Rule[]

  constructor (dice: Dice) {
    this.rules = [
      { name: 'per device', max: 2, onExceed: dice.of(strategies), key: ({ device }) => device ?? null },
      { name: 'per function', max: 2, onExceed: dice.of(strategies), key: ({ plan }) => plan === 'none' ? null : plan },
      { name: 'per client', max: 3, onExceed: dice.of(strategies), key: ({ client }) => String(client) },
      { name: 'per user', max: 5, onExceed: dice.of(strategies), key: () => 'all' }
    ]
  }

  /** Who ends when a session is issued, or which limit refuses it. */
  judge (draft: Pick<Modelled, 'device' | 'client' | 'plan'>, named: readonly string[]): { gone: Map<string, string>, refused: [string, number] | null } {
    const gone = new Map(this.live.filter(({ id }) => named.includes(id)).map(({ id }) => [id, 'replaced']))
    for (const { name, max, onExceed, key } of this.rules) {
      const own = key(draft)
      if (own === null) continue
      const counted = this.live.filter(session => !gone.has(session.id) && key(session) === own)
      const excess = counted.length + 1 - max
      if (excess <= 0) continue
      const replaced = counted.filter(({ device }) => device !== undefined && device === draft.device)
      if (onExceed === 'refuse' && replaced.length < excess) return { gone: new Map(), refused: [name, counted.length] }
      const victims = onExceed === 'refuse' ? replaced : this.#inOrder(counted, onExceed)
      for (const { id } of victims.slice(0, excess)) gone.set(id, onExceed === 'refuse' ? 'replaced' : 'limit')
    }
    return { gone, refused: null }
  }

  /** Who ends when limits are enforced. */
  enforce (): Map<string, string> {
    const gone = new Map<string, string>()
    for (const { max, onExceed, key } of this.rules) {
      for (const own of new Set(this.live.map(key))) {
        if (own === null) continue
        const counted = this.live.filter(session => !gone.has(session.id) && key(session) === own)
        for (const { id } of this.#inOrder(counted, onExceed).slice(0, Math.max(0, counted.length - max))) gone.set(id, 'limit')
      }
    }
    return gone
  }

  forget (ids: { has (id: string): boolean }): void {
    this.live = this.live.filter(({ id }) => !ids.has(id))
  }

  #inOrder (sessions: Modelled[], onExceed: Strategy): Modelled[] {
    return onExceed === 'end-oldest' ? sessions : sessions.toSorted((a, b) => a.lastUsedAt - b.lastUsedAt)
  }
}

interface Opened {
  store: TokenStore
  pass: (ms: number) => Promise<void>
}

/** One sequence on one store. @returns what lived after each step, by the number of the issue */
async function play (t: Test, seed: number, { store, pass }: Opened): Promise<string[]> {
  const dice = new Dice(seed)
  const model = new Model(dice)
  const app = await build(t, { store, validator: 'none' })
  const limits = model.rules.map((rule): LimitOption => ({
    name: rule.name,
    per: rule.name === 'per function' ? ({ scope: [plan = 'none'] }) => plan === 'none' ? null : plan : rule.name.slice('per '.length) as 'user' | 'device' | 'client',
    max: () => rule.max,
    onExceed: rule.onExceed
  }))
  await app.register(sessionLimits, { limits })
  const { tokenRegistry: registry, sessionLimits: { enforce } } = app
  const told = new Map<string, string>()
  registry.addHook('onEnd', ({ id }, { reason }) => { if (reason === 'limit' || reason === 'replaced') told.set(id, reason) })

  const sub = `user ${seed}`
  const numbers = new Map<string, number>()
  const history: string[] = []
  for (let step = 0; step < STEPS; step++) {
    told.clear()
    // Nobody knows whether it still counts in what is done next.
    if (model.live.some(({ expiresAt }) => expiresAt < registry.now() + FLEETING / 2)) await wait()
    const did = await act(step)
    const { sessions } = await registry.list({ sub, limit: 500 })
    const lives = sessions.map(({ id }) => numbers.get(id)).reverse()
    const expected = model.live.map(({ id }) => numbers.get(id))
    if (JSON.stringify(lives) !== JSON.stringify(expected)) throw new Error(`seed ${seed}, step ${step}, ${did}: ${JSON.stringify({ lives, expected, rules: model.rules })}`)
    if (await registry.count({ sub }) !== expected.length) throw new Error(`seed ${seed}, step ${step}, ${did}: the count is wrong`)
    history.push(`${did} ${expected.join()}`)
  }
  await app.close()
  return history

  function expectTold (gone: ReadonlyMap<string, string>, what: string): void {
    const sorted = (map: ReadonlyMap<string, string>): string => JSON.stringify([...map].map(([id, reason]) => [numbers.get(id), reason]).sort())
    if (sorted(told) !== sorted(gone)) throw new Error(`seed ${seed}, ${what}: ${sorted(told)} ended, not ${sorted(gone)}`)
    model.forget(gone)
  }

  async function act (step: number): Promise<string> {
    switch (dice.next(12)) {
      case 0: {
        if (model.live.length === 0) return 'nothing'
        const session = dice.of(model.live)
        const rotated = await registry.rotate(session.token)
        Object.assign(session, { token: rotated.token, lastUsedAt: rotated.session.lastUsedAt })
        return 'rotate'
      }
      case 1: {
        if (model.live.length === 0) return 'nothing'
        const { id } = dice.of(model.live)
        await registry.revokeById(id)
        model.forget(new Set([id]))
        return 'revoke'
      }
      case 2: {
        if (dice.next(4) > 0) return 'nothing'
        const kept = dice.next(2) === 0 ? [] : model.live.slice(0, 1).map(({ id }) => id)
        await registry.revokeAll({ sub, except: kept })
        model.live = model.live.filter(({ id }) => kept.includes(id))
        return 'revokeAll'
      }
      case 3: {
        const rule = dice.of(model.rules)
        rule.max = 1 + dice.next(5)
        await enforce.call(app.sessionLimits, { sub })
        const gone = model.enforce()
        expectTold(gone, `step ${step}, enforce`)
        return `enforce ${rule.name} ${rule.max}`
      }
      case 4: return await wait()
      default: return await issue(step)
    }
  }

  async function wait (): Promise<string> {
    if (!model.live.some(({ expiresAt }) => expiresAt < Infinity)) return 'nothing'
    await pass(FLEETING + 10)
    model.live = model.live.filter(({ expiresAt }) => expiresAt === Infinity)
    return 'wait'
  }

  async function issue (step: number): Promise<string> {
    const draft = { device: dice.of([undefined, 'a', 'b', 'c']), client: dice.of([null, 'app', 'site']), plan: dice.of(['none', 'free', 'pro']) }
    const fleeting = dice.next(12) === 0
    const endOthers = dice.next(6) === 0 && model.live.length > 0 ? [dice.of(model.live).id] : []
    const { gone, refused } = model.judge(draft, endOthers)
    const data = {
      sub,
      client: draft.client,
      scope: [draft.plan],
      meta: draft.device === undefined ? {} : { deviceId: draft.device },
      ...endOthers.length > 0 && { endOthers },
      ...fleeting && { ttl: FLEETING }
    }
    const issued = await registry.issue(data).catch((error: SessionLimitError) => error)
    if (issued instanceof Error) {
      if (JSON.stringify([issued.limit, issued.count]) !== JSON.stringify(refused)) throw new Error(`seed ${seed}, step ${step}: refused by ${issued.limit} of ${issued.count} (${issued.message}), not ${String(refused)}`)
      return 'refused'
    }
    if (refused !== null) throw new Error(`seed ${seed}, step ${step}: not refused by ${String(refused)}`)
    expectTold(gone, `step ${step}, issue`)
    numbers.set(issued.session.id, numbers.size)
    model.live.push({ ...draft, ...pick(issued.session), token: issued.token, expiresAt: fleeting ? issued.session.expiresAt : Infinity })
    return `issue ${draft.device ?? '-'} ${String(draft.client)} ${draft.plan}`
  }
}

function pick ({ id, lastUsedAt }: SessionRecord): Pick<SessionRecord, 'id' | 'lastUsedAt'> {
  return { id, lastUsedAt }
}

t.test('any sequence of issue, rotate, revoke, expire and enforce leaves alive in every store what a model says', async t => {
  t.comment(`LIMIT_SEED=${SEED}`)
  const { nodes } = await redisCluster(t, { replicas: 0 })
  const { url } = await sharedRedis()
  const wait = async (ms: number) => { await setTimeout(ms) }
  const onRedis = async (where: { url: string } | { nodes: typeof nodes }): Promise<Opened> => {
    const store = await createRedisStore({ ...where, keyPrefix: newPrefix(), commandTimeout: '20s' }) // a busy machine is none of ours
    t.teardown(() => store.close())
    return { store, pass: wait }
  }
  const [redis, cluster] = [await onRedis({ url }), await onRedis({ nodes })]

  const seeds = Array.from({ length: SEQUENCES }, (_, index) => SEED + index * 7919)
  for (let start = 0; start < seeds.length; start += 10) {
    await Promise.all(seeds.slice(start, start + 10).map(async seed => {
      const clock = new Clock()
      const memory = memoryStore({ now: clock.now })
      const inMemory = await play(t, seed, { store: memory, pass: async ms => clock.advance(ms) })
      await memory.close()
      t.ok(inMemory.length === STEPS)
      const [onOne, onMany] = await Promise.all([play(t, seed, redis), play(t, seed, cluster)])
      // Who was used last may differ by a millisecond between stores: each was compared with its own model, which knows.
      t.equal(onOne.length, STEPS)
      t.equal(onMany.length, STEPS)
    }))
  }
})
