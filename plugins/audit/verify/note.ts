import { createHash, createPublicKey, sign, verify, type KeyObject } from 'node:crypto'
import { HASH } from './merkle.ts'

/** Of Ed25519, in the ids of keys (C2SP signed-note). */
const ED25519 = 1
const SIGNATURE = 64
/** The start of an Ed25519 public key in SPKI (RFC 8410 §4), before its 32 bytes. */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')
/** Signatures that are looked at. */
const MOST = 32
const SPLIT = '\n\n— '

export interface NoteSigner {
  name: string
  /** Ed25519 */
  privateKey: KeyObject
}

export interface OpenedNote {
  /** With its last newline. */
  text: string
  /** Names of trusted keys that signed it. */
  verifiedBy: string[]
}

export interface CheckpointBody {
  origin: string
  size: number
  root: Buffer
}

interface Vkey {
  name: string
  id: string
  publicKey: KeyObject
}

/** A public key as text: `<name>+<id>+<base64>` (C2SP signed-note). @param key public or private */
export function vkeyOf (name: string, key: KeyObject): string {
  const raw = rawPublic(key)
  return `${name}+${keyId(name, raw).toString('hex')}+${Buffer.concat([Buffer.of(ED25519), raw]).toString('base64')}`
}

/** Signs text that ends in a newline (C2SP signed-note). */
export function signNote (text: string, signers: readonly NoteSigner[]): string {
  const lines = signers.map(({ name, privateKey }) => `— ${name} ${Buffer.concat([keyId(name, rawPublic(privateKey)), sign(null, Buffer.from(text), privateKey)]).toString('base64')}\n`)
  return `${text}\n${lines.join('')}`
}

/**
 * Opens a note: signatures by keys that are not trusted do not count.
 *
 * @param vkeys trusted keys
 * @returns null where it is no note, no trusted key signed it, or the signature of one is wrong
 */
export function openNote (note: string, vkeys: readonly string[]): OpenedNote | null {
  const split = note.lastIndexOf(SPLIT)
  if (split < 0 || !note.endsWith('\n') || !note.isWellFormed()) return null
  const text = note.slice(0, split + 1)
  const lines = note.slice(split + 2, -1).split('\n')
  if (lines.length > MOST) return null
  const trusted = vkeys.map(parseVkey).filter(key => key !== null)
  const verifiedBy: string[] = []
  for (const line of lines) {
    const [, name, base64 = ''] = /^— ([^\s+]+) ([A-Za-z0-9+/]+=*)$/.exec(line) ?? []
    const bytes = Buffer.from(base64, 'base64')
    if (name === undefined || bytes.length < 5 || bytes.toString('base64') !== base64) return null
    const key = trusted.find(known => known.name === name && known.id === bytes.toString('hex', 0, 4))
    if (key === undefined) continue
    if (bytes.length !== 4 + SIGNATURE || !verify(null, Buffer.from(text), key.publicKey, bytes.subarray(4))) return null
    if (!verifiedBy.includes(name)) verifiedBy.push(name)
  }
  return verifiedBy.length === 0 ? null : { text, verifiedBy }
}

/** The text of a checkpoint (C2SP tlog-checkpoint). */
export function checkpointText ({ origin, size, root }: CheckpointBody): string {
  return `${origin}\n${size}\n${root.toString('base64')}\n`
}

/** @returns null where it is none; what stands after the root is left out */
export function parseCheckpoint (text: string): CheckpointBody | null {
  const [origin = '', digits = '', base64 = ''] = text.split('\n')
  const [size, root] = [Number(digits), Buffer.from(base64, 'base64')]
  const sound = origin !== '' && /^(0|[1-9][0-9]*)$/.test(digits) && Number.isSafeInteger(size) && root.length === HASH && root.toString('base64') === base64 && text.endsWith('\n')
  return sound ? { origin, size, root } : null
}

/** The log that a note is about, whoever signed it; null where it is no checkpoint. */
export function readCheckpoint (note: string): CheckpointBody | null {
  const split = note.lastIndexOf(SPLIT)
  return split < 0 ? null : parseCheckpoint(note.slice(0, split + 1))
}

/** @returns null where it is none, or of another kind than Ed25519 */
export function parseVkey (vkey: string): Vkey | null {
  const [, name, id, base64] = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)$/.exec(vkey) ?? []
  if (name === undefined || id === undefined || base64 === undefined) return null
  const bytes = Buffer.from(base64, 'base64')
  if (bytes.length !== 1 + 32 || bytes[0] !== ED25519 || keyId(name, bytes.subarray(1)).toString('hex') !== id) return null
  return { name, id, publicKey: createPublicKey({ key: Buffer.concat([SPKI, bytes.subarray(1)]), format: 'der', type: 'spki' }) }
}

function keyId (name: string, raw: Uint8Array): Buffer {
  return createHash('sha256').update(`${name}\n`).update(Buffer.of(ED25519)).update(raw).digest().subarray(0, 4)
}

function rawPublic (key: KeyObject): Buffer {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
}
