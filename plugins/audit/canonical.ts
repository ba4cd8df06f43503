import canonicalize from 'canonicalize'

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** Depth, length of a text, items of a list, and characters of all: what is beyond is told in place of it. */
const DEEPEST = 16
const LONGEST = 4096
const LARGEST = 65_536

/** What some take for the end of a line, or for a command to a terminal, and JSON leaves as it is. */
const unsafe = /[\u007F-\u009F\u2028\u2029]/g
/** And lone surrogates, which are no text. */
const unsafeInNames = /[\\\u0000-\u001F\u007F-\u009F\u2028\u2029\uD800-\uDFFF\uFEFF]/gu // eslint-disable-line no-control-regex

/** Plain JSON of what a service says, fit to be one line of well-formed text by anybody's definition, and bounded: nothing that is passed in makes it throw. */
export function plainJson (value: unknown): Json {
  const room = { left: LARGEST }
  const plain = plainOf(value, 0, room)
  return room.left >= 0 && JSON.stringify(plain).length <= LARGEST ? plain : `omitted: more than ${LARGEST} characters of JSON`
}

/** Canonical JSON (RFC 8785). */
export function canonicalJson (value: object): string {
  return String(canonicalize(value)) // it is undefined for functions and symbols alone
}

/** Text without lone surrogates; characters that are unsafe in a line are written out, as `\u2028`. */
export function plainText (text: string, longest = LONGEST): string {
  const cut = text.length <= longest ? text : `${text.slice(0, longest)}… ${text.length - longest} more`
  return cut.toWellFormed().replace(unsafe, written)
}

/**
 * A name that columns and queries compare: without any control character. Two names that differ are never made alike.
 *
 * @param longest characters; what is beyond is cut off
 */
export function plainName (text: string, longest = 256): string {
  return text.slice(0, longest).replace(unsafeInNames, written)
}

function written (character: string): string {
  return character === '\\' ? '\\\\' : `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

/** @param room characters of JSON that may still come, at least: what refers to itself in many ways would have no end */
function plainOf (value: unknown, depth: number, room: { left: number }): Json {
  if (room.left-- < 0) return null
  if (depth > DEEPEST) return 'omitted: it is too deep'
  switch (typeof value) {
    case 'string': return roomFor(plainText(value), room)
    case 'boolean': return value
    case 'number': return Number.isFinite(value) ? value : String(value)
    case 'bigint': return roomFor(plainText(String(value)), room)
    case 'object': return value === null ? null : plainObject(value, depth, room)
    default: return null
  }
}

function plainObject (value: object, depth: number, room: { left: number }): Json {
  try {
    const given: unknown = 'toJSON' in value && typeof value.toJSON === 'function' ? value.toJSON() : value
    if (typeof given !== 'object' || given === null) return plainOf(given, depth + 1, room)
    if (Array.isArray(given)) return Array.from(given.slice(0, LONGEST), item => plainOf(item, depth + 1, room)) // holes included
    const entries = Object.entries(given).slice(0, LONGEST).filter(([, item]) => item !== undefined && typeof item !== 'function')
    return Object.fromEntries(entries.map(([key, item]) => [roomFor(plainText(key), room), plainOf(item, depth + 1, room)]))
  } catch {
    return 'omitted: it cannot be read'
  }
}

function roomFor (text: string, room: { left: number }): string {
  room.left -= text.length
  return text
}
