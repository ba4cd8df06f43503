import assert from 'node:assert/strict'
import { inParallel } from '../contract/bench.ts'
import { range, type Rule } from './bench.ts'

const note = 'example.org/audit\n9\nq83vEjRWeJA=\n\n\u2014 example.org/audit "\'\\ \u{1f600}\n'

export const checkpointRules: readonly Rule[] = [
  {
    name: 'checkpoints are kept as they are, and read by size',
    check: async ({ ledger }) => {
      const checkpoints = [0, 9, 10, 2 ** 40].map(size => ({ size, note: `${size} ${note}` }))
      for (const { size, note } of [...checkpoints.slice(2), ...checkpoints.slice(0, 2).reverse()]) await ledger.addCheckpoint(size, note)
      assert.deepEqual(await ledger.lastCheckpoint(), checkpoints[3])
      assert.deepEqual(await ledger.checkpointsAfter(-1, 10), checkpoints)
      assert.deepEqual(await ledger.checkpointsAfter(0, 2), checkpoints.slice(1, 3))
      assert.deepEqual(await ledger.checkpointsAfter(9, 10), checkpoints.slice(2))
      assert.deepEqual(await ledger.checkpointsAfter(2 ** 40, 10), [])
    }
  },
  {
    name: 'the first checkpoint of a size stays',
    check: async bench => {
      const ledgers = await bench.several(3)
      await bench.ledger.addCheckpoint(3, 'first')
      await inParallel(9, async index => await ledgers[index % ledgers.length]?.addCheckpoint(3 + index % 2, `later ${index}`))
      const found = await bench.ledger.checkpointsAfter(0, 10)
      assert.deepEqual(found.map(({ size }) => size), [3, 4])
      assert.equal(found[0]?.note, 'first')
      for (const ledger of ledgers) assert.deepEqual(await ledger.lastCheckpoint(), found[1])
    }
  },
  {
    name: 'checkpoints are not pruned with entries',
    check: async bench => {
      await bench.add(range(0, 5).map(() => ({})))
      await bench.ledger.addCheckpoint(2, note)
      await bench.add([{}], { pruned: 5 })
      assert.deepEqual(await bench.ledger.lastCheckpoint(), { size: 2, note })
    }
  }
]
