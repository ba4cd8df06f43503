// Atoms between dots, without spaces, controls, or the characters that would turn one address into a list or a name and an address.
const atom = '[^\\s\\p{Cc}\\p{Cs}<>()[\\],;:"\\\\@.]+'
const address = new RegExp(`^(?=.{1,64}@.{1,189}$)${atom}(?:\\.${atom})*@${atom}(?:\\.${atom})*$`, 'u')

/** Whether a text is one e-mail address that mail can be sent to: 3 to 254 characters, no quoted local part. */
export function isEmail (text: string): boolean {
  return address.test(text)
}

/**
 * What two spellings of an address have in common: users are unique by it and found by it.
 *
 * Unicode can make different mailboxes meet here (the Kelvin sign becomes a plain k), so mail always goes to the address that the
 * user registered with, never to the one in a request.
 */
export function emailKey (email: string): string {
  return email.trim().toLowerCase().normalize('NFC')
}
