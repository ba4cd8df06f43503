import type { FastifyRequest } from 'fastify'
import type { Health, Observed } from '../token-registry/index.ts'
import { Anchors } from './anchors.ts'
import type { Deed } from './batch.ts'
import { plainName } from './canonical.ts'
import { Checkpoints } from './checkpoints.ts'
import { Continuity } from './continuity.ts'
import { draftOf, type AuditActor, type AuditEvent, type Draft } from './entry.ts'
import { AuditRange } from './errors.ts'
import { Feed } from './feed.ts'
import type { EntryQuery, Ledger, StoredEntry } from './ledger.ts'
import { AuditLog } from './log.ts'
import type { ResolvedOptions } from './options.ts'
import { Persons, type Kept, type Person } from './persons.ts'
import { HolderKeys } from './privacy/keys.ts'
import { Proofs, readerOf, type VerifyOptions } from './proofs.ts'
import { randomBytes } from './random.ts'
import { Reading, type AuditEntry, type AuditQuery, type ReadOptions, type ReadPage } from './reading.ts'
import { failureOf } from './recorder.ts'
import { Signer } from './signing.ts'
import { AllCopies } from './sinks/all.ts'
import { TILE } from './tree/index.ts'
import type { LogVerdict, Receipt } from './verify/index.ts'

/** Entries among which intents are looked for at once. */
const STRETCH = 20_000
/** ms that an entry may wait before something is not as it should be */
const SLOW = 1000
/** ms after which a drop is recorded at the latest, where the ledger is there. */
const DROPS = 1000

export interface AuditParts {
  options: ResolvedOptions & { ledger: Ledger }
  /** 32 bytes each: they sign cursors. */
  cursorKeys: readonly Buffer[]
  /** ms since the epoch */
  now: () => number
  log: (error: unknown, message: string) => void
  observed: <T>(observed: Observed, work: () => Promise<T>) => Promise<T>
}

/** Acts of the audit itself are recorded as somebody's. */
export interface ActOptions {
  actor?: Partial<AuditActor>
}

/** A record of who did what, which nobody can alter unseen. */
export class Audit {
  readonly #parts: AuditParts
  readonly #ledger: Ledger
  readonly #keys: HolderKeys
  readonly #log: AuditLog
  readonly #anchors: Anchors
  readonly #checkpoints: Checkpoints
  readonly #copies: AllCopies
  readonly #feed: Feed
  readonly #reading: Reading
  readonly #proofs: Proofs
  readonly #persons: Persons
  /** Public keys that checkpoints are verified by: `origin+id+base64`. The first sign. */
  readonly vkeys: readonly string[]
  #dropsTold = 0
  #dropsTimer: NodeJS.Timeout | undefined

  constructor (parts: AuditParts) {
    const { options, cursorKeys, log } = parts
    const { ledger, origin } = options
    const failed = (message: string) => (error: unknown) => log(error, message)
    this.#parts = parts
    this.#ledger = ledger
    this.#keys = new HolderKeys(ledger, options.masterKeys)
    const signer = new Signer(origin, options.signingKeys)
    this.vkeys = [...signer.vkeys, ...options.formerKeys]
    this.#anchors = new Anchors(options.anchors, failed('a checkpoint was not anchored: it will be tried again'))
    const continuity = new Continuity(ledger, readerOf(ledger), this.vkeys)
    this.#checkpoints = new Checkpoints({ ledger, signer, check: async head => await continuity.check(head), anchors: this.#anchors, interval: options.checkpointInterval, failed: failed('no checkpoint could be stored') })
    this.#copies = new AllCopies(options.copies, { timeout: options.timeout, maxQueue: options.maxQueue, failed: (error, name) => log(error, `the sink ${name} took no copies: they will be tried again`) })
    this.#feed = new Feed(ledger, failed('new entries could not be read'))
    this.#log = new AuditLog(ledger, this.#keys, {
      gathering: options.gather,
      maxQueue: options.maxQueue,
      timeout: options.timeout,
      stored: (entries, head) => {
        this.#checkpoints.grown(head)
        this.#feed.grown()
        this.#copies.add(entries)
        this.#tellDrops()
      },
      failed: failed('entries wait for the ledger')
    })
    this.#reading = new Reading(ledger, this.#keys, cursorKeys)
    this.#proofs = new Proofs(ledger, this.#checkpoints, { origin, vkeys: this.vkeys })
    this.#persons = new Persons({
      ledger,
      keys: this.#keys,
      reading: this.#reading,
      record: async event => await this.record(event),
      recordDeed: async (event, pseudonym, deed) => await this.#recordDeed(draftOf(event, this.#parts.now(), { pseudonym }), deed)
    })
  }

  /** @internal */
  async open (): Promise<void> {
    await this.#ledger.open()
    await this.#keys.open()
    await this.#log.open()
  }

  /**
   * Records what happened outside of a request; in one, `request.audit` knows who.
   *
   * @returns when it is on record; with `best-effort` at once
   * @throws `FST_AUDIT_UNAVAILABLE` where that takes longer than `timeout`, or too many wait; with `best-effort` never: then it is counted
   */
  record (event: AuditEvent, op: string | null = null, request: FastifyRequest | null = null): Promise<void> {
    if (this.#parts.options.guarantee === 'best-effort') {
      this.note(event, op)
      return Promise.resolve()
    }
    const late = performance.now() + this.#parts.options.timeout
    const draft = draftOf(event, this.#parts.now(), { op })
    return this.#parts.observed({ layer: 'audit', name: 'commit', request }, async () => {
      await this.#copies.has(await this.#log.record(draft, { patient: false }), late)
    })
  }

  /**
   * Does something, and records it: before, that it is to be done (where that is required), and after, what came of it.
   *
   * @param event is read before and after: what is known only then can be added to it meanwhile
   * @returns what `work` returns
   * @throws what `work` throws, whose code is on record; `FST_AUDIT_UNAVAILABLE` where nothing was done, or what was done is not on record
   * @example
   * await fastify.audit.act({ type: 'price.change', target: { kind: 'article', id } }, async () => await articles.setPrice(id, price))
   */
  async act<T> (event: AuditEvent, work: () => Promise<T>): Promise<T> {
    return await this.actAs(() => event, work)
  }

  /** @internal */
  async actAs<T> (event: () => AuditEvent, work: () => Promise<T>, request: FastifyRequest | null = null): Promise<T> {
    const op = randomBytes(12).toString('base64url')
    const before = event()
    if (this.#parts.options.guarantee === 'required') await this.record({ ...before, type: 'intent', data: { operation: before.type } }, op, request)
    const done = await new Promise<T>(resolve => resolve(work())).then(result => ({ result }), (error: unknown) => ({ error }))
    await this.record('error' in done ? { ...event(), ...failureOf(done.error) } : event(), op, request)
    if ('error' in done) throw done.error
    return done.result
  }

  /**
   * Records what happened as soon as that is possible, and nobody waits.
   *
   * @internal
   */
  note (event: AuditEvent, op: string | null = null): Promise<void> {
    return this.#log.record(draftOf(event, this.#parts.now(), { op }), { patient: true }).then(nothing, nothing) // what is lost is counted
  }

  /** Resolves when everything that was recorded before is stored. */
  async flush (): Promise<void> {
    await this.#log.flush()
  }

  /** Entries, the newest first, a page at a time. @throws `FST_AUDIT_RANGE` */
  async entries (query: AuditQuery = {}, page: ReadPage = {}): Promise<{ entries: AuditEntry[], cursor: string | null }> {
    return await this.#reading.find(query, page)
  }

  /**
   * Operations that were to be done before a time (ms since the epoch), and of which nobody knows whether they were: the oldest first, 100 at most.
   *
   * @param options `from`: entries before this `seq` are not looked at
   */
  async unresolved (before: number, { from = 0, ...options }: ReadOptions & { from?: number } = {}): Promise<AuditEntry[]> {
    const { size } = await this.#ledger.head()
    const found: StoredEntry[] = []
    for (let seq = from; seq < size && found.length < 100; seq += STRETCH) found.push(...await this.#ledger.unresolved(seq, seq + STRETCH, before))
    return await this.#reading.view(found.slice(0, 100), options)
  }

  /**
   * Entries as they come, in order, each once.
   *
   * @param after `seq` of the last one that is known; those that come from now on where it is left out
   * @returns pages; an empty one now and then is a sign of life
   */
  async * follow ({ after, tenant, type, signal = new AbortController().signal, idle = 15_000, personal = false }: FollowOptions = {}): AsyncGenerator<AuditEntry[]> {
    const [ofTenant, ofType] = [tenant, type].map(name => name === undefined ? undefined : plainName(name))
    const from = after === undefined ? (await this.#ledger.head()).size : after + 1
    for await (const page of this.#feed.follow(from, idle, signal)) {
      const entries = await this.#reading.viewOnce(page, { personal })
      yield entries.filter(entry => (ofTenant === undefined || entry.tenant === ofTenant) && (ofType === undefined || entry.type === ofType))
    }
  }

  /** The newest checkpoint, a signed note (C2SP tlog-checkpoint). @throws `FST_AUDIT_RANGE` while the log is empty */
  async checkpoint (): Promise<string> {
    return await this.#proofs.checkpoint()
  }

  /** RFC 6962 §2.1.1: that the entry `index` is in the log of `size` entries. @throws `FST_AUDIT_RANGE` */
  async inclusionProof (index: number, size: number): ReturnType<Proofs['inclusion']> {
    return await this.#proofs.inclusion(index, size)
  }

  /** RFC 6962 §2.1.2: that the log of `to` entries begins with that of `from`. @throws `FST_AUDIT_RANGE` */
  async consistencyProof (from: number, to: number): ReturnType<Proofs['consistency']> {
    return await this.#proofs.consistency(from, to)
  }

  /**
   * Proof for an outsider that a session ended, when and why: `verifyReceipt` checks it.
   *
   * @param tenant only where it was that tenant's
   * @throws `FST_AUDIT_NOT_FOUND`
   */
  async receipt (sessionId: string, tenant?: string): Promise<Receipt> {
    return await this.#proofs.receipt(sessionId, tenant)
  }

  /** Walks the whole log, in flat memory: what is wrong first, and where. */
  async verify (options: VerifyOptions = {}): Promise<LogVerdict> {
    return await this.#proofs.verify(options)
  }

  /** The log as lines (NDJSON), for `verifyLog` anywhere. What is sealed stays sealed. */
  lines (): AsyncGenerator<string> {
    return this.#proofs.lines()
  }

  /** Everything that the log has of a person, in order, as lines. */
  exportSubject (person: Person, { format = 'ndjson', actor }: ActOptions & { format?: 'ndjson' | 'csv' } = {}): AsyncGenerator<string> {
    return this.#persons.export(person, format, actor)
  }

  /** Destroys the key of a person: what was sealed of them is gone, and every proof still holds. False where nobody is known by that name. */
  async erase (person: Person, { actor }: ActOptions = {}): Promise<boolean> {
    return await this.#persons.erase(person, actor)
  }

  /** The same, but for what `kept` makes of addresses and agents: it stays with the entries, without whose it was. */
  async anonymise (person: Person, { actor, kept = {} }: ActOptions & { kept?: Kept } = {}): Promise<boolean> {
    return await this.#persons.anonymise(person, kept, actor)
  }

  /**
   * Drops the contents of old entries, in whole tiles of 256: their hashes stay, so that everything stays provable. That it was done is an entry of its own.
   *
   * @param olderThan ms since the epoch
   * @returns up to which `seq` contents are gone
   */
  async prune ({ olderThan }: { olderThan: number }, { actor }: ActOptions = {}): Promise<number> {
    if (Number.isNaN(new Date(olderThan).getTime()) || !Number.isInteger(olderThan)) throw new AuditRange('olderThan is not a time in ms since the epoch')
    const oldest = async (query: EntryQuery): Promise<number[]> => (await this.#ledger.find(query, { limit: 1, order: 'oldest' })).map(({ seq }) => seq)
    const { size } = await this.#ledger.head()
    const gone = Math.max(0, ...await oldest({}))
    const before = Math.floor(Math.min(size, ...await oldest({ since: olderThan })) / TILE) * TILE
    if (before <= gone) return gone
    const event: AuditEvent = { type: 'audit.prune', ...actor !== undefined && { actor }, data: { before, olderThan: new Date(olderThan).toISOString() } }
    await this.#recordDeed(draftOf(event, this.#parts.now()), { pruned: before })
    return before
  }

  /** Encrypts the keys of all persons by the first master key, so that others can be dropped. @returns how many it changed */
  async rewrapKeys (): Promise<number> {
    return await this.#keys.rewrap()
  }

  get figures (): Record<string, number> {
    const { waiting, lag, refused, size } = this.#log.figures
    return {
      size,
      waiting,
      lag,
      dropped: refused,
      ...this.#copies.figures,
      anchored: this.#anchors.figures.anchored,
      anchorsFailed: this.#anchors.figures.failures
    }
  }

  /** Whether entries are taken: by the ledger, and by the copies that are required. */
  async health (): Promise<Health> {
    await this.#ledger.head()
    const lag = Math.max(this.#log.figures.lag, this.#copies.lag)
    if (lag < SLOW) return { status: 'ok' }
    return { status: lag < this.#parts.options.timeout ? 'degraded' : 'fail', detail: `entries wait since ${Math.round(lag)} ms` }
  }

  /** Ends what follows: a server closes when its connections have. */
  async endFollowing (): Promise<void> {
    await this.#feed.close()
  }

  /** Stores what waits, signs it, and lets go of the ledger, which it closes. */
  async close (): Promise<void> {
    clearTimeout(this.#dropsTimer)
    this.#recordDrops()
    await this.#feed.close()
    const lost = await this.#log.close()
    if (lost > 0) this.#parts.log(new Error(`${lost} entries`), 'entries were lost: the ledger did not take them before the end')
    clearTimeout(this.#dropsTimer)
    await this.#checkpoints.close()
    await Promise.all([this.#anchors.close(), this.#copies.close()])
    await this.#ledger.close()
  }

  async #recordDeed (draft: Draft, deed: Deed): Promise<void> {
    const entry = await this.#log.recordDeed(draft, deed)
    await this.#copies.has(entry, performance.now() + this.#parts.options.timeout)
  }

  /** What was lost is an entry too, once entries are stored again. */
  #tellDrops (): void {
    if (this.#log.figures.refused === this.#dropsTold) return
    this.#dropsTimer ??= setTimeout(() => this.#recordDrops(), DROPS)
  }

  #recordDrops (): void {
    this.#dropsTimer = undefined
    const { refused } = this.#log.figures
    const count = refused - this.#dropsTold
    if (count === 0) return
    this.#dropsTold = refused
    const draft = draftOf({ type: 'audit.drop', outcome: 'failure', data: { count } }, this.#parts.now())
    this.#log.record(draft, { patient: true, urgent: true }).catch(nothing) // only at the end: then nothing can be recorded
  }
}

function nothing (): void {}

export interface FollowOptions extends ReadOptions {
  after?: number
  tenant?: string
  type?: string
  signal?: AbortSignal
  /** ms after which an empty page comes */
  idle?: number
}
