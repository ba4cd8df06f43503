import { createHash, timingSafeEqual } from 'node:crypto'
import { BlockList, isIP } from 'node:net'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { OperatorAddress, OperatorToken, TokenOptions } from './errors.ts'
import { faultOf } from './option-fault.ts'

/** Who operates a service, as its metrics and the details of its health are for nobody else. Of what is given, all must be right. */
export interface OperatorOptions {
  /** What they send as `Authorization: Bearer`: at least 16 letters, digits or `-._~+/`. Of several each is right, so that one can be replaced. */
  token?: string | readonly string[]
  /** From where they ask: addresses and networks, as `10.0.0.0/8`. Behind proxies Fastify's `trustProxy` says whose word for an address counts. */
  allow?: readonly string[]
}

/** RFC 6750 §2.1, and not short. */
const TOKEN = /^(?=.{16})[\w.~+/-]+=*$/
const tokenMayBe = 'at least 16 letters, digits or -._~+/, or a list of such'

const Options = Type.Object({
  token: Type.Optional(Type.Unknown()),
  allow: Type.Optional(Type.Array(Type.String({ errorMessage: 'an address or a network' }), { minItems: 1, errorMessage: 'a list of addresses and networks, as 10.0.0.0/8' }))
}, { additionalProperties: false, errorMessage: '{ token, allow }' })

/** Tells operators from others. */
export class Operators {
  readonly #tokens: readonly Buffer[] | null
  readonly #allowed: BlockList | null

  /**
   * @param name of the options, for messages
   * @throws {TokenOptions} names the option
   */
  constructor (options: OperatorOptions, name: string) {
    const fault = faultOf(Options, options, name)
    if (fault !== null) throw new TokenOptions(fault)
    const { token, allow } = options
    this.#tokens = token === undefined ? null : digestsOf(token, `${name}.token`)
    this.#allowed = allow === undefined ? null : listOf(allow, `${name}.allow`)
  }

  /** Whether nobody is one. */
  get none (): boolean {
    return this.#tokens === null && this.#allowed === null
  }

  /** Whether who asks is one. */
  includes (request: FastifyRequest): boolean {
    return !this.none && this.#faultOf(request) === null
  }

  /** @returns why who asks is none, with the header that says so set; null where they are */
  refusalOf (request: FastifyRequest, reply: FastifyReply): Error | null {
    const fault = this.#faultOf(request)
    if (fault instanceof OperatorToken) reply.header('www-authenticate', 'Bearer')
    return fault
  }

  #faultOf ({ ip, headers: { authorization } }: FastifyRequest): Error | null {
    if (this.#allowed !== null && !isIn(this.#allowed, ip)) return new OperatorAddress()
    return this.#tokens === null || isOne(this.#tokens, authorization) ? null : new OperatorToken()
  }
}

function isOne (tokens: readonly Buffer[], authorization = ''): boolean {
  const given = digest(/^Bearer (\S+)$/i.exec(authorization)?.[1] ?? '')
  // Each is compared, in constant time.
  return tokens.filter(token => timingSafeEqual(token, given)).length > 0
}

/** A message never repeats one. */
function digestsOf (token: string | readonly string[], name: string): Buffer[] {
  const tokens: readonly unknown[] = [token].flat()
  return tokens.map(each => {
    if (typeof each !== 'string' || !TOKEN.test(each)) throw new TokenOptions(`${name}: it may be ${tokenMayBe}`)
    return digest(each)
  })
}

function digest (text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

function listOf (allow: readonly string[], name: string): BlockList {
  const list = new BlockList()
  for (const [index, entry] of allow.entries()) {
    const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(entry) ?? []
    const version = isIP(address)
    const longest = version === 4 ? 32 : 128
    if (version === 0 || Number(bits ?? 0) > longest) throw new TokenOptions(`${name}.${index} is ${JSON.stringify(entry)}: it may be an address or a network, as 10.0.0.0/8`)
    list.addSubnet(address, Number(bits ?? longest), version === 4 ? 'ipv4' : 'ipv6')
  }
  return list
}

function isIn (list: BlockList, ip: string): boolean {
  const version = isIP(ip)
  return version !== 0 && list.check(ip, version === 4 ? 'ipv4' : 'ipv6')
}

const quieter = ['error', 'fatal', 'silent'] as const

/** The level of the log for routes that are asked over and over: warnings, or the server's own where that tells even less. */
export function quietLevel ({ log: { level } }: FastifyInstance): 'warn' | typeof quieter[number] {
  return quieter.find(each => each === level) ?? 'warn'
}
