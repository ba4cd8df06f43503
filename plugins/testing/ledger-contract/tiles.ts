import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { hex, range, type Rule } from './bench.ts'
import type { Tile } from './ledger.ts'

export const tileRules: readonly Rule[] = [
  {
    name: 'tiles are read in the order asked, undefined where there is none',
    check: async bench => {
      const tiles = [tile(0, 0), tile(0, 1), tile(1, 0), tile(1, 1, 3), tile(5, 0, 1), tile(0, 2 ** 40)]
      await bench.add([{}], { tiles })
      const read = async (wanted: ReadonlyArray<Pick<Tile, 'level' | 'index'>>) => (await bench.ledger.tiles(wanted)).map(bytes => bytes && hex(bytes))
      const hashes = tiles.map(({ hashes }) => hex(hashes))
      assert.deepEqual(await read(tiles), hashes)
      assert.deepEqual(await read(tiles.toReversed()), hashes.toReversed())
      assert.deepEqual(await read([{ level: 2, index: 0 }, ...tiles.slice(2, 3), { level: 0, index: 2 }, ...tiles.slice(0, 1)]), [undefined, hashes[2], undefined, hashes[0]])
      assert.deepEqual(await read([...tiles.slice(0, 2), ...tiles.slice(0, 1)]), [hashes[0], hashes[1], hashes[0]], 'one that is asked for twice')
      assert.deepEqual(await read([]), [])
    }
  },
  {
    name: 'a tile takes the place of the one before, and of no other',
    check: async bench => {
      const before = [tile(0, 0), tile(1, 0, 1), tile(1, 1, 1)]
      await bench.add([{}], { tiles: before })
      const after = [tile(1, 0, 2), tile(2, 0, 1)]
      await bench.add([{}], { tiles: after })
      const found = await bench.ledger.tiles([...before, { level: 2, index: 0 }])
      assert.deepEqual(found.map(bytes => bytes && hex(bytes)), [before[0], after[0], before[2], after[1]].map(tile => tile && hex(tile.hashes)))
    }
  },
  {
    name: 'many tiles are stored in one step',
    check: async bench => {
      const tiles = range(0, 400).map(index => tile(0, index))
      await bench.add([{}], { tiles })
      assert.deepEqual((await bench.ledger.tiles(tiles)).map(bytes => bytes && hex(bytes)), tiles.map(({ hashes }) => hex(hashes)))
    }
  }
]

function tile (level: number, index: number, hashes = 256): Tile {
  return { level, index, hashes: new Uint8Array(randomBytes(32 * hashes)) }
}
