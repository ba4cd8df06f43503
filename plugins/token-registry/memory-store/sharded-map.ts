const SHARDS = 256

/**
 * A map that grows in small steps: a `Map` of a million entries stalls the event loop for 20 to 36 ms whenever it grows or shrinks,
 * one of 256 maps of four thousand does not.
 */
export class ShardedMap<Value> {
  readonly #shards = Array.from({ length: SHARDS }, () => new Map<string, Value>())
  readonly #mix: (key: string) => number

  /** @param mix spreads the keys: their last three characters, unless they may all end alike */
  constructor (mix: (key: string) => number = lastThree) {
    this.#mix = mix
  }

  get (key: string): Value | undefined {
    return this.#shardOf(key).get(key)
  }

  set (key: string, value: Value): void {
    this.#shardOf(key).set(key, value)
  }

  delete (key: string): boolean {
    return this.#shardOf(key).delete(key)
  }

  clear (): void {
    for (const shard of this.#shards) shard.clear()
  }

  /** Entries in no order; what is added or deleted meanwhile may or may not be among them. */
  * [Symbol.iterator] (): Generator<[string, Value], undefined> {
    for (const shard of this.#shards) yield * shard
  }

  #shardOf (key: string): Map<string, Value> {
    // The mask keeps the index in range, which the type cannot show.
    return this.#shards[this.#mix(key) & (SHARDS - 1)] as Map<string, Value>
  }
}

/** NaN for a key of fewer than three characters, which is shard 0. */
function lastThree (key: string): number {
  const { length } = key
  return key.charCodeAt(length - 1) * 31 + key.charCodeAt(length - 2) * 7 + key.charCodeAt(length - 3)
}

/** For keys that may all end alike, such as mail addresses of one domain. */
export function everyCharacter (key: string): number {
  let mix = 0
  for (let i = 0; i < key.length; i++) mix = (mix * 31 + key.charCodeAt(i)) | 0
  return mix ^ mix >>> 15
}
