import type { FastifyInstance } from 'fastify'
import { JwtOptions } from './errors.ts'
import { algorithms, type Algorithm } from './keys.ts'

/** What is used of a decorator of `@fastify/jwt`. Its own types depend on what the host declared of its namespaces. */
export interface Jwt {
  readonly options: {
    readonly sign: { readonly algorithm?: string, readonly header?: { readonly typ?: string } }
    readonly verify: { readonly algorithms?: readonly string[] }
  }
  sign (payload: object, options?: { algorithm: Algorithm, typ: string }): string
  verify (token: string, options: object): unknown
}

/**
 * The decorator of `@fastify/jwt` of a namespace, or without one.
 *
 * @throws {JwtOptions} names those that there are
 */
export function jwtOf (app: FastifyInstance, namespace: string | undefined): Jwt {
  const jwt = app.getDecorator<object>('jwt')
  const namespaces = new Map<string, unknown>(Object.entries(jwt))
  const found = namespace === undefined ? jwt : namespaces.get(namespace)
  if (isJwt(found)) return found
  const names = [...namespaces].flatMap(([name, value]) => isJwt(value) ? [name] : [])
  throw new JwtOptions(`namespace is ${namespace ?? 'missing'}: @fastify/jwt is registered ${names.length === 0 ? 'without one' : `under ${names.join(', ')}`}`)
}

/**
 * The only algorithm that tokens may be signed with.
 *
 * @param own the option of the plugin
 * @throws {JwtOptions} where nothing says which, it is none of ours, or the key does not go with it
 */
export function pinnedAlgorithm (jwt: Jwt, own: Algorithm | undefined): Algorithm {
  const { sign, verify } = jwt.options
  const [algorithm, ...more] = own === undefined ? verify.algorithms ?? [] : [own]
  if (more.length > 0 || !isAlgorithm(algorithm)) {
    throw new JwtOptions(`verify.algorithms of @fastify/jwt is ${JSON.stringify(verify.algorithms)}: it must be one of ${algorithms.join(', ')}, in a list (jwtKeys sets it), or be named by the option algorithm`)
  }
  if (verify.algorithms?.includes(algorithm) === false) {
    throw new JwtOptions(`algorithm is ${algorithm}, which verify.algorithms of @fastify/jwt (${verify.algorithms.join(', ')}) lacks: one of them must change`)
  }
  if (sign.algorithm !== undefined && sign.algorithm !== algorithm) {
    throw new JwtOptions(`sign.algorithm of @fastify/jwt is ${sign.algorithm}, but ${algorithm} is verified: one of them must change`)
  }
  return algorithm
}

/**
 * Refuses a secret that everyone knows, and a key that is not fixed.
 *
 * @throws {JwtOptions}
 */
export function checkKey (jwt: Jwt, algorithm: Algorithm): void {
  const kind = kindOfKey(jwt)
  if (kind === 'function') throw new JwtOptions('the secret of @fastify/jwt is a function: give it a fixed key')
  if (kind === 'public key' && algorithm === 'HS256') throw new JwtOptions('the secret of @fastify/jwt is a public key, and whoever knows it could sign HS256')
}

/** What `@fastify/jwt` verifies with, which it does not tell. */
function kindOfKey (jwt: Jwt): 'secret' | 'public key' | 'function' {
  try {
    const verified = jwt.verify('.', { algorithms: ['EdDSA', 'ES256', 'ES384', 'ES512', 'RS256'] })
    // Only a function for a key makes it a promise: of a refusal, since this is no token.
    Promise.resolve(verified).catch(() => {})
    return 'function'
  } catch (error) {
    // fast-jwt looks at the key before it looks at the token, and says that a secret is no key for these.
    return error instanceof Error && 'code' in error && error.code === 'FAST_JWT_INVALID_KEY' ? 'secret' : 'public key'
  }
}

function isJwt (value: unknown): value is Jwt {
  return typeof value === 'object' && value !== null && 'sign' in value && typeof value.sign === 'function'
}

function isAlgorithm (name: string | undefined): name is Algorithm {
  return name !== undefined && algorithms.includes(name)
}
