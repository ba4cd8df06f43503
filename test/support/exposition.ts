/** A series as it was scraped: name and labels, in one order, with its value. */
export interface Exposition {
  series: Map<string, number>
  types: Map<string, string>
  exemplars: Array<{ series: string, labels: Record<string, string>, value: number }>
}

const line = /^([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)(?: # \{(.*?)\} (\S+) (\S+))?$/

function labelsOf (text = ''): Array<readonly [string, string]> {
  return [...text.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)].map(([, name = '', value = '']) => [name, value] as const)
}

/**
 * Reads what is exposed, of either format, and checks what every scraper relies on.
 *
 * @throws {Error} a line that is none, a series that stands twice, a histogram that is not one
 */
export function parseExposition (text: string): Exposition {
  const exposition: Exposition = { series: new Map(), types: new Map(), exemplars: [] }
  const lines = text.split('\n')
  const end = lines.indexOf('# EOF')
  if (lines.pop() !== '' || (end >= 0 && end !== lines.length - 1)) throw new Error('it does not end as it should')
  for (const each of lines) {
    if (each === '' || each === '# EOF' || each.startsWith('# HELP ')) continue
    const [, named, type] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(each) ?? []
    if (named !== undefined && type !== undefined) {
      if (exposition.types.has(named)) throw new Error(`${named} has two types`)
      exposition.types.set(named, type)
      continue
    }
    const [, name, labels, value, exemplar, observed, at] = line.exec(each) ?? []
    if (name === undefined || (value !== 'NaN' && Number.isNaN(Number(value?.replace('Inf', 'Infinity'))))) throw new Error(`this is no sample: ${each}`)
    const key = keyOf(name, labelsOf(labels))
    if (exposition.series.has(key)) throw new Error(`${key} stands twice`)
    exposition.series.set(key, Number(value?.replace('Inf', 'Infinity')))
    if (exemplar !== undefined) {
      if (!(Number(at) > 1e9)) throw new Error(`an exemplar without a time in seconds: ${each}`)
      exposition.exemplars.push({ series: key, labels: Object.fromEntries(labelsOf(exemplar)), value: Number(observed) })
    }
  }
  checkHistograms(exposition)
  return exposition
}

function keyOf (name: string, labels: ReadonlyArray<readonly [string, string]>): string {
  const sorted = labels.filter(([, value]) => value !== '').toSorted(([a], [b]) => a < b ? -1 : 1)
  return sorted.length === 0 ? name : `${name}{${sorted.map(([label, value]) => `${label}=${value}`).join(',')}}`
}

function checkHistograms ({ series, types }: Exposition): void {
  const last = new Map<string, number>()
  for (const [key, value] of series) {
    const [, name = '', labels = ''] = /^(.*)_bucket\{(.*)\}$/.exec(key) ?? []
    if (types.get(name) !== 'histogram') continue
    const rest = labels.split(',').filter(label => !label.startsWith('le=')).join(',')
    const own = rest === '' ? name : `${name}{${rest}}`
    if (value < (last.get(own) ?? 0)) throw new Error(`${key} counts less than the bucket before`)
    last.set(own, value)
    const count = series.get(rest === '' ? `${name}_count` : `${name}_count{${rest}}`)
    if (labels.includes('le=+Inf') && count !== value) throw new Error(`${own} has ${value} in all, and counts ${count}`)
  }
}
