import { request as http } from 'node:http'
import { request as https, type RequestOptions } from 'node:https'
import type { LookupFunction, TcpSocketConnectOpts } from 'node:net'

/** Bytes of an answer that are read, so that a receiver is not cut off; none of them is used. */
const MAX_ANSWER = 16_384

export interface PostOptions {
  lookup: LookupFunction
  /** ms for all of it */
  timeout: number
  signal: AbortSignal
  ca: string | undefined
}

/**
 * Posts once, on a connection of its own, straight to the address: no redirect is followed and no proxy used.
 *
 * @returns the status that was answered, when the connection is closed
 */
export async function post (url: URL, headers: Record<string, string>, body: string, { lookup, timeout, signal, ca }: PostOptions): Promise<number> {
  const send = url.protocol === 'https:' ? https : http
  // Of several addresses the first gets a second, not the quarter of one that is Node's default.
  const options: RequestOptions & Pick<TcpSocketConnectOpts, 'autoSelectFamilyAttemptTimeout'> = { method: 'POST', headers, agent: false, lookup, signal, autoSelectFamilyAttemptTimeout: 1000, ca }
  return await new Promise((resolve, reject) => {
    let status: number | undefined
    let fault = new Error('it closed the connection')
    const request = send(url, options)
    const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeout} ms`)), timeout).unref()
    request.on('response', response => {
      let size = 0
      status = response.statusCode
      response.on('error', () => {}) // the status has said it
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > MAX_ANSWER) request.destroy()
      })
    })
    request.on('error', error => { fault = error })
    // Every way ends here, also an answer 101, which is neither a response nor an error.
    request.on('close', () => {
      clearTimeout(timer)
      if (status === undefined) reject(fault)
      else resolve(status)
    })
    request.end(body)
  })
}
