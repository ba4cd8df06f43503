import { randomInt } from 'node:crypto'
import t from 'tap'
import { Groups } from '../../plugins/audit/gathering.ts'
import { deferred, soon, type Deferred } from '../support/deferred.ts'

/** Groups whose writing is held until it is told to go on. */
function rig (gathering: { time: number, entries: number }) {
  const prepared: number[][] = []
  const writes: Array<{ group: readonly number[], sent: () => void, done: Deferred<void> }> = []
  let wake = deferred()
  const groups = new Groups<number, readonly number[]>(gathering, async group => {
    prepared.push([...group])
    return group
  }, async (group, sent) => {
    const done = deferred()
    writes.push({ group, sent, done })
    wake.resolve()
    await done.promise
  })
  /** The write of a number, as soon as it is under way. */
  const write = async (index: number) => {
    while (writes[index] === undefined) {
      await soon(wake.promise)
      wake = deferred()
    }
    return writes[index]
  }
  return { groups, prepared, writes, write }
}

const NEVER = 60_000

t.test('a group is written when it is full', async t => {
  const { groups, write, prepared } = rig({ time: NEVER, entries: 3 })
  for (const item of [0, 1, 2, 3]) groups.add(item)
  const first = await write(0)
  t.same(first.group, [0, 1, 2])
  first.done.resolve()
  for (const item of [4, 5]) groups.add(item)
  const second = await write(1)
  t.same(second.group, [3, 4, 5])
  second.done.resolve()
  await groups.flush()
  t.equal(prepared.length, 2)
})

t.test('and when its first item has waited long enough', async t => {
  const { groups, write } = rig({ time: 5, entries: 100 })
  for (let round = 0; round < 3; round++) {
    for (const item of [0, 1]) groups.add(item)
    const { group, done } = await write(round)
    t.same(group, [0, 1])
    done.resolve()
    await groups.flush()
  }
})

t.test('while one is written the next is prepared, and written after it', async t => {
  const { groups, write, writes, prepared } = rig({ time: NEVER, entries: 2 })
  for (const item of [0, 1, 2, 3, 4, 5, 6]) groups.add(item)
  const first = await write(0)
  t.equal(prepared.length, 1)
  first.sent()
  first.sent()
  t.same(prepared, [[0, 1], [2, 3]], 'the next one, and no other')
  t.equal(writes.length, 1)
  first.done.resolve()
  const second = await write(1)
  t.same(second.group, [2, 3])
  second.done.resolve()
  const third = await write(2)
  third.sent()
  t.equal(prepared.length, 3, 'what is neither full nor due is left to gather')
  third.done.resolve()
  const flushing = groups.flush()
  const last = await write(3)
  t.same(last.group, [6])
  last.done.resolve()
  await soon(flushing)
})

t.test('what became due while another was written is written after it, in as many groups as it takes', async t => {
  const { groups, write } = rig({ time: NEVER, entries: 2 })
  for (const item of [0, 1, 2]) groups.add(item)
  const first = await write(0)
  const flushing = groups.flush()
  groups.add(3)
  groups.add(4)
  first.done.resolve()
  for (const [index, expected] of [[1, [2, 3]], [2, [4]]] as const) {
    const { group, done } = await write(index)
    t.same(group, expected)
    done.resolve()
  }
  await soon(flushing)
})

t.test('there is nothing to flush where nothing was added', async t => {
  const { groups, writes } = rig({ time: NEVER, entries: 2 })
  await soon(groups.flush())
  t.equal(writes.length, 0)
  groups.add(1)
  const flushing = groups.flush()
  writes[0]?.done.resolve()
  await soon(new Promise(setImmediate))
  writes[0]?.done.resolve()
  await soon(flushing)
  t.equal(writes.length, 1, 'and it goes on afterwards')
})

t.test('word that a group was sent may come late', async t => {
  const { groups, write, prepared } = rig({ time: NEVER, entries: 1 })
  groups.add(0)
  const first = await write(0)
  first.done.resolve()
  await groups.flush()
  first.sent()
  groups.add(1)
  const second = await write(1)
  groups.add(2)
  first.sent()
  t.same(prepared, [[0], [1], [2]])
  second.done.resolve()
  const third = await write(2)
  third.done.resolve()
  await soon(groups.flush())
})

t.test('every item is written once, in order, however they come', async t => {
  const written: number[] = []
  let most = 0
  let under = 0
  const groups = new Groups<number, readonly number[]>({ time: 1, entries: 7 }, async group => group, async (group, sent) => {
    if (++under > 1) t.fail('two are written at once')
    most = Math.max(most, group.length)
    setImmediate(sent)
    await new Promise<void>(resolve => randomInt(2) === 0 ? setImmediate(resolve) : resolve())
    written.push(...group)
    under--
  })
  for (let item = 0; item < 5000; item++) {
    groups.add(item)
    if (randomInt(20) === 0) await new Promise(setImmediate)
    if (randomInt(500) === 0) await groups.flush()
  }
  await soon(groups.flush())
  t.same(written, Array.from({ length: 5000 }, (_, item) => item))
  t.equal(most, 7)
})
