import assert from 'node:assert/strict'
import type { TokenStore } from '../../token-registry/index.ts'
import { because, type Rule } from './bench.ts'

export const tellingRules: readonly Rule[] = [
  {
    name: 'who changes or ends a session has told so before it answers',
    check: async bench => {
      const { store } = bench
      const told = listen(store)
      const session = await bench.insert()
      told.forget()
      await bench.rotate(session.id, 0)
      told.assert('a rotation', session)
      if (bench.has('update')) {
        await store.update(session.id, { version: '2' })
        told.assert('an update', session)
      }
      await bench.end(session.id)
      told.assert('an ending', session)

      const [first, second] = [await bench.insert(), await bench.insert()]
      told.forget()
      await store.endAll({ tenant: '', sub: 'alice' }, because())
      told.assert('the ending of all', first, second)

      const evicted = await bench.insert()
      told.forget()
      await bench.insertAll([bench.record()], [{ name: 'one', max: 1, onExceed: 'end-oldest' }])
      told.assert('an eviction', evicted)

      const token = await bench.insertConsumed()
      const came = await bench.insert({ origin: token.id })
      told.forget()
      await bench.consume(token.id)
      told.assert('reuse', token, came)
    }
  },
  {
    name: 'a use is not told, and a call that changed nothing need not be',
    needs: ['touch'],
    check: async bench => {
      const { store } = bench
      const [used, ended] = [await bench.insert(), await bench.insert()]
      const told = listen(store)
      await store.touch([{ id: used.id, at: store.now() }])
      await bench.end(ended.id)
      told.assert('an ending', ended)
      assert.ok(!told.ids.has(used.id), 'caches keep a session that is only used')
    }
  },
  {
    name: 'each listener is told until it stops',
    check: async bench => {
      const { store } = bench
      const [first, second] = [listen(store), listen(store)]
      const sessions = [await bench.insert(), await bench.insert()] as const
      await bench.end(sessions[0].id)
      first.assert('an ending', sessions[0])
      second.assert('an ending', sessions[0])
      first.stop()
      first.forget()
      await bench.end(sessions[1].id)
      assert.equal(first.ids.size, 0)
      second.assert('an ending', sessions[1])
    }
  }
]

function listen (store: TokenStore): { ids: Set<string>, stop: () => void, forget: () => void, assert: (what: string, ...sessions: ReadonlyArray<{ id: string }>) => void } {
  const ids = new Set<string>()
  const stop = store.onInvalidate(told => {
    for (const id of told === 'all' ? ['all'] : told) ids.add(id)
  })
  return {
    ids,
    stop,
    forget: () => ids.clear(),
    assert: (what, ...sessions) => {
      for (const { id } of sessions) assert.ok(ids.has(id) || ids.has('all'), `${what} is told`)
      ids.clear()
    }
  }
}
