import { TokenValidation } from './errors.ts'

const MAX_BYTES = 4096
const MAX_DEPTH = 16
const poisonous = new Set(['__proto__', 'constructor', 'prototype'])

/**
 * Lets pass what can be kept as meta of a session: plain JSON, at most 4 KiB and 16 deep.
 *
 * @throws {TokenValidation} names the place, never the value
 */
export function checkMeta (meta: unknown): void {
  const fault = faultOf(meta, 1)
  if (fault !== null) throw new TokenValidation(`meta${fault}`)
  const bytes = Buffer.byteLength(JSON.stringify(meta))
  if (bytes > MAX_BYTES) throw new TokenValidation(`meta: is ${bytes} bytes as JSON, at most ${MAX_BYTES} can be kept`)
}

function faultOf (value: unknown, depth: number): string | null {
  switch (typeof value) {
    // What is undefined is left out, as JSON does.
    case 'boolean': case 'undefined': return null
    case 'string': return isText(value) ? null : ': is not well-formed text without NUL'
    case 'number': return Number.isFinite(value) ? null : ': is a number that JSON cannot hold'
    case 'object': return value === null ? null : faultIn(value, depth)
    default: return `: is a ${typeof value}, which JSON cannot hold`
  }
}

function faultIn (value: object, depth: number): string | null {
  if (depth > MAX_DEPTH) return `: is nested deeper than ${MAX_DEPTH}`
  const prototype: unknown = Object.getPrototypeOf(value)
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return ': is an object of a class, only plain ones can be kept'
  for (const [key, item] of Object.entries(value)) {
    if (poisonous.has(key)) return `: has a key ${key}`
    if (!isText(key)) return ': has a key that is not well-formed text without NUL'
    const fault = faultOf(item, depth + 1)
    if (fault !== null) return `.${key}${fault}`
  }
  return null
}

function isText (text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}
