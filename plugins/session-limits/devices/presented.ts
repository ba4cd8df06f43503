import { parse } from 'cookie'
import type { FastifyRequest } from 'fastify'
import { DeviceInvalid } from '../errors.ts'
import type { DeviceCookie, ResolvedDevices } from './options.ts'
import type { DeviceTokens } from './token.ts'

export interface Presented {
  id: string
  via: 'cookie' | 'header'
}

/**
 * Which device a request says that it comes from. A cookie that we did not sign counts as none: browsers keep cookies for longer than services keep keys.
 *
 * @returns null where it says nothing
 * @throws {DeviceInvalid} for a header that we did not sign, or two of them: a program sent that on purpose
 */
export function presentedBy ({ headers }: Pick<FastifyRequest, 'headers'>, tokens: DeviceTokens, { header, cookie }: Pick<ResolvedDevices, 'header' | 'cookie'>): Presented | null {
  const given = header === null ? undefined : headers[header]
  if (header !== null && given !== undefined) {
    // Node makes one of two, with a comma that is in no token.
    const id = tokens.open(String(given))
    if (id === null) throw new DeviceInvalid(header)
    return { id, via: 'header' }
  }

  const id = tokens.open(cookieIn(headers.cookie, cookie))
  return id === null ? null : { id, via: 'cookie' }
}

function cookieIn (header: string | undefined, cookie: DeviceCookie | null): string {
  if (header === undefined || cookie === null || !header.includes(cookie.name)) return ''
  return parse(header)[cookie.name] ?? ''
}
