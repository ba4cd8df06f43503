/** The value that the share `q` (0 to 1) of the samples lies below, interpolated; NaN where there are no samples. */
export function quantile (samples: readonly number[], q: number): number {
  const sorted = samples.toSorted((a, b) => a - b)
  const at = (sorted.length - 1) * q
  const below = sorted[Math.floor(at)] ?? NaN
  const above = sorted[Math.ceil(at)] ?? NaN
  return below + (above - below) * (at - Math.floor(at))
}

export function median (samples: readonly number[]): number {
  return quantile(samples, 0.5)
}

/** The median of the cheaper half: a busy neighbour can only add to a cost. */
export function cheaperMedian (costs: readonly number[]): number {
  const sorted = costs.toSorted((a, b) => a - b)
  return median(sorted.slice(0, Math.ceil(sorted.length / 2)))
}
