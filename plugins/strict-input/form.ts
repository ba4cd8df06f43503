import { InputBody } from './errors.ts'
import { checkText, decoded, shown } from './text.ts'

/**
 * An `application/x-www-form-urlencoded` body (WHATWG URL §5.1). Unlike there, malformed percent-encoding is refused, and so is a
 * parameter that is sent more than once (RFC 6749 §3.1).
 *
 * @returns the parameters by name, all of them text
 * @throws {InputBody} where it is not such a body
 */
export function readForm (body: Buffer): Record<string, string> {
  const fields = new Map<string, string>()
  for (const pair of decoded(body).split('&')) {
    if (pair === '') continue
    const [name = '', ...value] = pair.split('=')
    addField(fields, unescaped(name), unescaped(value.join('=')))
  }
  return Object.fromEntries(fields)
}

function addField (fields: Map<string, string>, name: string, value: string): void {
  checkText(name, 'the name of a field in body')
  checkText(value, `body/${shown(name)}`)
  if (name === '__proto__') throw new InputBody('body has a field __proto__ that sets a prototype: remove it')
  if (fields.has(name)) throw new InputBody(`body/${shown(name)} is sent twice: send it once`)
  fields.set(name, value)
}

function unescaped (text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    throw new InputBody('body is not percent-encoded UTF-8: encode it again, with "%25" for "%"')
  }
}
