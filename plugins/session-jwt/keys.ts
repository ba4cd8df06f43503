import { createHmac, createPrivateKey, createPublicKey, hash, type KeyObject } from 'node:crypto'
import { weakness } from '../token-registry/index.ts'
import { JwtOptions } from './errors.ts'

/** How a JWT may be signed. */
export type Algorithm = 'EdDSA' | 'ES256' | 'RS256' | 'HS256'

export const algorithms: readonly string[] = ['EdDSA', 'ES256', 'RS256', 'HS256'] satisfies Algorithm[]

/** One key, as options of `@fastify/jwt`. */
export interface JwtKeys {
  secret: string | { private?: string, public: string }
  /** `kid` names the key: of a key pair the thumbprint of RFC 7638. */
  sign: { algorithm: Algorithm, kid: string }
  verify: { algorithms: Algorithm[] }
}

/** A secret, or the PEM of a private key; the PEM of a public key in a server that only verifies. */
export type JwtKey = { secret: string } | { privateKey: string } | { publicKey: string }

/**
 * Checks a key, and makes the options of `@fastify/jwt` from it. The algorithm follows from the key: a secret of at least 32 bytes signs HS256,
 * Ed25519 signs EdDSA, P-256 signs ES256, RSA of at least 2048 bits signs RS256.
 *
 * @throws {JwtOptions} for every other key; the message never holds it
 * @example
 * await app.register(fastifyJwt, { namespace: 'access', ...jwtKeys({ secret: process.env.JWT_SECRET }) })
 */
export function jwtKeys (key: JwtKey): JwtKeys {
  const [entry, ...more] = Object.entries(key).filter(([, value]) => value !== undefined)
  if (entry === undefined || more.length > 0) throw new JwtOptions('jwtKeys takes one of secret, privateKey and publicKey')
  const [kind, text] = entry
  if (typeof text !== 'string') throw new JwtOptions(`jwtKeys: ${kind} is not text`)
  switch (kind) {
    case 'secret': return fromSecret(text)
    case 'privateKey': return fromPrivateKey(text)
    case 'publicKey': return fromPublicKey(text)
    default: throw new JwtOptions(`jwtKeys: ${kind} is not known; it takes one of secret, privateKey and publicKey`)
  }
}

function fromSecret (secret: string): JwtKeys {
  const fault = isKey(secret) ? 'is a key, and whoever knows the public half could sign with it: give it as privateKey or publicKey' : weakness(secret)
  if (fault !== null) throw new JwtOptions(`jwtKeys: secret ${fault}; make one with: openssl rand -base64 32`)
  // Keyed, so that it tells of the secret no more than a signed token does.
  const kid = createHmac('sha256', secret).update('fastify-token-registry kid').digest('base64url').slice(0, 11)
  return { secret, sign: { algorithm: 'HS256', kid }, verify: { algorithms: ['HS256'] } }
}

function fromPrivateKey (pem: string): JwtKeys {
  const key = parsed('privateKey', 'a private key without a passphrase', () => createPrivateKey(pem))
  return fromPair('privateKey', createPublicKey(key), { private: key.export({ type: 'pkcs8', format: 'pem' }).toString() })
}

function fromPublicKey (pem: string): JwtKeys {
  // Node would take the public half of it, and the server would keep a key that it must not have.
  if (pem.includes('PRIVATE KEY-----')) throw new JwtOptions('jwtKeys: publicKey is the PEM of a private key')
  return fromPair('publicKey', parsed('publicKey', 'a public key or a certificate', () => createPublicKey(pem)), {})
}

function fromPair (name: string, key: KeyObject, half: { private?: string }): JwtKeys {
  const algorithm = algorithmOf(key, name)
  return {
    secret: { ...half, public: key.export({ type: 'spki', format: 'pem' }).toString() },
    sign: { algorithm, kid: thumbprint(key) },
    verify: { algorithms: [algorithm] }
  }
}

function parsed (name: string, what: string, parse: () => KeyObject): KeyObject {
  try {
    return parse()
  } catch (error) {
    throw new JwtOptions(`jwtKeys: ${name} is not the PEM of ${what}; make one with: openssl genpkey -algorithm ed25519`, { cause: error })
  }
}

function algorithmOf ({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject, name: string): Algorithm {
  const { namedCurve, modulusLength = 0 } = { ...details }
  if (type === 'ed25519') return 'EdDSA'
  if (type === 'ec' && namedCurve === 'prime256v1') return 'ES256'
  if (type === 'rsa' && modulusLength >= 2048) return 'RS256'
  const kind = [type, namedCurve, modulusLength === 0 ? undefined : `of ${modulusLength} bits`].filter(part => part !== undefined).join(' ')
  throw new JwtOptions(`jwtKeys: ${name} is ${kind}: it may be Ed25519, P-256, or RSA of at least 2048 bits`)
}

/** RFC 7638, section 3: the required members in lexicographic order. JSON leaves out those that a key of this type lacks. */
function thumbprint (key: KeyObject): string {
  const { crv, e, kty, n, x, y } = key.export({ format: 'jwk' })
  return hash('sha256', JSON.stringify({ crv, e, kty, n, x, y }), 'base64url')
}

/** Whether text is a key of a pair, in any of the usual forms: with a public key for a secret everyone can sign. */
function isKey (text: string): boolean {
  if (/-----BEGIN |"kty"\s*:/.test(text)) return true
  try {
    createPublicKey({ key: Buffer.from(text, 'base64'), format: 'der', type: 'spki' })
    return true
  } catch {
    return false
  }
}
