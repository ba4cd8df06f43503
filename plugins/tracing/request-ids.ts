import { randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'

/** Version, trace, parent, flags; those of later versions may add to it. Zeros are none. */
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-|$)/
const VERSION_00 = 55
const ID_BYTES = 16
/** Whoever keeps an id keeps its batch: 2 KiB. */
const BATCH = 64
const REQUEST_ID = /^[\w.:@/+=-]{1,128}$/

/**
 * What a request is called, wherever it is spoken of: the trace that it belongs to (W3C Trace Context §3.2), else what a proxy called it, else a new name.
 * What is malformed or too long is as if it were not there.
 *
 * @param traceId of the trace that is under way in this process
 */
export function requestIdOf ({ traceparent, 'x-request-id': requestId }: IncomingHttpHeaders, traceId: () => string | undefined): string {
  return traceIdIn(traceparent) ?? (typeof requestId === 'string' && REQUEST_ID.test(requestId) ? requestId : traceId() ?? newId())
}

let ids = ''
let used = 0

/** Random, in the form of a trace's. Cut from a batch of them: a UUID by itself costs as much as all else that tracing does to a request. */
function newId (): string {
  if (used === ids.length) {
    ids = randomBytes(BATCH * ID_BYTES).toString('hex')
    used = 0
  }
  const id = ids.slice(used, used + 2 * ID_BYTES)
  used += id.length
  return id
}

function traceIdIn (traceparent: unknown): string | undefined {
  if (typeof traceparent !== 'string' || traceparent.length > 512) return undefined
  const [, version, traceId] = TRACEPARENT.exec(traceparent) ?? []
  return version === '00' && traceparent.length !== VERSION_00 ? undefined : traceId
}
