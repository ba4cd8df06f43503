import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { createRedisStore, type RedisStoreOptions } from '../../plugins/redis-store/index.ts'
import type { Ending, SessionRecord, Subject, TokenRegistry, TokenUse } from '../../plugins/token-registry/index.ts'
import { adoptedId } from '../../plugins/token-registry/token.ts'
import { build, newSecret } from '../support/build.ts'
import { linearize, type Step } from '../support/linearizable.ts'
import { redisCluster, sharedRedis } from '../support/redis.ts'

// MODEL_SECONDS=60 MODEL_SEED=… npx tap run test/redis-store/model.test.ts --disable-coverage --timeout=180

const SECONDS = Number(process.env['MODEL_SECONDS'] ?? 8)
/** It repeats what is done, not when it is answered. */
const SEED = Number(process.env['MODEL_SEED'] ?? randomBytes(4).readUInt32BE())
const INSTANCES = 3
const WORKERS = 8
/** Operations of a worker in a round, one after the other. */
const OPERATIONS = 3
const WINDOW = 400
const MAX_STALENESS = 500
/** Whose sessions expire: few of the others live to see it. */
const FLEETING: Subject = { tenant: '', sub: 'dave' }
const LASTING: readonly Subject[] = [{ tenant: '', sub: 'alice' }, { tenant: '', sub: 'b*[b]?{x}\n"ü' }, { tenant: 't{1}', sub: 'alice' }]
const SUBJECTS = [...LASTING, FLEETING]

/** Why a session is dead, as the code of the error tells it. */
type Death = 'REVOKED' | 'REUSED' | 'EXPIRED'

/** A session, as far as answers depend on it. */
type State =
  | { is: 'absent' }
  | { is: 'live', generation: number, revision: number, rotatedAt: number | null }
  | { is: 'dead', by: Death }

type Live = Extract<State, { is: 'live' }>
type Next = (state: State) => State[]

/** What an operation was answered: a value, or the code of an error, without `FST_TOKEN_` or `FST_SESSION_`. */
type Answer<T> = { value: T } | { code: string }

/** An operation that was answered. */
interface Done<T> {
  answer: Answer<T>
  instance: number
  /** By the monotonic clock. */
  from: number
  to: number
  /** By the clock of the machine, which is the clock of Redis too: as instances know it, since `since` at the latest, until `until` at the earliest. */
  since: number
  until: number
}

/** A session, or a token that is to become one, and what was heard of it. */
class Subjected {
  readonly id: string
  readonly subject: Subject
  readonly use: TokenUse
  readonly adopted: boolean
  /** By generation. */
  readonly tokens: string[]
  readonly origin: Subjected | null
  expiresAt = Infinity
  states: State[] = [{ is: 'absent' }]
  steps: Array<Step<State>> = []
  ending: Ending | null = null
  /** When it was known to be dead, by the monotonic clock. */
  deadSince = Infinity

  constructor (id: string, subject: Subject, use: TokenUse, token: string, { adopted = false, origin = null }: { adopted?: boolean, origin?: Subjected | null } = {}) {
    this.id = id
    this.subject = subject
    this.use = use
    this.adopted = adopted
    this.tokens = [token]
    this.origin = origin
  }

  get lives (): boolean {
    return this.states.some(({ is }) => is === 'live')
  }

  /** Says what was answered; `stale` and `changes` as of a step. */
  heard<T> (what: string, { from, to, instance, answer }: Done<T>, next: Next, { stale = 0, changes = false } = {}): void {
    this.steps.push({ what: `${what} at ${instance}: ${JSON.stringify(answer)?.slice(0, 400)}`, from, to, instance, stale, changes, next })
  }

  /** What an operation may find of a session that has a deadline: itself, expired, or either. */
  found ({ since, until }: Pick<Done<unknown>, 'since' | 'until'>, next: Next): Next {
    return state => {
      if (state.is !== 'live' || until < this.expiresAt) return next(state)
      const expired = next({ is: 'dead', by: 'EXPIRED' })
      return since >= this.expiresAt ? expired : [...next(state), ...expired]
    }
  }

  /** As `found`, by who changes nothing, and knows the clock only roughly. */
  seen (done: Pick<Done<unknown>, 'since' | 'until'>, holds: (state: State) => boolean): Next {
    return state => {
      if (state.is !== 'live' || done.until < this.expiresAt) return holds(state) ? [state] : []
      const expired: State = { is: 'dead', by: 'EXPIRED' }
      if (done.since >= this.expiresAt) return holds(expired) ? [expired] : []
      return holds(state) || holds(expired) ? [state] : []
    }
  }

  /** Whether an error tells why it is dead; at the very deadline, Redis may not say yet that it is over. */
  tells (code: string, by: Death, { since }: { since: number }): boolean {
    return code === by || (code === 'INVALID' && by === 'EXPIRED' && since < this.expiresAt)
  }
}

/** The same numbers for the same seed (mulberry32). */
class Random {
  #state: number

  constructor (seed: number) {
    this.#state = seed >>> 0
  }

  next (): number {
    this.#state = this.#state + 0x6D2B79F5 >>> 0
    let mixed = Math.imul(this.#state ^ this.#state >>> 15, this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32
  }

  below (count: number): number {
    return Math.floor(this.next() * count)
  }

  chance (share: number): boolean {
    return this.next() < share
  }

  of<T> (items: readonly T[]): T | undefined {
    return items[this.below(items.length)]
  }
}

/** Three instances on one Redis, and all that is known of their sessions. */
class Model {
  readonly registries: TokenRegistry[] = []
  readonly counts: Record<string, number> = {}
  /** How often each session's ending was told, and each expiry. */
  readonly told = new Map<string, number>()
  readonly random: Random
  /** What may have changed since it was settled last. */
  readonly open = new Set<Subjected>()
  readonly graves: Subjected[] = []
  readonly #revokeAlls: Array<{ label: string, except: readonly string[], subject: Subject, done: Done<number> }> = []
  readonly #reuses: Array<{ origin: Subjected, done: Done<unknown> }> = []
  readonly #lists: Array<{ subject: Subject, done: Done<SessionRecord[]> }> = []
  /** Which instance made a generation. Others who presented the same token were given it again, and learn of it as of any change. */
  readonly #rotatedBy = new Map<string, number>()
  #labels = 0

  constructor (seed: number) {
    this.random = new Random(seed)
  }

  async start (t: Test, where: RedisStoreOptions): Promise<void> {
    const [secret, keyPrefix] = [newSecret(), `${randomBytes(6).toString('base64url')}:`]
    for (let i = 0; i < INSTANCES; i++) {
      const store = await createRedisStore({ ...where, keyPrefix }, (_error, message) => t.comment(message))
      t.teardown(async () => await store.close())
      const { tokenRegistry } = await build(t, { secret, store, reuseWindow: WINDOW, cache: { maxStaleness: MAX_STALENESS } })
      tokenRegistry.addHook('onEnd', session => { this.told.set(session.id, (this.told.get(session.id) ?? 0) + 1) })
      tokenRegistry.addHook('postRotate', ({ id, generation }) => { this.#rotatedBy.set(`${id}:${generation}`, i) })
      this.registries.push(tokenRegistry)
    }
  }

  async round (): Promise<void> {
    await Promise.all(Array.from({ length: WORKERS }, async () => {
      for (let i = 0; i < OPERATIONS; i++) await this.#act()
    }))
    await this.#settle()
  }

  async #do<T> (name: string, work: (registry: TokenRegistry) => Promise<T>, instance = this.random.below(INSTANCES)): Promise<Done<T>> {
    const registry = this.registries[instance]
    if (registry === undefined) throw new RangeError('no such instance')
    this.counts[name] = (this.counts[name] ?? 0) + 1
    // Scripts have the clock of Redis, to the ms; instances know it as well as answers told them.
    const error = (): number => Math.abs(registry.now() - Date.now()) + 5
    const [from, since, early] = [performance.now(), Date.now(), error()]
    let answer: Answer<T>
    try {
      answer = { value: await work(registry) }
    } catch (error) {
      const code: unknown = Reflect.get(Object(error), 'code')
      const known = /^FST_(?:TOKEN|SESSION)_(REVOKED|REUSED|EXPIRED|INVALID|EXISTS|CONFLICT)$/.exec(String(code))?.[1]
      if (known === undefined) throw error
      answer = { code: known }
    }
    const slack = Math.max(early, error())
    return { answer, instance, from, to: performance.now(), since: since - slack, until: Date.now() + slack }
  }

  /** One of those that were made of late, mostly, so that operations meet. */
  #pick (among: (one: Subjected) => boolean): Subjected | undefined {
    const all = [...this.open].filter(one => one.steps.length > 0 || one.lives).filter(among)
    return this.random.chance(0.7) ? this.random.of(all.slice(-4)) : this.random.of(all)
  }

  async #act (): Promise<void> {
    const { random } = this
    // All that lives is looked at after each round.
    if (this.open.size > 60 && random.chance(0.1)) return await this.#revokeAll()
    const dice = random.below(100)
    if (dice < 18) return await this.#issue()
    if (dice < 24) return await this.#save()
    if (dice < 44) return await this.#rotate()
    if (dice < 52) return await this.#consume()
    if (dice < 60) return await this.#revoke()
    if (dice < 63) return await this.#revokeAll()
    if (dice < 74) return await this.#update()
    if (dice < 92) return await this.#verify(this.#pick(one => one.use !== 'once'))
    if (dice < 97) return await this.#get(this.#pick(() => true))
    await this.#list()
  }

  #subject (among: readonly Subject[] = SUBJECTS): Subject {
    return this.random.of(among) ?? FLEETING
  }

  #ttl (subject: Subject): number {
    return subject === FLEETING || this.random.chance(0.1) ? 1000 + this.random.below(1000) : 3_600_000
  }

  async #issue (): Promise<void> {
    const { random } = this
    const origin = random.chance(0.3) ? this.#pick(one => one.use === 'once') ?? null : null
    const subject = origin?.subject ?? this.#subject()
    const use = origin !== null ? 'session' : random.of(['session', 'session', 'refresh', 'once'] as const) ?? 'session'
    const data = { ...subject, use, ttl: this.#ttl(subject), ...origin !== null && { origin: origin.id } }
    const done = await this.#do('issue', registry => registry.issue(data))
    const { answer } = done
    if (origin !== null) {
      const consumed = (state: State): boolean => state.is === 'live' && state.generation > 0
      origin.heard('issued from it', { ...done, answer: 'code' in answer ? answer : { value: 'session' } }, origin.found(done, state => consumed(state) === 'value' in answer ? [state] : []))
    }
    if (!('value' in answer)) return
    const { token, session } = answer.value
    const made = new Subjected(session.id, subject, use, token, { origin })
    this.#made(made, session)
    made.heard('issue', done, state => state.is === 'absent' ? [fresh] : [])
  }

  #made (made: Subjected, { expiresAt }: SessionRecord): void {
    made.expiresAt = expiresAt
    this.open.add(made)
  }

  /** A token that the caller made; sometimes one that was saved already, or by two at once. */
  async #save (): Promise<void> {
    const { random } = this
    const again = random.chance(0.3) ? this.#pick(one => one.adopted) : undefined
    if (again !== undefined) return await this.#saveOne(again)
    const subject = this.#subject()
    const use = random.chance(0.2) ? 'once' : 'session'
    const made = Array.from({ length: random.chance(0.3) ? 5 : 1 }, () => {
      const token = randomBytes(32).toString('base64url')
      return new Subjected(adoptedId(token), subject, use, token, { adopted: true })
    })
    const [first] = made
    if (first !== undefined && made.length === 1) {
      await Promise.all(Array.from({ length: random.chance(0.3) ? 2 : 1 }, async () => await this.#saveOne(first)))
      return
    }
    const ttl = this.#ttl(subject)
    const done = await this.#do('saveBatch', registry => registry.saveBatch(made.map(({ tokens: [token = ''] }) => ({ token, data: { ...subject, use, ttl } }))))
    if (!('value' in done.answer)) throw new Error(`a batch was refused: ${done.answer.code}`)
    for (const [index, one] of made.entries()) {
      const session = done.answer.value[index]
      if (session?.id !== one.id) throw new Error('a batch is not in order')
      this.#made(one, session)
      one.heard('saveBatch', { ...done, answer: { value: session.id } }, state => state.is === 'absent' ? [fresh] : [])
    }
  }

  async #saveOne (one: Subjected): Promise<void> {
    const done = await this.#do('save', registry => registry.save(one.tokens[0] ?? '', { ...one.subject, use: one.use }, this.#ttl(one.subject)))
    if ('value' in done.answer) this.#made(one, done.answer.value)
    const { answer } = done
    one.heard('save', done, 'value' in answer
      ? state => state.is === 'absent' ? [fresh] : []
      : state => answer.code === 'EXISTS' && state.is !== 'absent' ? [state] : [])
  }

  async #rotate (): Promise<void> {
    const one = this.#pick(({ use, adopted }) => use !== 'once' && !adopted)
    if (one === undefined) return
    const n = this.#generation(one)
    const done = await this.#do('rotate', registry => registry.rotate(one.tokens[n] ?? ''))
    const { answer } = done
    if ('value' in answer) this.#succeeded(one, answer.value)
    one.heard(`rotate ${n}`, done, one.found(done, state => {
      if (state.is !== 'live') return 'code' in answer && state.is === 'dead' && one.tells(answer.code, state.by, done) ? [state] : []
      const open = windowOf(state, done)
      if ('code' in answer) return answer.code === 'REUSED' && (n < state.generation - 1 || (n === state.generation - 1 && open !== 'open')) ? [{ is: 'dead', by: 'REUSED' }] : []
      const { generation, revision, rotatedAt } = answer.value.session
      if (revision !== state.revision || generation !== n + 1) return []
      if (n === state.generation) return [{ ...state, generation, rotatedAt }]
      return n === state.generation - 1 && rotatedAt === state.rotatedAt && open !== 'shut' ? [state] : []
    }), { changes: 'value' in answer && this.#rotatedBy.get(`${one.id}:${n + 1}`) === done.instance })
  }

  /** A token is the same whoever gives it: there is one line of successors. */
  #succeeded (one: Subjected, { token, session: { generation } }: { token: string, session: SessionRecord }): void {
    const known = one.tokens[generation]
    if (known !== undefined && known !== token) throw new Error(`the session ${one.id} has two tokens of generation ${generation}`)
    one.tokens[generation] = token
  }

  /** Mostly the newest. */
  #generation (one: Subjected): number {
    const newest = one.tokens.length - 1
    return this.random.chance(0.8) ? newest : Math.max(0, newest - 1 - this.random.below(2))
  }

  async #consume (): Promise<void> {
    const one = this.#pick(({ use }) => use === 'once')
    if (one === undefined) return
    const done = await this.#do('consume', registry => registry.consume(one.tokens[0] ?? ''))
    const { answer } = done
    if ('code' in answer && answer.code === 'REUSED') this.#reuses.push({ origin: one, done })
    one.heard('consume', done, one.found(done, state => {
      if (state.is !== 'live') return 'code' in answer && state.is === 'dead' && one.tells(answer.code, state.by, done) ? [state] : []
      if ('value' in answer) return state.generation === 0 && answer.value.generation === 1 ? [{ ...state, generation: 1, rotatedAt: answer.value.rotatedAt }] : []
      return answer.code === 'REUSED' && state.generation > 0 ? [{ is: 'dead', by: 'REUSED' }] : []
    }), { changes: 'value' in answer })
  }

  async #revoke (): Promise<void> {
    const one = this.#pick(({ subject }) => subject !== FLEETING || this.random.chance(0.1))
    if (one === undefined) return
    const byId = this.random.chance(0.5)
    const done = await this.#do('revoke', registry => byId
      ? registry.revokeById(one.id, 'revoked', { ...one.subject, by: 'revoke' })
      : registry.revoke(one.tokens[this.#generation(one)] ?? ''))
    const { answer } = done
    one.heard('revoke', done, one.found(done, state => {
      if ('code' in answer || answer.value !== (state.is === 'live')) return []
      return answer.value ? [{ is: 'dead', by: 'REVOKED' }] : [state]
    }), { changes: true })
  }

  async #revokeAll (): Promise<void> {
    const subject = this.#subject(LASTING)
    const spared = this.random.chance(0.3) ? this.#pick(one => one.subject === subject) : undefined
    const except = spared === undefined ? [] : [spared.id]
    const label = `all-${this.#labels++}`
    const done = await this.#do('revokeAll', registry => registry.revokeAll({ ...subject, except, by: label }))
    this.#revokeAlls.push({ label, except, subject, done })
  }

  async #update (): Promise<void> {
    const one = this.#pick(() => true)
    if (one === undefined) return
    const known = one.states.find((state): state is Live => state.is === 'live')?.revision ?? 0
    const wanted = this.random.chance(0.5) ? known + this.random.below(2) : undefined
    const done = await this.#do('update', registry => registry.update(one.id, { meta: { deviceId: `device-${this.#labels++}` } }, wanted))
    const { answer } = done
    one.heard(`update at ${wanted}`, done, one.found(done, state => {
      if (state.is !== 'live') return 'value' in answer && answer.value === null ? [state] : []
      const conflicts = wanted !== undefined && wanted !== state.revision
      if ('code' in answer) return answer.code === 'CONFLICT' && conflicts ? [state] : []
      const revision = state.revision + 1
      return !conflicts && answer.value?.revision === revision && answer.value.generation === state.generation ? [{ ...state, revision }] : []
    }), { changes: 'value' in answer && answer.value !== null })
  }

  async #verify (one: Subjected | undefined, instance?: number, n = one === undefined ? 0 : this.#generation(one)): Promise<void> {
    if (one === undefined || one.use === 'once' || one.use === 'refresh') return
    const done = await this.#do('verify', registry => registry.verify(one.tokens[n] ?? ''), instance)
    const { answer } = done
    one.heard(`verify ${n}`, done, one.seen(done, state => {
      if (state.is !== 'live') return 'code' in answer && state.is === 'dead' && one.tells(answer.code, state.by, done)
      const open = windowOf(state, done)
      if ('code' in answer) return !one.adopted && answer.code === 'REUSED' && (n < state.generation - 1 || (n === state.generation - 1 && open !== 'open'))
      const { generation, revision } = answer.value.session
      if (revision !== state.revision || generation !== state.generation) return false
      return one.adopted || n >= state.generation || (n === state.generation - 1 && open !== 'shut')
    }), { stale: 'value' in answer ? MAX_STALENESS : 0 })
  }

  async #get (one: Subjected | undefined, instance?: number): Promise<void> {
    if (one === undefined) return
    const done = await this.#do('get', registry => registry.getById(one.id), instance)
    if ('value' in done.answer) one.heard('get', done, this.#reads(one, done, done.answer.value))
    else throw new Error(`get failed: ${done.answer.code}`)
  }

  #reads (one: Subjected, done: Done<unknown>, found: SessionRecord | null): Next {
    return one.seen(done, state => state.is === 'live'
      ? found !== null && found.generation === state.generation && found.revision === state.revision && found.rotatedAt === state.rotatedAt
      : found === null)
  }

  async #list (subject = this.#subject(), limit = 500, instance?: number): Promise<void> {
    const done = await this.#do('list', async registry => {
      const all: SessionRecord[] = []
      let cursor: string | null = null
      do {
        const page: Awaited<ReturnType<TokenRegistry['list']>> = await registry.list({ ...subject, limit, cursor })
        all.push(...page.sessions)
        cursor = page.cursor
      } while (cursor !== null)
      if (new Set(all.map(({ id }) => id)).size < all.length) throw new Error('a session was listed twice')
      return all
    }, instance)
    this.#lists.push({ subject, done })
  }

  /** Nothing is under way any more: looks what became of all, and whether it can have come so. */
  async #settle (): Promise<void> {
    // Who is dead tells by whom.
    await Promise.all([...this.open].map(async one => {
      const done = await this.#do('explain', registry => registry.explain(one.id))
      if ('value' in done.answer) one.ending = done.answer.value
    }))
    await Promise.all([...this.open].map(async one => {
      for (let instance = 0; instance < INSTANCES; instance++) {
        await this.#get(one, instance)
        for (let n = Math.max(0, one.tokens.length - 3); n < one.tokens.length; n++) await this.#verify(one, instance, n)
      }
    }))
    await Promise.all(SUBJECTS.flatMap(subject => this.registries.map(async (_, instance) => await this.#list(subject, instance === 0 ? 2 : 500, instance))))
    const counted = await Promise.all(SUBJECTS.map(async (subject, i) => ({ subject, done: await this.#do('count', registry => registry.count(subject), i % INSTANCES) })))

    this.#explain()
    for (const one of this.open) {
      const states = linearize(one.states, one.steps)
      if (states.length === 0) throw new Error(`no order explains what was answered of ${one.id} (${one.use}${one.adopted ? ', adopted' : ''}, ${JSON.stringify(one.states)}, until ${one.expiresAt}, ending ${JSON.stringify(one.ending)}):\n${story(one.steps)}`)
      one.states = states
      one.steps = []
      if (one.lives) continue
      this.open.delete(one)
      one.deadSince = performance.now()
      this.graves.push(one)
    }
    for (const { subject, done } of counted) {
      const own = [...this.open].filter(one => one.subject === subject && one.use !== 'once')
      const sure = own.filter(one => one.expiresAt > done.until).length
      const value = 'value' in done.answer ? done.answer.value : NaN
      const dying = [...own, ...this.graves.filter(one => one.subject === subject && one.use !== 'once')].filter(one => one.expiresAt <= done.until && one.expiresAt > done.since).length
      if (!(value >= sure && value <= sure + dying)) throw new Error(`${JSON.stringify(subject)} has ${value} sessions, ${sure} to ${sure + dying} were to be counted`)
    }
    await this.#haunt()
  }

  /** What concerned many sessions, as steps of each. */
  #explain (): void {
    for (const { label, except, subject, done } of this.#revokeAlls.splice(0)) {
      let count = 0
      for (const one of this.open) {
        if (one.subject !== subject || except.includes(one.id)) continue
        const ended = one.ending?.by === label
        if (ended && one.use !== 'once') count++
        one.heard(`${label}${ended ? ' ended it' : ''}`, done, one.found(done, state => ended === (state.is === 'live') ? [ended ? { is: 'dead', by: 'REVOKED' } : state] : []), { changes: ended })
      }
      if (!('value' in done.answer) || done.answer.value !== count) throw new Error(`${label} answered ${JSON.stringify(done.answer)}, and ended ${count}`)
      for (const list of this.#lists) {
        // While a subject's index is aside, its sessions are not listed: they are about to end.
        if (list.subject === subject && list.done.from < done.to && list.done.to > done.from) this.#lists.splice(this.#lists.indexOf(list), 1)
      }
    }
    for (const { subject, done } of this.#lists.splice(0)) {
      if (!('value' in done.answer)) throw new Error(`list failed: ${done.answer.code}`)
      const found = new Map(done.answer.value.map(session => [session.id, session]))
      for (const one of this.open) {
        if (one.subject !== subject || one.use === 'once') continue
        const session = found.get(one.id) ?? null
        found.delete(one.id)
        one.heard('list', { ...done, answer: { value: session } }, this.#reads(one, done, session))
      }
      if (found.size > 0) throw new Error(`the list of ${JSON.stringify(subject)} has what is dead or was never made: ${[...found.keys()].join()}`)
    }
    for (const { origin, done } of this.#reuses.splice(0)) {
      // One of those who were told so ended it; which, nobody says.
      for (const one of this.open) {
        if (one.origin !== origin || origin.ending?.reason !== 'reuse_recent') continue
        const ended = one.ending?.op === origin.ending.op
        one.heard(`reuse of ${origin.id}`, done, one.found(done, state => {
          if (state.is !== 'live') return [state]
          return ended ? [{ is: 'dead', by: 'REUSED' }] : []
        }))
      }
    }
  }

  /** Nobody lets in who is dead for longer than what was proved of him may be believed. */
  async #haunt (): Promise<void> {
    const due = this.graves.filter(({ deadSince }) => performance.now() - deadSince > MAX_STALENESS).slice(0, 20)
    for (const one of due) this.graves.splice(this.graves.indexOf(one), 1)
    await Promise.all(due.flatMap(one => this.registries.flatMap((_, instance) => one.tokens.map(async (_, n) => await this.#verify(one, instance, n)))))
    for (const one of due) {
      if (linearize(one.states, one.steps).length === 0) throw new Error(`${one.id} is dead, and was let in (${JSON.stringify(one.states)}):\n${story(one.steps)}`)
      one.steps = []
    }
  }
}

const fresh: State = { is: 'live', generation: 0, revision: 0, rotatedAt: null }

/** Whether the token before the current one was good still: for certain, not at all, or it was over meanwhile. */
function windowOf ({ rotatedAt }: Live, { since, until }: Done<unknown>): 'open' | 'shut' | 'either' {
  if (rotatedAt === null || since - rotatedAt >= WINDOW) return 'shut'
  return until - rotatedAt < WINDOW ? 'open' : 'either'
}

function story (steps: ReadonlyArray<Step<State>>): string {
  return steps.toSorted((a, b) => a.from - b.from).map(({ what, from, to }) => `${from.toFixed(2)} to ${to.toFixed(2)}: ${what}`).join('\n')
}

async function run (t: Test, where: RedisStoreOptions, seconds: number): Promise<void> {
  t.comment(`MODEL_SEED=${SEED}`)
  const model = new Model(SEED)
  await model.start(t, where)
  const until = performance.now() + seconds * 1000
  let rounds = 0
  try {
    while (performance.now() < until) {
      await model.round()
      rounds++
    }
  } catch (error) {
    t.fail(`round ${rounds} with MODEL_SEED=${SEED}`, { error })
  }
  await Promise.all(model.registries.map(async registry => await registry.close()))
  t.same([...model.told].filter(([, times]) => times > 1), [], 'no ending was told twice')
  t.comment(`${rounds} rounds: ${Object.entries(model.counts).map(([name, count]) => `${count} ${name}`).join(', ')}; ${model.told.size} endings told`)
  t.ok(rounds > 0, 'all that was answered can have come so')
}

t.test('three instances agree with a model, standalone', async t => await run(t, { url: (await sharedRedis()).url }, SECONDS * 5 / 8))

t.test('three instances agree with a model, in a Cluster', async t => await run(t, { nodes: (await redisCluster(t, { replicas: 0 })).nodes }, SECONDS * 3 / 8))
