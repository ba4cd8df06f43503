import { isIP } from 'node:net'
import { serialize } from 'cookie'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { TokenValidation, type Documents, type Subject, type TokenRegistry } from '../../token-registry/index.ts'
import { DeviceNotFound } from '../errors.ts'
import { DeviceDocuments } from './device-documents.ts'
import { change, NO_DEVICES, see, without, type Device, type DeviceChange, type Seen } from './list.ts'
import { checkedName, nameFrom } from './name.ts'
import type { ResolvedDevices } from './options.ts'
import { presentedBy } from './presented.ts'
import { DeviceTokens, isDeviceId, newDeviceId } from './token.ts'

export interface DevicesParts {
  /** Where devices are kept. Each call of it must end by itself. */
  documents: Documents
  /** 32 bytes each: the first signs device tokens, all verify. */
  keys: readonly Buffer[]
  registry: Pick<TokenRegistry, 'list' | 'revokeById'> & { for: (request: FastifyRequest) => Pick<TokenRegistry, 'revokeById'> }
  options: ResolvedDevices
  /** ms since the epoch */
  now: () => number
  /** Is told what no caller sees. */
  log: (error: unknown, message: string) => void
}

export interface RecognisedDevice {
  id: string
  /** For the client to keep, signed by the key that is the first now. */
  token: string
  /** Whether the request showed none, and this id was made for it. */
  isNew: boolean
  /** By what the request showed it. */
  via: 'cookie' | 'header' | null
}

/** A sign-in, as far as it is known. */
export interface SignIn {
  /** Now where it is left out; ms since the epoch. */
  at?: number | undefined
  ipAddress?: string | null | undefined
  userAgent?: string | null | undefined
  /** As who signed in calls the device. A name that it has from its owner stays. */
  name?: string | null | undefined
}

export interface EndOptions {
  /** Who does it, for the endings. */
  by?: string | null
  /** On whose behalf, for hooks: as with `tokenRegistry.for(request)`. */
  request?: FastifyRequest
}

const PAGE = 100
const SECOND = 1000
/** Browsers keep no cookie longer (RFC 6265bis, section 5.5). */
const MAX_COOKIE_AGE = 400 * 86_400 * SECOND
/** Characters of the longest address. */
const MAX_ADDRESS = 45

/** The devices that people sign in with. */
export class Devices {
  readonly #registry: DevicesParts['registry']
  readonly #options: ResolvedDevices
  readonly #now: () => number
  readonly #tokens: DeviceTokens
  readonly #documents: DeviceDocuments

  constructor ({ documents, keys, registry, options, now, log }: DevicesParts) {
    this.#registry = registry
    this.#options = options
    this.#now = now
    this.#tokens = new DeviceTokens(keys)
    this.#documents = new DeviceDocuments({ documents, now, forgetAfter: options.forgetAfter, log })
  }

  /**
   * Which device a request comes from: by the header, else by the cookie, else a new one. It is no proof of who asks.
   *
   * @throws `FST_SESSION_DEVICE` for a header that holds anything but one token of ours; such a cookie counts as none
   */
  recognise (request: Pick<FastifyRequest, 'headers'>): RecognisedDevice {
    const presented = presentedBy(request, this.#tokens, this.#options)
    const id = presented?.id ?? newDeviceId()
    return { id, token: this.#tokens.sign(id), isNew: presented === null, via: presented?.via ?? null }
  }

  /** The `Set-Cookie` that makes a browser keep a device token; null where the option `cookie` is false. */
  cookieOf (token: string): string | null {
    const { cookie, forgetAfter } = this.#options
    if (cookie === null) return null
    const { name, secure, sameSite } = cookie
    return serialize(name, token, { httpOnly: true, secure, sameSite, path: '/', maxAge: Math.floor(Math.min(forgetAfter, MAX_COOKIE_AGE) / SECOND) })
  }

  /**
   * Gives a device token to who signed in: in the cookie, and to who is no browser, or where the option `cookie` is false, in the header. A page of
   * another site gets no header either, though its browser may keep no cookie: who knows both the token and the password signs in unnoticed.
   */
  give (request: Pick<FastifyRequest, 'headers'>, reply: FastifyReply, { token }: Pick<RecognisedDevice, 'token'>): void {
    const { header } = this.#options
    const cookie = this.cookieOf(token)
    if (cookie !== null) reply.header('set-cookie', cookie)
    // What the cookie keeps from the scripts of a page is not told to them in a header. Browsers say where a request comes from.
    const keeps = cookie !== null && request.headers['sec-fetch-site'] !== undefined
    if (header !== null && !keeps) reply.header(header, token)
  }

  /**
   * Notes that a subject signed in with a device, and tells what is new about it. Of two sign-ins at a time, one is told that the device is new.
   *
   * @param id as `recognise` gave it
   * @throws `FST_TOKEN_VALIDATION`, `FST_SESSION_DEVICE_CONFLICT`, `FST_STORE_*`
   */
  async see (subject: Subject, id: string, { at = this.#now(), ipAddress, userAgent, name }: SignIn = {}): Promise<Seen> {
    if (!isDeviceId(id)) throw new TokenValidation('id: is not one that recognise gives')
    checkSubject(subject)
    const sighting = {
      id,
      at,
      name: name == null ? null : checkedName(name),
      agentName: typeof userAgent === 'string' ? nameFrom(userAgent) : null,
      ipAddress: isAddress(ipAddress) ? ipAddress : null
    }
    return await this.#documents.change(subject, list => see(list, sighting, this.#options.max))
  }

  /** A subject's devices, last seen first. */
  async list (subject: Subject): Promise<Device[]> {
    checkSubject(subject)
    const { devices } = await this.#documents.read(subject)
    return [...devices]
  }

  /** A subject's device; null where it has none of that id. */
  async find (subject: Subject, id: string): Promise<Device | null> {
    const devices = await this.list(subject)
    return devices.find(device => device.id === id) ?? null
  }

  /** @throws `FST_SESSION_DEVICE_NOT_FOUND` where the subject has none of that id, `FST_STORE_*` */
  async get (subject: Subject, id: string): Promise<Device> {
    const device = await this.find(subject, id)
    if (device === null) throw new DeviceNotFound()
    return device
  }

  /**
   * Names a device, trusts it or no more, or both at once.
   *
   * @throws `FST_SESSION_DEVICE_NOT_FOUND`, `FST_TOKEN_VALIDATION`, `FST_SESSION_DEVICE_CONFLICT`, `FST_STORE_*`
   * @example
   * await devices.change(session, id, { name: 'Work laptop', trusted: true })
   */
  async change (subject: Subject, id: string, { name, trusted }: DeviceChange): Promise<Device> {
    const checked = { trusted, ...name !== undefined && { name: checkedName(name) } }
    checkSubject(subject)
    return await this.#documents.change(subject, list => change(list, id, checked))
  }

  /** Names a device, as `change` does. */
  async rename (subject: Subject, id: string, name: string): Promise<Device> {
    return await this.change(subject, id, { name })
  }

  /** Trusts a device, or no more, as `change` does. */
  async trust (subject: Subject, id: string, trusted = true): Promise<Device> {
    return await this.change(subject, id, { trusted })
  }

  /**
   * Ends a subject's sessions on a device, which stays in the list. Those of a device that was forgotten to make room are found as well.
   *
   * @returns how many were ended
   * @throws `FST_SESSION_DEVICE_NOT_FOUND` where there is neither such a device nor a session on it, `FST_STORE_*`, what a `preRevoke` hook throws
   */
  async signOut (subject: Subject, id: string, options: EndOptions = {}): Promise<number> {
    if (!isDeviceId(id)) throw new DeviceNotFound()
    const device = await this.find(subject, id)
    const ended = await this.#endSessions(subject, id, options)
    if (device === null && ended === 0) throw new DeviceNotFound()
    return ended
  }

  /**
   * Signs a device out and takes it from the list. Who signs in with it again is on a new, untrusted device.
   *
   * @returns how many sessions were ended
   * @throws as `signOut`, `FST_SESSION_DEVICE_CONFLICT`
   */
  async forget (subject: Subject, id: string, options: EndOptions = {}): Promise<number> {
    const ended = await this.signOut(subject, id, options)
    // Last, so that what failed half-way can be asked for again.
    await this.#documents.change(subject, list => ({ list: without(list ?? NO_DEVICES, id), result: null }))
    return ended
  }

  async #endSessions ({ tenant, sub }: Subject, id: string, { by = null, request }: EndOptions): Promise<number> {
    const registry = request === undefined ? this.#registry : this.#registry.for(request)
    let ended = 0
    let cursor: string | null = null
    do {
      const page = await this.#registry.list({ tenant, sub, deviceId: id, limit: PAGE, cursor })
      const endings = await Promise.all(page.sessions.map(async session => await registry.revokeById(session.id, 'revoked', { by })))
      ended += endings.filter(done => done).length
      cursor = page.cursor
    } while (cursor !== null)
    return ended
  }
}

/** Without a subject, or with one that no session has, the devices would be those of nobody, and of everybody. */
function checkSubject ({ tenant, sub }: Subject): void {
  const good = isText(tenant) && isText(sub) && sub !== ''
  if (!good) throw new TokenValidation('subject: is not that of a session: give its tenant and sub')
}

/** Some proxies forward an address with a port, or a name. A zone may be of any length. */
function isAddress (value: unknown): value is string {
  return typeof value === 'string' && value.length <= MAX_ADDRESS && isIP(value) !== 0
}

function isText (value: unknown): boolean {
  return typeof value === 'string' && value.length <= 256 && value.isWellFormed()
}
