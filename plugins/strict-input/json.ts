import { InputBody } from './errors.ts'
import { checkText, decoded, shown } from './text.ts'

const maxDepth = 32
const colon = 0x3a
const quote = 0x22
const backslash = 0x5c

/**
 * An `application/json` body (RFC 8259), held to what RFC 7493 asks so that every reader understands it alike: UTF-8, well-formed Unicode, no name
 * twice in an object. Beyond that: no NUL, no number that is infinite as a double, nothing that sets a prototype, at most 32 levels deep.
 *
 * @throws {InputBody} where it is not
 */
export function readJson (body: Buffer): unknown {
  const text = decoded(body)
  if (text.trim() === '') throw new InputBody('body is empty: send JSON, or no Content-Type')

  const value = parsed(text)
  if (members(value, 'body', 1) !== writtenMembers(text)) throw new InputBody('body holds a name twice in one object: send each once')
  return value
}

function parsed (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // The parser's own message quotes the body, which may hold a password.
    throw new InputBody('body is not JSON: check its quotes, commas and brackets')
  }
}

/** Checks a value and all that it holds, and counts the members of its objects. */
function members (value: unknown, place: string, depth: number): number {
  if (typeof value === 'string') checkText(value, place)
  if (typeof value === 'number' && !Number.isFinite(value)) throw new InputBody(`${place} is too large for a number: send a smaller one`)
  if (typeof value !== 'object' || value === null) return 0
  if (depth > maxDepth) throw new InputBody(`body is more than ${maxDepth} levels deep: make it flatter`)

  let count = 0
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) count += members(item, `${place}/${index}`, depth + 1)
    return count
  }
  for (const [name, item] of Object.entries(value)) {
    checkText(name, `the name of a field in ${place}`)
    if (setsPrototype(name, item)) throw new InputBody(`${place} has a field ${name} that sets a prototype: remove it`)
    count += 1 + members(item, `${place}/${shown(name)}`, depth + 1)
  }
  return count
}

function setsPrototype (name: string, value: unknown): boolean {
  if (name === '__proto__') return true
  return name === 'constructor' && typeof value === 'object' && value !== null && Object.hasOwn(value, 'prototype')
}

/** Counts the members of all objects in JSON text. The parser keeps the last of two equal names, and so gives fewer. */
function writtenMembers (json: string): number {
  let count = 0
  for (let i = 0; i < json.length; i++) {
    const char = json.charCodeAt(i)
    if (char === colon) count++
    if (char === quote) i = endOfString(json, i)
  }
  return count
}

function endOfString (json: string, start: number): number {
  let i = start + 1
  while (json.charCodeAt(i) !== quote) i += json.charCodeAt(i) === backslash ? 2 : 1
  return i
}
