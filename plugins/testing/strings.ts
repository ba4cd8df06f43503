/**
 * Text that is well-formed and nasty: separators, wildcards, escapes, what means something to JSON, SQL, Lua, Redis, globs, HTTP or a
 * prototype, and text that looks like other text. Each is a valid `sub`: 1 to 256 characters.
 */
export const hostileStrings: readonly string[] = [
  ':', '::', '|', ',', ';', '/', '.', '..', '../../etc/passwd', '#', '&', '=', '?', '*', '**', '[a-z]', '[^a]', '{', '}', '{}', '{a}b', '!', '~',
  ' ', ' a ', '\t', '\n', '\r\n', 'a\r\nSet-Cookie: a=b', '\x01', '\x1f\x7f', '\x85', '\xa0', '\u200b', '\u2028', '\ufeff',
  '\\', '\\\\', '\\0', '\\u0000', '%', '%00', '%s%d%n', '%25', '"', '\'', '`', '""', '\\"', '$' + '{1}', '{{1}}', '<script>alert(1)</script>', '<!--', ']]>',
  '__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'length', 'null', 'undefined', 'true', 'NaN', '0', '-1', '00', '1e400', '9007199254740993',
  '[]', '[object Object]', '{"sub":"bob"}', '\'; DROP TABLE sessions; --', '\' OR \'1\'=\'1', '%_', '$1', ']] os.exit() --[[', 'return redis.call("FLUSHALL")',
  '\r\n*1\r\n$8\r\nFLUSHALL\r\n', 'alice', 'Alice', 'ALICE', 'alice ', 'a\u0142ice', 'al\u0456ce',
  '\u00e9', 'e\u0301', '\ufb01', '\u0130', '\u0131', '\u00df', '\u017f', '\u212a', 'Z\u0338a\u0337l\u0334g\u0335o', '\u202eecila', '\u0645\u0631\u062d\u0628\u0627', '\u4e2d\u6587',
  '\u{1f600}', '\u{1f468}\u200d\u{1f469}\u200d\u{1f467}', '\u{1f1e9}\u{1f1ea}', '\ufffd', '\ufffe', '\u{10ffff}', 'a'.repeat(256), '\u{1f600}'.repeat(128),
  ...randomStrings(1, 20)
]

/** Text that nothing may take: halves of surrogate pairs, and NUL. */
export const malformedStrings: readonly string[] = [
  '\0', 'a\0', '\0a', 'a\0b', '\ud800', '\udc00', 'a\ud800', '\udfffb', '\udc00\ud800', '\ud83d\ud83d\ude00', '\u{1f600}\ude00'
]

/**
 * Well-formed text of 1 to 64 characters from all of Unicode, without NUL.
 *
 * @param seed an integer: the same gives the same
 */
export function randomStrings (seed: number, count: number): string[] {
  const next = random(seed)
  return Array.from({ length: count }, () => Array.from({ length: 1 + next(32) }, () => character(next)).join(''))
}

function character (next: (below: number) => number): string {
  // Most text is of the first plane: three in four.
  const point = 1 + next(next(4) === 0 ? 0x10ffff : 0xffff)
  return point >= 0xd800 && point <= 0xdfff ? '\u{fffd}' : String.fromCodePoint(point)
}

/** The generator mulberry32, which needs no more than 32 bits of state. */
function random (seed: number): (below: number) => number {
  let state = seed >>> 0
  return below => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ state >>> 15, state | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) % below
  }
}
