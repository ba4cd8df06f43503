/** What has the same key stands together, in the order in which it came. (`Map.groupBy` is not in Node 20.) */
export function grouped<Item> (items: readonly Item[], keyOf: (item: Item) => string): Array<[key: string, items: Item[]]> {
  const groups = new Map<string, Item[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [item])
    else group.push(item)
  }
  return [...groups]
}

export function sliced<Item> (items: readonly Item[], size: number): Item[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) => items.slice(index * size, (index + 1) * size))
}

/** Puts what has ids in the order of others. */
export function inOrderOf (wanted: ReadonlyArray<{ id: string }>, items: Array<{ id: string }>): void {
  const position = new Map(wanted.map(({ id }, index) => [id, index]))
  items.sort((a, b) => Number(position.get(a.id)) - Number(position.get(b.id)))
}
