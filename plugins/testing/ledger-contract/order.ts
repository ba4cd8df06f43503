import assert from 'node:assert/strict'
import { setImmediate } from 'node:timers/promises'
import { inParallel } from '../contract/bench.ts'
import { assertEntries, assertHead, hex, range, seqsOf, stepOf, type Rule } from './bench.ts'
import type { Head, StoredEntry } from './ledger.ts'

export const orderRules: readonly Rule[] = [
  {
    name: 'of 100 steps at once, of three instances, each is alone: no gap and no fork',
    check: async bench => {
      const ledgers = await bench.several(3)
      const stored: StoredEntry[] = []
      let planning = 0
      await inParallel(100, async index => {
        const appended = await ledgers[index % ledgers.length]?.append(async ({ head, entries }) => {
          assert.equal(++planning, 1, 'one plan at a time')
          assert.deepEqual(seqsOf(await entries(0, head.size)), range(0, head.size), 'a turn sees all steps before it')
          await setImmediate()
          planning--
          return stepOf(head, range(0, 1 + index % 3).map(() => ({ tenant: String(index) })))
        })
        assert.ok(appended, 'what was stored is returned')
        stored.push(...appended.entries)
      })
      const size = range(0, 100).reduce((sum, index) => sum + 1 + index % 3, 0)
      stored.sort((a, b) => a.seq - b.seq)
      assert.deepEqual(seqsOf(stored), range(0, size))
      for (const ledger of ledgers) {
        assertHead(await ledger.head(), size)
        assertEntries(await ledger.entries(0, size), stored)
      }
    }
  },
  {
    name: 'of steps at once, those whose plans throw or say null leave no trace',
    check: async bench => {
      const ledgers = await bench.several(3)
      const outcomes = await inParallel(60, async index => {
        const stored = ledgers[index % ledgers.length]?.append(async ({ head }) => {
          if (index % 4 === 0) throw new RangeError(`plan ${index}`)
          return index % 4 === 1 ? null : stepOf(head, [{ tenant: String(index) }])
        })
        return await stored?.then(appended => appended === null ? 'null' : 'stored', ({ message }: Error) => message)
      })
      assert.deepEqual(outcomes, range(0, 60).map(index => index % 4 === 0 ? `plan ${index}` : index % 4 === 1 ? 'null' : 'stored'))
      assertHead(await bench.ledger.head(), 30)
      const tenants = (await bench.ledger.entries(0, 1000)).map(({ tenant }) => Number(tenant))
      assert.deepEqual(tenants.sort((a, b) => a - b), range(0, 60).filter(index => index % 4 > 1))
    }
  },
  {
    name: 'who reads while others append sees whole steps',
    check: async bench => {
      const [writer, reader] = await bench.several(2)
      assert.ok(writer !== undefined && reader !== undefined)
      const writing = { done: false }
      const written = (async () => {
        for (let step = 0; step < 20; step++) await bench.add([{}, {}, {}], {}, writer)
        writing.done = true
      })()
      while (!writing.done) {
        const { size }: Head = await reader.head()
        assert.equal(size % 3, 0)
        const found = seqsOf(await reader.entries(0, 1000))
        assert.equal(found.length % 3, 0)
        assert.ok(found.length >= size, 'what the head counts is there')
        assert.deepEqual(found, range(0, found.length))
        await setImmediate()
      }
      await written
    }
  },
  {
    name: 'opened again, it is as it was',
    check: async bench => {
      const entries = await bench.add([{}, {}], { tiles: [{ level: 0, index: 0, hashes: new Uint8Array(32) }] })
      await bench.ledger.addCheckpoint(2, 'note')
      const again = await bench.another()
      assertHead(await again.head(), 2)
      assertEntries(await again.entries(0, 2), entries)
      assert.deepEqual((await again.tiles([{ level: 0, index: 0 }])).map(bytes => bytes && hex(bytes)), ['00'.repeat(32)])
      assert.deepEqual(await again.lastCheckpoint(), { size: 2, note: 'note' })
      await bench.add([{}], {}, again)
      assertHead(await bench.ledger.head(), 3)
    }
  }
]
