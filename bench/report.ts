import { calls } from './calls.ts'
import type { Measured } from './http.ts'
import type { Timing } from './in-process.ts'
import type { Million } from './million.ts'
import type { RedisTimings } from './on-redis.ts'
import { cheaperMedian, median, quantile } from './statistics.ts'
import { variants } from './variants.ts'

/** What ratios are to be: at least, that of costs at most. */
interface Target {
  rateRatio?: number
  jwtRatio?: number
  redisRatio?: number
  costRatio?: number
}

const hit: Target = { rateRatio: 0.95, jwtRatio: 1.5, costRatio: 1.05 }
const targets: Readonly<Record<string, Target>> = { 'token-hit': hit, 'access-hit': hit, 'redis-hit': { redisRatio: 3 }, 'redis-miss': { rateRatio: 0.5 } }
/** Of variants that are `token-hit` with something more: their target, by what `token-hit` reached in the same run. */
const besides: Readonly<Record<string, (reached: number) => number>> = {
  'redis-hit': reached => reached - 0.02,
  'token-metrics': reached => reached * 0.95,
  'token-tracing': reached => reached * 0.99,
  'token-spans': reached => reached * 0.99,
  'token-both': reached => reached * 0.95 * 0.99
}

/** A variant, measured. The ratios are to the first one, bare Fastify, where nothing else is said. */
export interface Summary {
  name: string
  title: string
  /** Requests a second: the median of the slices. */
  rate: number
  /** Of bare Fastify in the same slice: median and quartiles. */
  rateRatio: { median: number, q1: number, q3: number }
  /** Of @fastify/jwt in the same slice: the median; null where that was not measured. */
  jwtRatio: number | null
  /** Of @fastify/session with Redis, likewise. */
  redisRatio: number | null
  /** µs of the server's CPU a request: the median of the cheaper half of the slices. */
  cost: number
  costRatio: number
  target: Target | null
}

export function summarize (measured: Measured['variants']): Summary[] {
  const rates = measured.map(({ slices }) => slices.map(({ requests, wall }) => requests / wall * 1000))
  const costs = measured.map(({ slices }) => cheaperMedian(slices.map(({ requests, cpu }) => cpu / requests * 1000)))
  const [bareRates = []] = rates
  const [bareCost = NaN] = costs
  const ratesOf = (name: string) => rates[measured.findIndex(variant => variant.name === name)]
  const [jwtRates, redisRates, memoryRates] = [ratesOf('jwt'), ratesOf('session-redis'), ratesOf('token-hit')]

  return measured.map(({ name }, i) => {
    const own = rates[i] ?? []
    const ratiosTo = (others: readonly number[]) => own.map((rate, slice) => rate / (others[slice] ?? NaN))
    const ratios = ratiosTo(bareRates)
    const cost = costs[i] ?? NaN
    const target = targets[name] ?? null
    const beside = besides[name]
    return {
      name,
      title: variants[name]?.title ?? name,
      rate: median(own),
      rateRatio: { median: median(ratios), q1: quantile(ratios, 0.25), q3: quantile(ratios, 0.75) },
      jwtRatio: jwtRates === undefined ? null : median(ratiosTo(jwtRates)),
      redisRatio: redisRates === undefined ? null : median(ratiosTo(redisRates)),
      cost,
      costRatio: cost / bareCost,
      target: beside !== undefined && memoryRates !== undefined
        ? { ...target, rateRatio: beside(median(memoryRates.map((rate, slice) => rate / (bareRates[slice] ?? NaN)))) }
        : target
    }
  })
}

export function httpTable ({ variants: measured, passes }: Measured): string {
  const summaries = summarize(measured)
  const withRedis = summaries.some(({ redisRatio }) => redisRatio !== null)
  const rows = summaries.map(({ title, rate, rateRatio: { median, q1, q3 }, jwtRatio, redisRatio, cost, costRatio, target }) => [
    title, rate.toFixed(0), median.toFixed(3), ratio(target?.rateRatio), `${q1.toFixed(3)} to ${q3.toFixed(3)}`, ratio(jwtRatio), ratio(target?.jwtRatio),
    ...withRedis ? [ratio(redisRatio), ratio(target?.redisRatio)] : [], cost.toFixed(1), costRatio.toFixed(3), ratio(target?.costRatio)
  ])
  const peer = withRedis ? ['of @fastify/session, Redis', 'target'] : []
  const head = ['authenticated GET', 'requests/s', 'of bare', 'target', 'quartiles', 'of @fastify/jwt', 'target', ...peer, 'CPU µs/request', 'of bare', 'target']
  return `${table(head, rows)}
${measured[0]?.slices.length ?? 0} slices each; ${passes.counted} passes counted of ${passes.taken}`
}

export function callTable (timings: readonly Timing[]): string {
  return table(['in process', 'median', 'quartiles', 'target'], timings.map(({ name, median, q1, q3 }) => {
    const { title, target } = calls[name]
    return [title, time(median), `${time(q1)} to ${time(q3)}`, target === null ? '' : time(target)]
  }))
}

export function millionTable ({ heap, buffers, longestSlice, cleanup }: Million): string {
  return table(['1,000,000 sessions', 'figure', 'target'], [
    ['bytes of heap a session, 300 of meta', (heap + buffers).toFixed(0), '1200'],
    ['longest slice of cleanup, without GC', `${longestSlice.toFixed(1)} ms`, '10.0 ms'],
    ['until all that expired is gone', `${(cleanup / 1000).toFixed(1)} s`, '']
  ])
}

export function redisTable ({ calls, revokeAll, seen }: RedisTimings): string {
  const rows = calls.map(({ title, times }) => [title, time(median(times)), time(quantile(times, 0.99)), time(Math.max(...times)), ''])
  if (revokeAll !== null) {
    rows.push(['revokeAll of 10,000 sessions amid 100,000', time(median(revokeAll.times)), time(quantile(revokeAll.times, 0.99)), time(Math.max(...revokeAll.times)), 'median 40.00 ms'])
    rows.push(['its longest command', time(median(revokeAll.longest)), time(quantile(revokeAll.longest, 0.99)), time(Math.max(...revokeAll.longest)), 'maximum 2.00 ms'])
  }
  if (seen !== null) rows.push(['revoked until another process knows', time(median(seen)), time(quantile(seen, 0.99)), time(Math.max(...seen)), '99 % 5.00 ms'])
  return table(['on Redis', 'median', '99 %', 'maximum', 'target'], rows)
}

function ratio (value: number | null | undefined): string {
  return value?.toFixed(3) ?? ''
}

function time (ns: number): string {
  if (ns < 1000) return `${ns.toFixed(0)} ns`
  return ns < 1_000_000 ? `${(ns / 1000).toFixed(2)} µs` : `${(ns / 1_000_000).toFixed(2)} ms`
}

/** The first column on the left, figures on the right. */
function table (head: readonly string[], rows: readonly string[][]): string {
  const lines = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...lines.map(line => line[column]?.length ?? 0)))
  return lines.map(line => line.map((text, column) => column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0)).join('  ')).join('\n')
}
