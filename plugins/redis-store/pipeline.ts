/**
 * A pipeline or transaction fulfils although commands of it failed.
 *
 * @param replies null only of a transaction that watched keys, which none of ours does
 * @throws what the first that failed answered
 */
export function resultsOf (replies: Array<[Error | null, unknown]> | null): unknown[] {
  return (replies as Array<[Error | null, unknown]>).map(([error, result]) => { // see above
    if (error !== null) throw error
    return result
  })
}
