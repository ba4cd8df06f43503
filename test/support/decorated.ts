import type { PartialStore, SessionRecord, TokenStore } from '../../plugins/token-registry/index.ts'

/** A store with some of its methods replaced. */
export function decorated (store: TokenStore, replaced: Partial<TokenStore>): TokenStore {
  return new Proxy(store, {
    get: (target, key) => key in replaced ? Reflect.get(replaced, key) : bound(target, key)
  })
}

/** A store that lacks some methods, as one of its own may. */
export function without (store: TokenStore, ...names: Array<keyof TokenStore>): PartialStore {
  return new Proxy(store, { get: (target, key) => names.some(name => name === key) ? undefined : bound(target, key) })
}

/** A store whose every n-th reply to a mutation is lost; the mutation is then repeated with the same operation id, as a client would. */
export function losing (store: TokenStore, n: number): TokenStore {
  let calls = 0
  const twice = async <T>(call: () => Promise<T>): Promise<T> => {
    if (++calls % n === 0) await call()
    return await call()
  }
  return decorated(store, {
    insert: async (records, options) => await twice(async () => await store.insert(records, options)),
    update: async (id, patch, revision) => revision === undefined ? await store.update(id, patch) : await twice(async () => await store.update(id, patch, revision)),
    rotate: async (id, presented, op) => await twice(async () => await store.rotate(id, presented, op)),
    touch: async uses => await twice(async () => await store.touch(uses)),
    end: async (ids, cause) => await twice(async () => await store.end(ids, cause)),
    endAll: async (of, cause, told) => {
      let slices: Array<[SessionRecord[], number]> = []
      const count = await twice(async () => {
        slices = []
        return await store.endAll(of, cause, (ended, at) => slices.push([ended, at]))
      })
      for (const slice of slices) told?.(...slice)
      return count
    }
  })
}

/** What a proxy gives for a key: private members are not to be had through it. */
function bound (store: TokenStore, key: string | symbol): unknown {
  const value: unknown = Reflect.get(store, key)
  return typeof value === 'function' ? value.bind(store) : value
}
