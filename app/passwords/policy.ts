import { readFileSync } from 'node:fs'
import { sourcePath } from '../source-path.ts'
import { PasswordRefused } from './errors.ts'

const common = new Set(readFileSync(sourcePath('app/passwords/common-passwords.txt'), 'utf8').split('\n'))

/**
 * Whether a new password may be used: 8 to 128 characters (code points), none of the most common ones. Not for sign-ins: older rules
 * allowed others.
 *
 * @throws {PasswordRefused} 400
 */
export function checkPassword (password: string): void {
  const text = normalised(password)
  const { length } = [...text]
  if (length < 8) throw new PasswordRefused('has fewer than 8 characters')
  if (length > 128) throw new PasswordRefused('has more than 128 characters')
  if (common.has(text.toLowerCase())) throw new PasswordRefused('is one of the most common')
}

/** One of the two forms that NIST SP 800-63B (5.1.1.2) names, so that every keyboard's way to write a character gives the same bytes. */
export function normalised (password: string): string {
  return password.normalize('NFKC')
}
