import { isUtf8 } from 'node:buffer'
import { InputBody } from './errors.ts'

/**
 * The text of a body.
 *
 * @throws {InputBody} where it is not UTF-8
 */
export function decoded (body: Buffer): string {
  if (!isUtf8(body)) throw new InputBody('body is not UTF-8: encode it as UTF-8')
  return body.toString()
}

/**
 * Checks that text can be stored and compared: well-formed Unicode without NUL.
 *
 * @param place where it stands, for the message: `body/name`
 * @throws {InputBody} where it is not
 */
export function checkText (text: string, place: string): void {
  if (text.includes('\0')) throw new InputBody(`${place} holds NUL: remove it`)
  if (!text.isWellFormed()) throw new InputBody(`${place} holds half a surrogate pair: send both halves, or neither`)
}

/**
 * A `text/plain` body.
 *
 * @throws {InputBody} where it is not UTF-8, or holds NUL
 */
export function readText (body: Buffer): string {
  const text = decoded(body)
  checkText(text, 'body')
  return text
}

/** A name that the caller chose, as messages show it: what does not look like the name of a field may be a secret in the wrong place. */
export function shown (name: string): string {
  return /^[\w.-]{1,40}$/.test(name) ? name : '…'
}
