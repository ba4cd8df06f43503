const placeholder = /change[-_ ]?(me|this|it)|placeholder|your[-_ ]?(own[-_ ])?(secret|key)/i

/**
 * What makes a secret easy to guess. The entropy of one sample cannot be measured, so this refuses only what no generator makes.
 *
 * @returns the fault, to be read after the name of the secret, or null
 */
export function weakness (secret: string): string | null {
  const bytes = Buffer.byteLength(secret)
  if (bytes < 32) return `has ${bytes} bytes: at least 32 are needed`
  if (new Set(secret).size < 8) return 'is made of fewer than 8 different characters'
  if (repeats(secret)) return 'repeats itself'
  if (steps(secret) > secret.length / 2) return 'counts up or down, as in "abcdef" or "654321"'
  if (placeholder.test(secret)) return 'is a placeholder'
  return null
}

/** Whether the text is one block again and again, the last one perhaps cut short. */
function repeats (text: string): boolean {
  for (let length = 1; length <= text.length / 2; length++) {
    if (text.startsWith(text.slice(length))) return true
  }
  return false
}

function steps (text: string): number {
  let count = 0
  for (let i = 1; i < text.length; i++) {
    if (Math.abs(text.charCodeAt(i) - text.charCodeAt(i - 1)) === 1) count++
  }
  return count
}
