/** What stands for all names beyond those that are told apart. */
const OTHER = 'other'

/** A count by two labels, of each of which so many values are told apart as there is room for: the rest counts as `other`. */
export class Tally<First extends string = string, Second extends string = string> {
  readonly labels: readonly [First, Second]
  readonly #names: readonly [Names, Names]
  readonly #counts = new Map<string, Map<string, number>>()
  #total = 0

  /** @param max values of each label */
  constructor (labels: readonly [First, Second], max: number) {
    this.labels = labels
    this.#names = [new Names(max), new Names(max)]
  }

  get total (): number {
    return this.#total
  }

  add (first: string, second: string, count = 1): void {
    const [one, other] = [this.#names[0].of(first), this.#names[1].of(second)]
    let counts = this.#counts.get(one)
    if (counts === undefined) this.#counts.set(one, counts = new Map<string, number>())
    counts.set(other, (counts.get(other) ?? 0) + count)
    this.#total += count
  }

  /** Each combination that occurred. */
  * entries (): Generator<readonly [first: string, second: string, count: number]> {
    for (const [first, counts] of this.#counts) for (const [second, count] of counts) yield [first, second, count]
  }

  /** Sums by one of the labels. */
  by (label: First | Second): Record<string, number> {
    const place = this.labels.indexOf(label as First & Second) // it is one of them
    const sums = new Map<string, number>()
    for (const entry of this.entries()) {
      const name = String(entry[place])
      sums.set(name, (sums.get(name) ?? 0) + entry[2])
    }
    return Object.fromEntries(sums)
  }
}

class Names {
  readonly #max: number
  readonly #known = new Set<string>()

  constructor (max: number) {
    this.#max = max
  }

  of (name: string): string {
    if (this.#known.has(name)) return name
    if (this.#known.size >= this.#max) return OTHER
    this.#known.add(name)
    return name
  }
}
