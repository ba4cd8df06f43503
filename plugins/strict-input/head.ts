import type { FastifyRequest } from 'fastify'
import { InputHeader, InputMediaType, InputUrl } from './errors.ts'
import { isRecord } from './schema.ts'

/** Headers that Node drops in silence when they stand a second time, and that decide who asks for what; keyed by length, which tells them apart. */
const singleHeaders: Record<number, string> = { 4: 'host', 12: 'content-type', 13: 'authorization' }

/**
 * Checks what comes before the body: headers (RFC 9110 §5.3, RFC 9112 §3.2), URL and media type.
 *
 * @returns what is wrong, or undefined
 */
export function headFault (request: FastifyRequest): Error | undefined {
  return headerFault(request.raw.rawHeaders) ?? urlFault(request.url) ?? mediaTypeFault(request)
}

function headerFault (rawHeaders: readonly string[]): Error | undefined {
  let seen = 0
  for (let i = 0, given; (given = rawHeaders[i]) !== undefined; i += 2) {
    const name = singleHeaders[given.length]
    if (name === undefined || given.toLowerCase() !== name) continue
    const bit = 1 << name.length
    if ((seen & bit) !== 0) return new InputHeader(name)
    seen |= bit
  }
}

function urlFault (url: string): Error | undefined {
  if (!url.includes('%')) return
  try {
    if (!decodeURIComponent(url).includes('\0')) return
  } catch {}
  return new InputUrl()
}

/** Fastify validates a body by `content` only where its type is listed there, and lets every other one pass unread. */
function mediaTypeFault (request: FastifyRequest): Error | undefined {
  if (request.method === 'GET' || request.method === 'HEAD') return
  const body = request.routeOptions.schema?.body
  if (!isRecord(body) || !isRecord(body['content'])) return
  const types = Object.keys(body['content'])
  if (!types.some(type => type === request.mediaType)) return new InputMediaType(types.join(', '))
}
