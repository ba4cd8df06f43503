import t, { type Test } from 'tap'
import { Feed } from '../../plugins/audit/feed.ts'
import { memoryLedger, type StoredEntry } from '../../plugins/audit/index.ts'
import type { MemoryLedger } from '../../plugins/audit/ledgers/memory.ts'
import { deferred, soon } from '../support/deferred.ts'
import { appendTo } from '../support/audit-entry.ts'

/** No sign of life comes within a test. */
const NEVER = 60_000

interface Rig {
  ledger: MemoryLedger
  feed: Feed
  failures: unknown[]
}

function rig (t: Test): Rig {
  const ledger = memoryLedger()
  const failures: unknown[] = []
  const feed = new Feed(ledger, error => { failures.push(error) })
  t.teardown(async () => await feed.close())
  return { ledger, feed, failures }
}

/** Reads on until it has so many. */
async function take (pages: AsyncGenerator<readonly StoredEntry[]>, count: number): Promise<number[]> {
  const seqs: number[] = []
  while (seqs.length < count) {
    const { value, done } = await soon(pages.next())
    if (done === true) break
    seqs.push(...value.map(({ seq }) => seq))
  }
  return seqs
}

function range (from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, place) => from + place)
}

t.test('entries come in order, each once, to who follows from the first, closely, or from what is not there yet', async t => {
  const { ledger, feed } = rig(t)
  const { signal } = new AbortController()
  await appendTo(ledger, 1200)
  const followers = [0, 700, 1200, 1300].map(from => ({ from, pages: feed.follow(from, NEVER, signal) }))
  const reading = followers.map(async ({ from, pages }) => await take(pages, 3000 - from))
  for (let size = 1200; size < 3000; size += 150) {
    await appendTo(ledger, 150)
    feed.grown()
  }
  for (const [index, seqs] of (await Promise.all(reading)).entries()) t.same(seqs, range(followers[index]?.from ?? 0, 3000))
  await Promise.all(followers.map(async ({ pages }) => await pages.return(undefined)))
})

t.test('those who follow side by side get the same page', async t => {
  const { ledger, feed } = rig(t)
  const { signal } = new AbortController()
  const [one, other] = [feed.follow(0, NEVER, signal), feed.follow(0, NEVER, signal)]
  const pages = [one.next(), other.next()]
  await appendTo(ledger, 3)
  feed.grown()
  const [a, b] = await soon(Promise.all(pages))
  t.equal(a?.value, b?.value)
  t.equal(a?.value?.length, 3)
  await one.return(undefined)
  await other.return(undefined)
})

t.test('what another process appended comes by itself', async t => {
  const { ledger, feed } = rig(t)
  const pages = feed.follow(0, NEVER, new AbortController().signal)
  const reading = take(pages, 2)
  await appendTo(ledger, 1)
  await appendTo(ledger, 1)
  t.same(await reading, [0, 1])
  const late = take(pages, 1)
  await appendTo(ledger, 1)
  t.same(await late, [2])
  await pages.return(undefined)
})

t.test('what is appended while it finds out where the log ends is not missed', async t => {
  const { ledger, feed } = rig(t)
  const [asked, answer] = [deferred(), deferred()]
  const head = ledger.head.bind(ledger)
  ledger.head = async () => {
    asked.resolve()
    await answer.promise
    return await head()
  }
  const pages = feed.follow(0, NEVER, new AbortController().signal)
  const reading = take(pages, 1)
  await asked.promise
  await soon(new Promise(setImmediate)) // it found nothing, and waits
  await appendTo(ledger, 1)
  answer.resolve()
  t.same(await reading, [0])
  await pages.return(undefined)
})

t.test('entries whose contents were dropped keep nobody from those after them', async t => {
  const { ledger, feed } = rig(t)
  await appendTo(ledger, 2000)
  await appendTo(ledger, 10, 1500)
  const pages = feed.follow(0, NEVER, new AbortController().signal)
  t.same(await take(pages, 510), range(1500, 2010))
  await pages.return(undefined)
})

t.test('an empty page is a sign of life, and comes only where nothing else did', async t => {
  const { ledger, feed } = rig(t)
  const pages = feed.follow(1, 20, new AbortController().signal)
  t.same((await soon(pages.next())).value, [])
  t.same((await soon(pages.next())).value, [])
  const none = soon(pages.next())
  await appendTo(ledger, 1)
  feed.grown()
  t.same((await none).value, [], 'to who waits for what is further on, too')
  await pages.return(undefined)
})

t.test('it ends with the signal, and with the feed, at once', async t => {
  const { ledger, feed } = rig(t)
  await appendTo(ledger, 1)
  const gone = new AbortController()
  const [one, other] = [feed.follow(1, NEVER, gone.signal), feed.follow(1, NEVER, new AbortController().signal)]
  const [ends, stays] = [one.next(), other.next()]
  await soon(new Promise(setImmediate))
  gone.abort()
  t.same(await soon(ends), { value: undefined, done: true })
  await appendTo(ledger, 1)
  feed.grown()
  t.equal((await soon(stays)).value?.[0]?.seq, 1)
  const last = other.next()
  await soon(feed.close())
  t.same(await soon(last), { value: undefined, done: true })
  t.same(await soon(feed.follow(0, NEVER, new AbortController().signal).next()), { value: undefined, done: true })
  feed.grown()
})

t.test('who leaves while the ledger is asked is not waited for, and what comes then is for others', async t => {
  const { ledger, feed } = rig(t)
  const calls = [deferred(), deferred()]
  const held = deferred()
  const [head, entries] = [ledger.head.bind(ledger), ledger.entries.bind(ledger)]
  let holds: 'head' | 'entries' | 'nothing' = 'head'
  ledger.head = async () => {
    const found = await head()
    if (holds === 'head') {
      calls[0]?.resolve()
      await held.promise
    }
    return found
  }
  const leaving = new AbortController()
  const first = feed.follow(0, NEVER, leaving.signal)
  const ending = first.next()
  await calls[0]?.promise
  leaving.abort()
  await soon(ending)
  holds = 'entries'
  held.resolve()
  await soon(new Promise(setImmediate))

  const answer = deferred()
  ledger.entries = async (from, to) => {
    const found = await entries(from, to)
    if (holds === 'entries' && found.length > 0) {
      calls[1]?.resolve()
      await answer.promise
    }
    return found
  }
  const again = new AbortController()
  const second = feed.follow(0, NEVER, again.signal)
  const reading = second.next()
  await soon(new Promise(setImmediate))
  await appendTo(ledger, 1)
  feed.grown()
  await calls[1]?.promise
  again.abort()
  await soon(reading)
  holds = 'nothing'
  answer.resolve()
  const third = feed.follow(0, NEVER, new AbortController().signal)
  t.same(await take(third, 1), [0])
  await appendTo(ledger, 1)
  feed.grown()
  t.same(await take(third, 1), [1])
  await third.return(undefined)
})

t.test('a ledger that fails is told of, and asked again', async t => {
  const { ledger, feed, failures } = rig(t)
  const head = ledger.head.bind(ledger)
  let fails = true
  ledger.head = async () => {
    if (!fails) return await head()
    fails = false
    throw new Error('no')
  }
  const pages = feed.follow(0, NEVER, new AbortController().signal)
  const reading = take(pages, 1)
  await soon(new Promise(setImmediate))
  await appendTo(ledger, 1)
  t.same(await reading, [0])
  t.match(failures, [{ message: 'no' }])
  await pages.return(undefined)
})
