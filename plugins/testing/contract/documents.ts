import assert from 'node:assert/strict'
import type { Documents, Subject, TokenStore } from '../../token-registry/index.ts'
import { hostileStrings } from '../strings.ts'
import { inParallel, type Rule } from './bench.ts'

export const documentRules: readonly Rule[] = [
  {
    name: 'a document is written where it is as it was read',
    needs: ['documents'],
    check: async ({ store }) => {
      const [documents, later] = [documentsOf(store), store.now() + 60_000]
      const write = async (before: string | null, after: string | null): Promise<boolean> => await documents.write('devices', 'alice', before, after, later)
      assert.equal(await documents.read('devices', 'alice'), null)
      assert.equal(await write('a', 'b'), false, 'there is none')
      assert.equal(await write(null, 'a'), true)
      assert.equal(await write(null, 'b'), false, 'there is one')
      assert.equal(await write('b', 'c'), false, 'it is another')
      assert.equal(await documents.read('devices', 'alice'), 'a')
      assert.equal(await write('a', 'b'), true)
      assert.equal(await documents.read('devices', 'alice'), 'b')
      assert.equal(await write('b', 'b'), true)
      assert.equal(await write('a', null), false)
      assert.equal(await write(null, null), false)
      assert.equal(await write('b', null), true)
      assert.equal(await documents.read('devices', 'alice'), null)
      assert.equal(await write(null, null), true)
      assert.equal(await write(null, 'again'), true)
      assert.equal(await documents.read('devices', 'alice'), 'again')
    }
  },
  {
    name: 'a document stands until its time, which each write says anew',
    needs: ['documents'],
    check: async bench => {
      const { store } = bench
      const documents = documentsOf(store)
      const start = store.now()
      for (const key of ['ends', 'prolonged', 'shortened']) await documents.write('devices', key, null, 'a', start + (key === 'shortened' ? 60_000 : 200))
      assert.equal(await documents.write('devices', 'prolonged', 'a', 'a', start + 60_000), true)
      assert.equal(await documents.write('devices', 'shortened', 'a', 'b', start + 200), true)
      await bench.advance(200)
      assert.equal(await documents.read('devices', 'ends'), null)
      assert.equal(await documents.read('devices', 'shortened'), null)
      assert.equal(await documents.read('devices', 'prolonged'), 'a')
      assert.equal(await documents.write('devices', 'ends', 'a', 'b', start + 60_000), false, 'what has ended is not there')
      assert.equal(await documents.write('devices', 'ends', null, 'b', start + 60_000), true)
      assert.equal(await documents.read('devices', 'ends'), 'b')
      assert.equal(await documents.write('devices', 'ends', 'b', 'c', start), true)
      assert.equal(await documents.read('devices', 'ends'), null, 'what is written until a time that is past is gone')
    }
  },
  {
    name: 'text of a document is kept as it is',
    needs: ['documents'],
    check: async ({ store }) => {
      const [documents, later] = [documentsOf(store), store.now() + 60_000]
      const texts = ['', ...hostileStrings, 'a\0b\r\n\u2028\u{1f600}', 'x'.repeat(65_536), '\u{1f600}'.repeat(16_384)]
      await inParallel(texts.length, async index => {
        const [key, text = ''] = [String(index), texts[index]]
        assert.equal(await documents.write('devices', key, null, text, later), true)
        assert.equal(await documents.read('devices', key), text)
        assert.equal(await documents.write('devices', key, text, 'another', later), true, 'it is compared as a whole')
      })
    }
  },
  {
    name: 'documents of other purposes and keys never meet, and none is a mark or a session',
    needs: ['documents'],
    check: async bench => {
      const { store } = bench
      const [documents, later] = [documentsOf(store), store.now() + 60_000]
      const places = [['a', 'bc'], ['ab', 'c'], ['', 'abc'], ['abc', ''], ['a', 'b\0c'], ['a\0b', 'c'], ['1:a', 'b'], ['1', ':ab'], ...hostileStrings.map(text => ['a', text])] as Array<[string, string]>
      await Promise.all(places.map(async ([purpose, key], index) => assert.equal(await documents.write(purpose, key, null, String(index), later), true, JSON.stringify([purpose, key]))))
      await Promise.all(places.map(async ([purpose, key], index) => assert.equal(await documents.read(purpose, key), String(index))))
      if (bench.has('mark')) {
        assert.equal(await store.mark('a', 'bc', later), true)
        assert.equal(await store.marked('ab', 'c'), false)
      }
      assert.equal(await documents.read('a', 'bc'), '0')
      await bench.assertFinds({}, [])
    }
  },
  {
    name: 'of 50 that count up at once, each by what it read, none is lost',
    needs: ['documents'],
    check: async ({ store }) => {
      const [documents, later] = [documentsOf(store), store.now() + 60_000]
      await inParallel(50, async () => {
        for (;;) {
          const before = await documents.read('counter', 'one')
          if (await documents.write('counter', 'one', before, String(Number(before) + 1), later)) return
        }
      })
      assert.equal(await documents.read('counter', 'one'), '50')
    }
  }
]

export const subjectRules: readonly Rule[] = [
  {
    name: 'who has sessions is told, each subject at least once, and of one tenant only its own',
    check: async bench => {
      const { store } = bench
      const subjects: Subject[] = [
        ...['bob', ...hostileStrings].map(sub => ({ tenant: '', sub })),
        ...['acme', ...hostileStrings].map(tenant => ({ tenant, sub: 'alice' }))
      ]
      const { refused } = await bench.insertAll(subjects.flatMap(subject => [bench.record(subject), bench.record(subject)]))
      assert.deepEqual(refused, [])
      assert.deepEqual(await told(store.subjects()), distinct(subjects))
      assert.deepEqual(await told(store.subjects('')), distinct(subjects.filter(({ tenant }) => tenant === '')))
      assert.deepEqual(await told(store.subjects('acme')), distinct([{ tenant: 'acme', sub: 'alice' }]))
      assert.deepEqual(await told(store.subjects('nobody')), [])
    }
  },
  {
    name: 'whose sessions have all ended or expired is not told, nor who has only one-time tokens',
    check: async bench => {
      const { store } = bench
      await bench.insert({ sub: 'code', use: 'once' })
      await bench.insert({ sub: 'expired', ttl: 200 })
      const ended = await bench.insertMany(2, { sub: 'ended' })
      const [gone] = await bench.insertMany(2, { sub: 'one left' })
      await bench.insert({ sub: 'one left', ttl: 200 })
      await bench.end(String(gone?.id), ...ended.map(({ id }) => id))
      await bench.advance(200)
      assert.deepEqual(await told(store.subjects()), [['', 'one left']])
    }
  }
]

function documentsOf ({ documents }: TokenStore): Documents {
  assert.ok(documents !== undefined, 'the store has documents')
  return documents
}

async function told (subjects: AsyncIterable<Subject>): Promise<string[][]> {
  const all: Subject[] = []
  for await (const subject of subjects) all.push(subject)
  return distinct(all)
}

/** Each once, in an order that does not depend on the store. */
function distinct (subjects: readonly Subject[]): string[][] {
  return [...new Set(subjects.map(({ tenant, sub }) => JSON.stringify([tenant, sub])))].sort().map(text => JSON.parse(text))
}
