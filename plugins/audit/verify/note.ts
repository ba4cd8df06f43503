import { createHash, createPublicKey, sign, verify, type KeyObject } from 'node:crypto'
import { HASH } from './merkle.ts'

/** Of Ed25519, in the ids of keys (C2SP signed-note). */
const ED25519 = 1
const SIGNATURE = 64
/** The start of an Ed25519 public key in SPKI (RFC 8410 §4), before its 32 bytes. */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')
/** Of a note: signatures, and characters. */
const MOST = { signatures: 100, characters: 1_000_000 }
const SPLIT = '\n\n— '
const NAME = /^[^\s+\p{Cc}]+$/u
const BASE64 = /^[A-Za-z0-9+/]+=*$/
// eslint-disable-next-line no-control-regex -- a note has none but newlines
const CONTROL = /[\0-\x09\x0b-\x1f]/

/** A checkpoint among others; a signature has 68 bytes at least. */
const WHOLE = /^[^\n]+\n\d+\n[A-Za-z0-9+/]{43}=\n(?:[^\n]+\n)*\n(?:— \S+ (?:[A-Za-z0-9+/]{4}){22,}[A-Za-z0-9+/=]{4}\n)+/gm

export interface NoteSigner {
  /** Without spaces, `+` and control characters. */
  name: string
  /** Ed25519 */
  privateKey: KeyObject
}

export interface OpenedNote {
  /** With its last newline. */
  text: string
  /** Names of trusted keys that signed it. */
  verifiedBy: string[]
  /** Names of other keys that are said to have signed it. */
  unknown: string[]
}

export interface CheckpointBody {
  /** Which log it is of. */
  origin: string
  /** Entries of the log. */
  size: number
  /** Of the tree of so many. */
  root: Buffer
}

export interface Checkpoint extends CheckpointBody {
  /** Lines after the root: nothing here reads them. */
  extensions: string[]
}

/** A public key that is trusted to sign. */
export interface Vkey {
  name: string
  /** 4 bytes, hex */
  id: string
  publicKey: KeyObject
}

/** A public key as text: `<name>+<id>+<base64>` (C2SP signed-note). @param key Ed25519, public or private @throws {TypeError} where the name or the key is none */
export function vkeyOf (name: string, key: KeyObject): string {
  const raw = rawPublic(name, key)
  return `${name}+${keyId(name, raw).toString('hex')}+${Buffer.concat([Buffer.of(ED25519), raw]).toString('base64')}`
}

/**
 * Signs text (C2SP signed-note).
 *
 * @throws {TypeError} where it does not end in a newline, or holds other control characters; where a name or a key is none
 */
export function signNote (text: string, signers: readonly NoteSigner[]): string {
  if (!text.endsWith('\n') || !isText(text)) throw new TypeError('what is signed is text that ends in a newline, without other control characters')
  const lines = signers.map(({ name, privateKey }) => `— ${name} ${Buffer.concat([keyId(name, rawPublic(name, privateKey)), sign(null, Buffer.from(text), privateKey)]).toString('base64')}\n`)
  return `${text}\n${lines.join('')}`
}

/**
 * Opens a note (C2SP signed-note): signatures by keys that are not trusted do not count.
 *
 * @param vkeys trusted keys, as text or as `parseVkey` gives them
 * @returns null where it is no note, no trusted key signed it, or the signature of one is wrong
 * @throws {TypeError} where one of `vkeys` is none
 */
export function openNote (note: string, vkeys: ReadonlyArray<string | Vkey>): OpenedNote | null {
  const trusted = vkeys.map(trustedKey)
  const split = splitNote(note)
  if (split === null) return null
  const [text, lines] = split
  const bytes = Buffer.from(text)
  const signed = { verifiedBy: new Set<string>(), unknown: new Set<string>() }
  for (const line of lines) {
    const signature = parseSignature(line)
    if (signature === null) return null
    const key = trusted.find(({ name, id }) => name === signature.name && id === signature.id)
    if (key !== undefined && !(signature.bytes.length === SIGNATURE && verify(null, bytes, key.publicKey, signature.bytes))) return null
    signed[key === undefined ? 'unknown' : 'verifiedBy'].add(signature.name)
  }
  return signed.verifiedBy.size === 0 ? null : { text, verifiedBy: [...signed.verifiedBy], unknown: [...signed.unknown] }
}

/** Checkpoints in a text of several, as an anchor wrote them one after the other: each that is whole. */
export function notesIn (text: string): string[] {
  return [...text.matchAll(WHOLE)].map(([note]) => note)
}

/** The text of a checkpoint (C2SP tlog-checkpoint). @throws {RangeError} where it would be none */
export function checkpointText ({ origin, size, root }: CheckpointBody): string {
  const text = `${origin}\n${size}\n${root.toString('base64')}\n`
  const read = parseCheckpoint(text)
  if (read === null || read.origin !== origin) throw new RangeError('a checkpoint has an origin of one line, a size that is a whole number and a root of 32 bytes')
  return text
}

/** @returns null where it is none */
export function parseCheckpoint (text: string): Checkpoint | null {
  const [origin = '', digits = '', base64 = '', ...rest] = text.split('\n')
  const extensions = rest.slice(0, -1)
  const [size, root] = [Number(digits), Buffer.from(base64, 'base64')]
  const sound = text.endsWith('\n') && origin !== '' && !extensions.includes('') && /^(0|[1-9][0-9]*)$/.test(digits) && Number.isSafeInteger(size) &&
    root.length === HASH && root.toString('base64') === base64
  return sound ? { origin, size, root, extensions } : null
}

/** What a note says, whoever signed it; null where it is no checkpoint. */
export function readCheckpoint (note: string): Checkpoint | null {
  const split = splitNote(note)
  return split === null ? null : parseCheckpoint(split[0])
}

/** @returns null where it is none, or of another kind than Ed25519 */
export function parseVkey (vkey: string): Vkey | null {
  const [, name = '', id = '', base64 = ''] = /^([^+]*)\+([0-9a-f]{8})\+(.*)$/.exec(vkey) ?? []
  const bytes = fromBase64(base64)
  if (!NAME.test(name) || bytes === null || bytes.length !== 1 + 32 || bytes[0] !== ED25519) return null
  const raw = bytes.subarray(1)
  return keyId(name, raw).toString('hex') === id ? { name, id, publicKey: createPublicKey({ key: Buffer.concat([SPKI, raw]), format: 'der', type: 'spki' }) } : null
}

/** @throws {TypeError} where it is none */
export function trustedKey (vkey: string | Vkey): Vkey {
  const key = typeof vkey === 'string' ? parseVkey(vkey) : vkey
  if (key === null) throw new TypeError('a trusted key is none of Ed25519: it looks like example.com/audit+1a2b3c4d+AV…')
  return key
}

/** Text and signature lines; null where it is no note. */
function splitNote (note: string): [text: string, lines: string[]] | null {
  const split = note.lastIndexOf(SPLIT)
  if (split < 0 || note.length > MOST.characters || !note.endsWith('\n') || !isText(note)) return null
  const lines = note.slice(split + 2, -1).split('\n')
  return lines.length > MOST.signatures ? null : [note.slice(0, split + 1), lines]
}

function parseSignature (line: string): { name: string, id: string, bytes: Buffer } | null {
  const [dash, name = '', base64 = '', ...more] = line.split(' ')
  const bytes = fromBase64(base64)
  if (dash !== '—' || !NAME.test(name) || bytes === null || bytes.length < 5 || more.length > 0) return null
  return { name, id: bytes.toString('hex', 0, 4), bytes: bytes.subarray(4) }
}

/** @returns null for what `Buffer` would not write so */
function fromBase64 (text: string): Buffer | null {
  const bytes = Buffer.from(text, 'base64')
  return BASE64.test(text) && bytes.toString('base64') === text ? bytes : null
}

function isText (text: string): boolean {
  return text.isWellFormed() && !CONTROL.test(text)
}

function keyId (name: string, raw: Uint8Array): Buffer {
  return createHash('sha256').update(`${name}\n`).update(Buffer.of(ED25519)).update(raw).digest().subarray(0, 4)
}

function rawPublic (name: string, key: KeyObject): Buffer {
  if (!NAME.test(name) || key.asymmetricKeyType !== 'ed25519') throw new TypeError('a signer has a name without spaces and +, and an Ed25519 key')
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
}
