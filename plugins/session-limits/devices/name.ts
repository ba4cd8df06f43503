import { BROWSER_MAP, OS_MAP, parse } from 'bowser'
import { TokenValidation } from '../../token-registry/index.ts'

/** Characters of a name, as JSON Schema counts them: code points. */
const MAX_NAME = 100

/** Of a user agent that are looked at: more tell nothing, and take time. */
const MAX_AGENT = 512

const browsers = new Set(Object.values(BROWSER_MAP))
const systems = new Set(Object.values(OS_MAP))

/** What breaks a line, or turns around the text after it. Joiners are parts of emoji, and of many scripts. */
const harmful = /[\p{Cc}\p{Zl}\p{Zp}\u202A-\u202E\u2066-\u2069]/u
const visible = /[\p{L}\p{N}\p{P}\p{S}]/u

/** Whether it is text that a device can be named: 1 to 100 characters with something to see, and nothing that breaks lines or turns them around. */
export function isDeviceName (given: unknown): given is string {
  const name = typeof given === 'string' ? given.trim() : ''
  const short = name.length <= 2 * MAX_NAME && [...name].length <= MAX_NAME
  return short && name.isWellFormed() && visible.test(name) && !harmful.test(name)
}

/**
 * A device's name as its owner gave it, without white space around it.
 *
 * @throws {TokenValidation}
 */
export function checkedName (given: unknown): string {
  if (!isDeviceName(given)) throw new TokenValidation(`name: may be 1 to ${MAX_NAME} characters, without control characters`)
  return given.trim()
}

/**
 * A name for what sends a user agent, such as `'Firefox on Windows'`, `'Safari on iPhone'`, or `'okhttp'`.
 *
 * @returns null where it says nothing
 */
export function nameFrom (userAgent: string): string | null {
  const agent = userAgent.slice(0, MAX_AGENT)
  // The parser throws for an empty one.
  if (agent === '') return null
  const { browser, os, platform } = parse(agent)
  const model = /^(?:iPhone|iPad|iPod)$/.exec(platform.model ?? '')?.[0]
  // Of what it does not know, the parser repeats what the user agent says: only its own words are taken.
  const system = model ?? known(systems, os.name)
  const program = /^(?:Mozilla|Opera)\//.test(agent) ? known(browsers, browser.name) : productOf(agent)

  if (program === null || system === null) return program ?? system
  return program.includes(system) ? program : `${program} on ${system}`
}

/** The first product of a user agent (RFC 9110, section 10.1.5), by which programs that are no browsers call themselves. */
function productOf (agent: string): string | null {
  return /^[\w!#$%&'*+.^`|~-]{1,64}(?=[/ ]|$)/.exec(agent)?.[0] ?? null
}

function known (names: ReadonlySet<string>, name: string | undefined): string | null {
  return name !== undefined && names.has(name) ? name : null
}
